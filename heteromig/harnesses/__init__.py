"""What a worker runs: a plan turned into argv, environment and log patterns."""

from __future__ import annotations

from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.harnesses.protocol import Harness

HARNESSES: dict[str, Harness] = {harness.name: harness for harness in (LoadgenHarness(),)}

__all__ = ["HARNESSES", "Harness"]
