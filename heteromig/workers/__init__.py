"""Child process trees: the guardian, spawning, the stop ladder, reaping."""
