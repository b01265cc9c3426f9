"""A look at the machine before a run: what is there, what will be missing, and what stands in the way."""
