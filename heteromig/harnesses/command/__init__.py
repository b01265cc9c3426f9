"""The harness `command`: any program as main or background, as `[command.<name>]` describes it."""
