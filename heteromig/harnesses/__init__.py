"""What a worker runs: a plan turned into argv, environment and log patterns."""
