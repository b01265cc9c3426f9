"""Whole runs, phase by phase and fault by fault: where each goes, what is asked for, and how it comes out."""

from __future__ import annotations

from tests.core import invariants
from tests.core.histories import SPEC
from tests.core.world import World


def test_a_good_run() -> None:
    world = World(SPEC).finish()
    invariants.check(SPEC, world.steps)
    assert world.verdict.exit_code == 0
    assert len(world.steps) < 200, len(world.steps)
