"""What an agent keeps in files beside its calls: kept as it was at the start, and given back as a copy."""
