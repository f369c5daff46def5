"""What an agent reads besides the network: clocks, ids and randomness, recorded and served."""
