"""The wall clock is set while a run is going on. What was true stays true: never a valid verdict that is not."""

from __future__ import annotations

from collections.abc import Iterator

from heteromig.core.phases import Phase
from tests.faults.cells import VALID, Act, Cell, Expected, Need, cell, does, inconclusive, invalid
from tests.faults.preload import SettableClock, build
from tests.faults.stage import Stage
from tests.nvml_library.build import compiler

TOPIC = "clock"
HOUR_S = 3600.0
FLAGS = ("--main-benchmark-duration", "2s", "--start-time-buffer", "1s")
UNMAPPED = inconclusive("clock")
"""A stamp of another clock than the controller's, or of a time that the controller's never showed, proves nothing."""
CUT = invalid(4, "after main")
"""LoadGen ends a timed section with the last completion by the wall clock, which is one before it was set back."""
TOO_SHORT = invalid(3, "is not VALID")
"""By the same rule main is shorter than its minimum."""


def _preload(stage: Stage) -> None:
    found = compiler()
    assert found is not None
    stage.clock = SettableClock(stage.home / "clock")
    stage.environ["LD_PRELOAD"] = str(build(found, stage.home))
    stage.environ["FAULTS_CLOCK"] = str(stage.clock.path)


def _step(words: str, *, controller_s: float = 0, main_s: float = 0, backgrounds_s: float = 0) -> Act:
    def strike(stage: Stage) -> None:
        assert stage.clock is not None
        stage.clock.set(controller_s=controller_s, main_s=main_s, backgrounds_s=backgrounds_s)

    return Act(words, before=_preload, strike=strike, flags=FLAGS)


def _all(words: str, by_s: float) -> Act:
    return _step(words, controller_s=by_s, main_s=by_s, backgrounds_s=by_s)


def _ahead(stage: Stage) -> None:
    """From the start, backgrounds live an hour later than everybody else."""
    _preload(stage)
    assert stage.clock is not None
    stage.clock.set(backgrounds_s=HOUR_S)


# What all clocks agree on is mapped; forward, no time of day is shown twice, and nothing is lost.
_ALL: tuple[tuple[Phase, tuple[Expected, ...]], ...] = (
    (Phase.BUFFERING, (CUT,)),
    # Set back in the timed section of both: which of their last completions before was the later is chance.
    (Phase.MAIN_RUNNING, (TOO_SHORT, invalid(4, "after main", "is not VALID"))),
    (Phase.DRAINING, (CUT,)),
)


def _cells() -> Iterator[Cell]:
    for phase, back in _ALL:
        for by_s, words, expected in ((HOUR_S, "forward", (VALID,)), (-HOUR_S, "back", back)):
            act = _all(f"all clocks are set {words} by an hour", by_s)
            if phase is Phase.DRAINING:
                act = Act(act.words, before=act.before, strike=act.strike, flags=(*FLAGS, *WAITING))
            yield cell(TOPIC, act, phase, *expected, needs=(Need.COMPILER,))
    for whose, forward, back_alone in (
        ("controller", UNMAPPED, UNMAPPED),
        ("main", UNMAPPED, TOO_SHORT),
        ("background", UNMAPPED, CUT),
    ):
        for by_s, words, outcome in ((HOUR_S, "forward", forward), (-HOUR_S, "back", back_alone)):
            act = _step(
                f"the {whose}'s clock is set {words} by an hour".replace("the main's", "main's"),
                controller_s=by_s if whose == "controller" else 0,
                main_s=by_s if whose == "main" else 0,
                backgrounds_s=by_s if whose == "background" else 0,
            )
            yield cell(
                TOPIC,
                act,
                Phase.MAIN_RUNNING,
                outcome,
                needs=(Need.COMPILER,),
                fast=whose == "controller" and by_s > 0,
            )
    yield cell(
        TOPIC,
        _all("all clocks are set forward by half a second", 0.5),
        Phase.MAIN_RUNNING,
        VALID,
        needs=(Need.COMPILER,),
    )
    yield cell(
        TOPIC,
        Act(
            "the background's clock is an hour ahead, and it ends before main",
            before=_ahead,
            environ=does("background", "exit 0 at cue").environ,
            strike=lambda stage: stage.cue(),
        ),
        Phase.MAIN_RUNNING,
        invalid(4, "ended before main did"),
        needs=(Need.COMPILER,),
    )
    yield cell(
        TOPIC,
        Act(
            "the background's clock is set forward by an hour, and its timed section ends before main's",
            before=_preload,
            strike=_step("", backgrounds_s=HOUR_S).strike,
            flags=("--background-benchmark-duration", "2s", "--main-benchmark-duration", "4s"),
        ),
        Phase.MAIN_RUNNING,
        invalid(4, "left its timed section before main did"),
        needs=(Need.COMPILER,),
        fast=True,
    )


WAITING = ("--background-benchmark-duration", "6s", "--end-time-buffer-min", "0")
CELLS: tuple[Cell, ...] = tuple(_cells())
