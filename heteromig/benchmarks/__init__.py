"""The embedded LoadGen benchmark: a program of its own, one process per LoadGen run."""
