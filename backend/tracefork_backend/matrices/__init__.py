"""Several runs, variants and repeats of forks in one call, as cells with pass rates."""
