"""THE METHOD: noise, starts, votes, bounds and certificates."""
