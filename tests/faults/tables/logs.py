"""LoadGen's log, the evidence, is not what it should be when the run is judged."""

from __future__ import annotations

import msgspec

from heteromig.core.phases import Phase
from tests.e2e.deeds import SAMPLE_LOG
from tests.faults.cells import VALID, Act, Cell, cell, does, failed, inconclusive
from tests.faults.stage import REPOSITORY

TOPIC = "LoadGen's log"
RUNNING, DRAINING = Phase.MAIN_RUNNING, Phase.DRAINING
EARLIER = str(REPOSITORY / "tests" / "logs" / "recordings" / "6.0.17" / "offline" / "mlperf_log_detail.txt")


def _deed(who: str, deed: str, moment: str, words: str) -> Act:
    made = does(who, f"{deed} at {moment}", f"{who}'s {words}", flags=("--main-benchmark-duration", "1s"))
    return msgspec.structs.replace(made, environ={**made.environ, SAMPLE_LOG: EARLIER})


DEEDS = {
    "truncate log": "is truncated",
    "empty log": "is emptied",
    "remove log": "is missing",
    "earlier log": "is that of an earlier run",
    "directory for log": "is a directory",
}


CELLS: tuple[Cell, ...] = (
    *(
        cell(
            TOPIC,
            _deed("main", deed, "result", words),
            RUNNING,
            inconclusive("Main resnet50 has no result"),
            fast=deed == "truncate log",
        )
        for deed, words in DEEDS.items()
    ),
    *(
        cell(
            TOPIC,
            _deed("background", deed, "result", words),
            DRAINING,
            inconclusive("Background 1 (dlrm): "),
            fast=deed == "earlier log",
        )
        for deed, words in DEEDS.items()
    ),
    cell(
        TOPIC,
        _deed("background", "remove log", "cue", "is removed"),
        RUNNING,
        inconclusive("Background 1 (dlrm): "),
    ),
    # What LoadGen writes after that stands behind a hole, and is all that the proof needs.
    cell(TOPIC, _deed("background", "truncate log", "cue", "is truncated meanwhile"), RUNNING, VALID),
    cell(TOPIC, _deed("background", "earlier log", "start", "was there, from an earlier run"), RUNNING, VALID),
    cell(
        TOPIC,
        does("main", "limit file size at marker", "main's is cut off, because the disk is full for it"),
        RUNNING,
        inconclusive("Main resnet50 has no result"),
    ),
    cell(
        TOPIC,
        does(
            "background",
            "limit file size at marker",
            "background's is cut off, because the disk is full for it",
            flags=("--background-start-timeout", "1500ms"),
        ),
        Phase.BACKGROUND_STARTING,
        failed(6, "still missing background 1 (dlrm)"),
    ),
)
