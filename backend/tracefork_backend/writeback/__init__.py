"""Results written back as spans: into the store, and by OTLP where the environment names a collector."""
