"""Who may have a main in NVIDIA's tree, with real locks of the kernel."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError
from heteromig.core.spec import Action
from heteromig.runner.config import MainConfig
from tests.harnesses.make.plans import Planned
from tests.nvidia_tree.tree import plant


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path)


def begun(tree: Path, action: Action = Action.RUN_HARNESS) -> Planned:
    """A run whose first worker is about to start."""
    planned = Planned(tree, MainConfig(duration="300", action=action))
    planned.make_directory(planned.main)
    prepare(planned)
    return planned


def prepare(planned: Planned) -> None:
    planned.harness.prepare(planned.main, planned.spec, planned.run_dir)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (Action.RUN_HARNESS, Action.TEST01, "Another heteromig run is at work"),
        (Action.TEST01, Action.TEST05, "Another heteromig run is at work"),
        (Action.TEST04, Action.RUN_HARNESS, "An audit of another heteromig run is at work"),
    ],
)
def test_an_audit_is_alone(tree: Path, first: Action, second: Action, said: str) -> None:
    held = begun(tree, first)
    late = Planned(tree, MainConfig(duration="300", action=second))
    background = late.plan.backgrounds[0]
    late.make_directory(background)
    with pytest.raises(PreflightError, match=f"{said} in {tree}"):
        late.harness.prepare(background, late.spec, late.run_dir)  # it is told before anything of it runs
    held.harness.collect(held.main, held.spec, held.run_dir, started_utc_ns=0, exit_code=0)
    late.harness.prepare(background, late.spec, late.run_dir)


def test_others_are_not(tree: Path) -> None:
    held = begun(tree)
    prepare(Planned(tree))
    assert held.run_dir.name


def test_a_build_does_not_ask(tree: Path) -> None:
    held = begun(tree, Action.TEST01)
    other = Planned(tree)
    build = other.builds()[0]
    other.harness.prepare(build, other.spec, other.run_dir)
    assert held.run_dir.name


def test_a_run_that_came_to_nothing_holds_nothing(tree: Path) -> None:
    held = begun(tree, Action.TEST01)
    del held
    gc.collect()
    prepare(Planned(tree, MainConfig(duration="300", action=Action.TEST05)))


def test_nothing_is_left_in_the_tree(tree: Path) -> None:
    before = sorted(tree.rglob("*"))
    held = begun(tree, Action.TEST01)
    assert sorted(tree.rglob("*")) == before
    assert held.run_dir.name
