from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from heteromig.core.events import (
    AnyEvent,
    Event,
    FinishAnnounced,
    FoundStopped,
    ProgressMade,
    ResultReported,
    StartAnnounced,
    StillTimed,
    TimedSectionBegan,
    TimedSectionEnded,
)
from heteromig.logs.loadgen import BEGIN_LINE, DETAIL_LOG, END_LINES
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
    assert worker.observe(at_ns=1) is None, "it only just started"
    before_ns = time.time_ns()
    log = trees.root / "logs" / DETAIL_LOG
    until(lambda: log.exists() and BEGIN_LINE in log.read_bytes(), "its log shows the begin")

    statement = worker.observe(at_ns=5)

    assert isinstance(statement, StillTimed)
    assert before_ns < statement.at_utc_ns <= time.time_ns()
    assert TimedSectionBegan in kinds(worker.read_logs(at_ns=6)), "what the looks found is not lost"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: worker.observe(at_ns=7) is None, "it is dead")
    ended(worker)
    assert worker.observe(at_ns=8) is None


def test_not_timed_without_a_log(trees: Trees) -> None:
    worker = trees.start("import time; time.sleep(1000)")
    assert worker.observe(at_ns=1) is None


# --- a log that is found, and one after it ----------------------------------------------------------------------------

ANNOUNCES = "import time; print('Starting running actual test.', flush=True); time.sleep(1000)"
BEGIN = BEGIN_LINE + b', "value": 1}\n'
END = END_LINES[0] + b', "value": 0}\n'


def announcing_worker(trees: Trees, *patterns: str, code: str = ANNOUNCES) -> tuple[Worker, Path]:
    """A worker that has printed its marker, and the root of the directories where its logs may appear."""
    root = trees.root / "logs"
    worker = trees.worker(*PYTHON, code, logs=LogPlace(root, patterns) if patterns else None)
    worker.spawn()
    reported(worker)
    printed(worker, "Starting running actual test.")
    assert kinds(worker.read_logs(at_ns=1)) == [StartAnnounced]
    return worker, root


def write(folder: Path, *lines: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DETAIL_LOG).open("ab") as file:
        file.writelines(lines)


def test_a_log_is_found_wherever_it_appears(trees: Trees) -> None:
    worker, root = announcing_worker(trees, "*/*", ".")
    assert worker.read_logs(at_ns=2) == []
    write(root / "system/Offline", b"settings\n")
    assert worker.read_logs(at_ns=3) == []
    write(root / "system/Offline", BEGIN)
    assert kinds(worker.read_logs(at_ns=4)) == [TimedSectionBegan]


def test_a_log_from_before_the_worker_is_not_its_own(trees: Trees) -> None:
    write(trees.root / "logs/old", BEGIN, END)
    worker, root = announcing_worker(trees, "*")
    assert worker.read_logs(at_ns=2) == []
    write(root / "new", BEGIN)
    assert kinds(worker.read_logs(at_ns=3)) == [TimedSectionBegan]


def test_the_log_of_a_run_after_the_first_takes_its_place(trees: Trees) -> None:
    worker, root = announcing_worker(trees, "*")
    write(root / "first", BEGIN)
    assert kinds(worker.read_logs(at_ns=2)) == [TimedSectionBegan]
    write(root / "first", END)
    assert kinds(worker.read_logs(at_ns=3)) == [TimedSectionEnded]
    write(root / "second", BEGIN)
    assert kinds(worker.read_logs(at_ns=4)) == [TimedSectionBegan]
    assert worker.observe(at_ns=5) is not None
    write(root / "second", END, BEGIN, END)
    assert kinds(worker.read_logs(at_ns=6)) == [TimedSectionEnded, TimedSectionBegan, TimedSectionEnded]
    write(root / "third", BEGIN, END)
    assert kinds(worker.read_logs(at_ns=7)) == [TimedSectionBegan, TimedSectionEnded]


def test_another_log_does_not_take_the_place_of_one_whose_run_goes_on(trees: Trees) -> None:
    worker, root = announcing_worker(trees, "*")
    write(root / "first", BEGIN)
    assert kinds(worker.read_logs(at_ns=2)) == [TimedSectionBegan]
    write(root / "second", BEGIN, END)
    assert worker.read_logs(at_ns=3) == []
    assert worker.observe(at_ns=4) is not None
    write(root / "first", END)
    assert kinds(worker.read_logs(at_ns=5)) == [TimedSectionEnded]


def test_a_log_that_is_written_anew_is_read_anew(trees: Trees) -> None:
    worker, root = announcing_worker(trees, ".")
    write(root, b"settings\n", BEGIN, END)
    assert kinds(worker.read_logs(at_ns=2)) == [TimedSectionBegan, TimedSectionEnded]
    (root / DETAIL_LOG).write_bytes(b"")
    write(root, BEGIN)
    assert kinds(worker.read_logs(at_ns=3)) == [TimedSectionBegan]


def test_several_looks_at_two_runs_of_loadgen(trees: Trees) -> None:
    """Real LoadGen twice, each in a process and a directory of its own, under one harness."""
    root = trees.root / "logs"
    argvs = []
    for name in ("first", "second"):
        (root / name).mkdir(parents=True)
        argvs.append(loadgen_runs.argv(root / name, "Offline", "PerformanceOnly", 0.5))
    code = f"import subprocess\nfor argv in {argvs!r}: subprocess.run(argv, check=True)"
    worker = trees.worker(*PYTHON, code, logs=LogPlace(root, ("*",)))
    worker.spawn()
    reported(worker)
    seen: list[AnyEvent] = []

    def has_ended() -> bool:
        seen.extend(worker.read_logs(at_ns=7))
        return worker.reap(at_ns=8) is not None

    until(has_ended, "both runs have ended")
    seen += worker.read_logs(at_ns=9)
    assert worker.exit is not None
    assert worker.exit.exit_code == 0
    edges = [kind for kind in kinds(seen) if kind in {TimedSectionBegan, TimedSectionEnded}]
    assert edges == [TimedSectionBegan, TimedSectionEnded] * 2


# --- what markers say of a worker without a log -----------------------------------------------------------------------

FINISHES = (
    "import os, time; print('Starting running actual test.', flush=True)\n"
    "while not os.path.exists('go'): time.sleep(0.005)\n"
    "print('Finished running actual test.', flush=True); time.sleep(1000)"
)


@pytest.mark.parametrize("patterns", [(), ("*",)], ids=["no log is expected", "none has appeared"])
def test_without_a_log_the_markers_say_whether_it_is_at_work(trees: Trees, patterns: tuple[str, ...]) -> None:
    worker, _ = announcing_worker(trees, *patterns, code=FINISHES)
    before_ns = time.time_ns()
    statement = worker.observe(at_ns=5)
    assert isinstance(statement, StillTimed)
    assert before_ns <= statement.at_utc_ns <= time.time_ns()
    (worker.directory / "go").touch()
    printed(worker, "Finished")
    assert worker.observe(at_ns=6) is None
    assert kinds(worker.read_logs(at_ns=7)) == [FinishAnnounced], "what the looks found is not lost"


STOPPED_BELOW = (
    "import os, signal, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
    "os.kill(child.pid, signal.SIGSTOP); os.waitpid(child.pid, os.WUNTRACED)\n"
    "print('Starting running actual test.', flush=True); time.sleep(1000)"
)


def test_what_stands_still_below_the_harness_is_not_at_work(trees: Trees) -> None:
    worker, _ = announcing_worker(trees, code=STOPPED_BELOW)
    assert isinstance(worker.observe(at_ns=5), FoundStopped)


def test_a_log_that_has_not_begun_counts_more_than_a_marker(trees: Trees) -> None:
    worker, root = announcing_worker(trees, "*")
    assert worker.observe(at_ns=2) is not None
    write(root / "run", b"settings\n")
    assert worker.observe(at_ns=3) is None
    write(root / "run", BEGIN)
    assert worker.observe(at_ns=4) is not None
    write(root / "run", END)
    assert worker.observe(at_ns=5) is None


def test_a_dead_worker_is_not_at_work_whatever_it_printed(trees: Trees) -> None:
    worker, _ = announcing_worker(trees)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: worker.observe(at_ns=7) is None, "it is dead")
    ended(worker)
    assert worker.observe(at_ns=8) is None


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
