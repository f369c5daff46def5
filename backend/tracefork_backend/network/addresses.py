"""Between an agent and its provider: what passes is recorded, or answered from a tape."""

LOOPBACK = "127.0.0.1"
"""Where nobody but this machine gets at it."""
