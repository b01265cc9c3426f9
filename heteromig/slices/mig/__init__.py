"""Cutting a GPU into MIG slices: what is wanted, what fits, doing it, and undoing it whatever happens in between."""
