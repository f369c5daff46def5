"""Agents started: a command recorded in the foreground, or any command supervised. The only subprocesses."""
