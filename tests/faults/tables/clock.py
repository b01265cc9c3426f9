"""The wall clock is set while a run is going on. What was true stays true: never a valid verdict that is not."""

from __future__ import annotations

from collections.abc import Iterator

from heteromig.core.phases import Phase
from tests.faults.cells import VALID, Act, Cell, Need, cell, does, inconclusive, invalid
from tests.faults.preload import SettableClock, build
from tests.faults.stage import Stage
from tests.nvml_library.build import compiler

TOPIC = "clock"
HOUR_S = 3600.0
FLAGS = ("--main-benchmark-duration", "2s", "--start-time-buffer", "1s")
SAYS_SO = inconclusive("clock")
DISPROVEN = (invalid(3, "is not VALID"), invalid(4, "was not timed during the whole timed section of main"))
"""LoadGen measures by the wall clock as well: what it calls too short, or its stamps disprove, is no false valid."""


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


def _cells() -> Iterator[Cell]:
    for phase in (Phase.BUFFERING, Phase.MAIN_RUNNING, Phase.DRAINING):
        for by_s, words in ((HOUR_S, "forward"), (-HOUR_S, "back")):
            act = _all(f"all clocks are set {words} by an hour", by_s)
            if phase is Phase.DRAINING:
                act = Act(act.words, before=act.before, strike=act.strike, flags=(*FLAGS, *WAITING))
            yield cell(TOPIC, act, phase, VALID, SAYS_SO, *DISPROVEN, needs=(Need.COMPILER,))
    for by_s, words in ((HOUR_S, "forward"), (-HOUR_S, "back")):
        yield cell(
            TOPIC,
            _step(f"the controller's clock is set {words} by an hour", controller_s=by_s),
            Phase.MAIN_RUNNING,
            VALID,
            SAYS_SO,
            needs=(Need.COMPILER,),
            fast=by_s > 0,
        )
        yield cell(
            TOPIC,
            _step(f"main's clock is set {words} by an hour", main_s=by_s),
            Phase.MAIN_RUNNING,
            VALID,
            SAYS_SO,
            *DISPROVEN,
            needs=(Need.COMPILER,),
        )
        yield cell(
            TOPIC,
            _step(f"the background's clock is set {words} by an hour", backgrounds_s=by_s),
            Phase.MAIN_RUNNING,
            VALID,
            SAYS_SO,
            *DISPROVEN,
            needs=(Need.COMPILER,),
        )
    yield cell(
        TOPIC,
        _all("all clocks are set forward by half a second", 0.5),
        Phase.MAIN_RUNNING,
        VALID,
        SAYS_SO,
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
