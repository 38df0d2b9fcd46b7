"""What every command here shares: its options, how it ends, and files written whole.

Below experiments/ and theory/, above nothing: the standard library, and tyro once options are read.
"""
