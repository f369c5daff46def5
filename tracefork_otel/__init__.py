"""Record every model call of an agent, whole, beside its OpenTelemetry trace; play it back bit-exact."""

__version__ = "0.1.0"
