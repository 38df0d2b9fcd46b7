"""What every experiment shares: command line, run record, progress, plotting style."""
