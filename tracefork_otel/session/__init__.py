"""What one process records: its WAL, its spans and providers, and how it is known."""
