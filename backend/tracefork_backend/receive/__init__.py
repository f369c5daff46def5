"""Spans of other SDKs and Collectors, received by OTLP into the store."""
