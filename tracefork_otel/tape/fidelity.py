"""Attributes of exchanges whose bytes are not those of the wire: they cannot be replayed, or not exactly."""

FIDELITY = "tracefork.fidelity"
"""Of an exchange that was made from messages on a span: `messages`."""
TRUNCATED = "tracefork.truncated"
"""Of a received exchange of which a body did not come whole, saying why."""
