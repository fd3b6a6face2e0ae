"""Non-local (self-)attention with memory linear in the number of positions."""
