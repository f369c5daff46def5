"""The one recorder: what is written down of an exchange and of a process, whoever sees them."""
