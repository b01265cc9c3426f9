"""The fault matrix: what befalls a run, and what has to come of it. `docs/fault-matrix.md` is made from its results."""
