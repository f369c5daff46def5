"""A user's redaction rules: read from a file, carried with a run, and applied to bodies."""
