"""How a run ended: oracles, and a model as judge."""
