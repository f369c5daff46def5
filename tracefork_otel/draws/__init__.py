"""What an agent reads from clocks, ids and randomness: recorded and served again."""
