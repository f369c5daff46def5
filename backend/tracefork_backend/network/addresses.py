"""Where servers listen."""

LOOPBACK = "127.0.0.1"
"""Where nobody but this machine gets at it."""
