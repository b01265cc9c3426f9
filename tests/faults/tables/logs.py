"""LoadGen's log, the evidence, is not what it should be when the run is judged."""

from __future__ import annotations

from heteromig.core.phases import Phase
from tests.e2e.deeds import SAMPLE_LOG
from tests.faults.cells import VALID, Act, Cell, cell, does, inconclusive, invalid
from tests.faults.stage import REPOSITORY

TOPIC = "logs"
RUNNING, DRAINING = Phase.MAIN_RUNNING, Phase.DRAINING
EARLIER = str(REPOSITORY / "tests" / "logs" / "recordings" / "5.1.2" / "EARLIER")


def _deed(who: str, deed: str) -> Act:
    made = does(who, f"{deed} at result", f"{who}'s {deed}")
    return Act(made.words, environ={**made.environ, SAMPLE_LOG: EARLIER})


CELLS: tuple[Cell, ...] = (
    *(
        cell(TOPIC, _deed("main", deed), RUNNING, inconclusive(), invalid(3), fast=deed == "truncate log")
        for deed in ("truncate log", "empty log", "remove log", "earlier log", "directory for log")
    ),
    *(
        cell(TOPIC, _deed("background", deed), DRAINING, inconclusive(), fast=deed == "earlier log")
        for deed in ("truncate log", "empty log", "remove log", "earlier log", "directory for log")
    ),
    cell(TOPIC, does("background", "remove log at cue", "background's log removed"), RUNNING, inconclusive()),
    cell(TOPIC, does("background", "truncate log at cue", "background's log truncated"), RUNNING, inconclusive()),
    cell(TOPIC, does("background", "earlier log at start", "a log of an earlier run was there"), RUNNING, VALID),
)
