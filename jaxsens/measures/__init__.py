"""What can be read off a trained network beside its sensitivity."""
