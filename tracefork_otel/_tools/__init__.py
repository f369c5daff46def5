"""Calls of local tools: what of them is recorded, and which recorded result a later call gets."""
