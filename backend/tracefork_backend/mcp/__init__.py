"""The store as tools of a coding assistant: what it may ask, in answers that fit its context."""
