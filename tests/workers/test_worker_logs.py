from __future__ import annotations

import os
import signal
import sys
import time

from heteromig.core.events import (
    AnyEvent,
    Event,
    FinishAnnounced,
    ProgressMade,
    ResultReported,
    StartAnnounced,
    StillTimed,
    TimedSectionBegan,
    TimedSectionEnded,
)
from heteromig.logs.search import LogPlace
from heteromig.workers.worker import Worker
from tests.logs import loadgen_runs
from tests.workers.trees import PYTHON, Trees, ended, printed, reported, until


def loadgen_worker(trees: Trees, duration_s: float) -> Worker:
    logs = trees.root / "logs"
    logs.mkdir()
    worker = trees.worker(*loadgen_runs.argv(logs, "Offline", "PerformanceOnly", duration_s), logs=LogPlace(logs))
    worker.spawn()
    reported(worker)
    return worker


IN_ORDER = [StartAnnounced, TimedSectionBegan, ProgressMade, TimedSectionEnded, ResultReported, FinishAnnounced]


def kinds(events: list[AnyEvent]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_a_loadgen_run_from_start_to_end(trees: Trees) -> None:
    worker = loadgen_worker(trees, 0.6)
    seen: list[AnyEvent] = []

    def has_ended() -> bool:
        seen.extend(worker.read_logs(at_ns=7))
        return worker.reap(at_ns=8) is not None

    until(has_ended, "the run has ended")
    seen += worker.read_logs(at_ns=9)

    order = list(dict.fromkeys(kinds(seen)))
    assert order == IN_ORDER
    assert len(seen) - kinds(seen).count(ProgressMade) == 5, "each but progress once"
    assert {event.at_ns for event in seen} <= {7, 9}
    assert worker.last_line == "Finished running actual test."
    assert worker.read_logs(at_ns=10) == []


def test_what_was_found_at_once_comes_in_order(trees: Trees) -> None:
    worker = loadgen_worker(trees, 0.3)
    ended(worker)

    events = worker.read_logs(at_ns=7)

    assert kinds(events) == IN_ORDER


def test_still_timed_while_the_timed_section_lasts(trees: Trees) -> None:
    worker = loadgen_worker(trees, 30)
    assert worker.still_timed(at_ns=1) is None, "it only just started"
    before_ns = time.time_ns()
    until(lambda: worker.still_timed(at_ns=1), "it is timed")

    statement = worker.still_timed(at_ns=5)

    assert isinstance(statement, StillTimed)
    assert before_ns < statement.at_utc_ns <= time.time_ns()
    assert TimedSectionBegan in kinds(worker.read_logs(at_ns=6)), "what the looks found is not lost"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: worker.still_timed(at_ns=7) is None, "it is dead")
    ended(worker)
    assert worker.still_timed(at_ns=8) is None


def test_not_timed_without_a_log(trees: Trees) -> None:
    worker = trees.start("import time; time.sleep(1000)")
    assert worker.still_timed(at_ns=1) is None


def test_the_last_line_without_an_end(trees: Trees) -> None:
    worker = trees.worker(*PYTHON, "print('Start running actual test', end='')")
    worker.spawn()
    ended(worker)

    assert kinds(worker.read_logs(at_ns=1)) == [StartAnnounced]


def test_the_last_line_is_fit_for_display(trees: Trees) -> None:
    worker = trees.start(r"print('old\n\033[31mwarm-up\033[0m 10%\r\a\033[2Kwarm-up 20%', flush=True)")
    printed(worker, "20%")
    worker.read_logs(at_ns=1)

    assert worker.last_line == "warm-up 20%"
    ended(worker)


def test_a_chatty_harness_is_followed(trees: Trees) -> None:
    worker = trees.start(
        "import sys\nfor number in range(20000): print('line', number, 'x' * 80)\n"
        "print('heartbeat: completed=5 samples_per_second=2.5')"
    )
    ended(worker)

    assert worker.read_logs(at_ns=3) == [ProgressMade(at_ns=3, worker=0, completed_samples=5, samples_per_s=2.5)]
    assert sys.getsizeof(worker.last_line) < 200
