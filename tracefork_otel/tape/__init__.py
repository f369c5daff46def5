"""A run as it can be played again, and its file."""
