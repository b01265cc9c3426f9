"""Runs against baselines: which runs go together, what they measured, and what neighbours cost."""
