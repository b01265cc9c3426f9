"""The cells, one module a topic."""
