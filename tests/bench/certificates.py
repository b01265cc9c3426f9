"""The certificate of a run whose LoadGen logs are as large as a flood of warnings makes them.

The output of its workers is as large as that of talkative ones after half an hour: 10 lines/s of 100 bytes, and a
heartbeat a second.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from heteromig.core import events as ev
from heteromig.core.machine import Run
from heteromig.harnesses import harness_of
from heteromig.logs.loadgen import BEGIN_LINE, DETAIL_LOG, find_end
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import read_journal
from heteromig.runner.rundir import hash_files
from heteromig.workers.worker import STDOUT_LOG
from tests.bench import real
from tests.bench.launching import MeasuringFailedError, scratch
from tests.bench.table import Row, judge_median, ratio, spread

LOGS_BYTES = 82_000_000
OUTPUT_S = 1800
LINES_PER_S = 10
BUDGET_S = 0.5
ROUNDS = 5
PREFIX = b":::MLLOG "


def measure() -> list[Row]:
    """A real run's logs, blown up in a copy: all workers alike, and main alone, whose log is the one read most."""
    with scratch() as name:
        runs_dir = Path(name)
        real.run(runs_dir)
        run_dir = (runs_dir / "latest").resolve()
        alike = _blown_up(run_dir, runs_dir / "alike", "*-*")
        main_only = _blown_up(run_dir, runs_dir / "main", "0-main-*")
        certified = _time(_certifying(alike), ROUNDS)
        certified_main = _time(_certifying(main_only), ROUNDS)
        hashed = _time(lambda: hash_files(alike), ROUNDS)
        parsed = _time(lambda: _parse(alike), 1)
    return [
        Row(
            what="certificate from 82 MB of LoadGen logs, all seven workers alike",
            measured=spread(certified, "s"),
            budget=f"<= {BUDGET_S} s",
            verdict=judge_median(certified, BUDGET_S),
        ),
        Row(
            what="  all of it in main's log",
            measured=spread(certified_main, "s"),
            budget=f"<= {BUDGET_S} s",
            verdict=judge_median(certified_main, BUDGET_S),
        ),
        Row(
            what="  SHA-256 of the same files, when the run is sealed",
            measured=spread(hashed, "s"),
            budget="",
            verdict="",
        ),
        Row(
            what="  JSON of every line, once, and nothing else",
            measured=spread(parsed, "s"),
            budget="",
            verdict=ratio(parsed[0], statistics.median(certified)),
        ),
    ]


def _blown_up(run_dir: Path, copy: Path, workers: str) -> Path:
    """A copy of a run with the chosen logs grown to 82 MB in all, by lines of their own timed sections."""
    shutil.copytree(run_dir, copy)
    logs = [path for path in sorted(copy.glob(f"workers/{workers}/{DETAIL_LOG}")) if path.is_file()]
    for path in logs:
        text = path.read_bytes()
        begin = text.index(b"\n", text.index(BEGIN_LINE)) + 1
        end = find_end(text, begin)
        lines = text[begin:end]
        if not lines or end < 0:
            raise MeasuringFailedError(f"{path} has nothing between the begin and the end of its timed section")
        times = max(0, (LOGS_BYTES // len(logs) - len(text)) // len(lines))
        path.write_bytes(text[:end] + lines * times + text[end:])
    for path in copy.glob(f"workers/*-*/{STDOUT_LOG}"):
        path.write_bytes(path.read_bytes() + _said())
    return copy


def _said() -> bytes:
    """What a worker printed; the stamps are of a time long before it lived, so that the run stays as it was."""
    noise = LINES_PER_S * (99 * b"x" + b"\n")
    return b"".join(
        noise + b"heartbeat: completed=%d samples_per_second=10.0 monotonic_s=%d.000\n" % (second, second)
        for second in range(1, OUTPUT_S)
    )


def _certifying(run_dir: Path) -> Callable[[], None]:
    """What a run does in `validating`; the view is that of its journal."""
    journal = read_journal(run_dir)
    run = Run(journal.header.spec)
    for event in journal.events:
        if isinstance(event, ev.CertificateComputed):
            break
        run.handle(event)
    harness = harness_of(journal.header.spec)

    def certify() -> None:
        summary = certify_run(run_dir, journal.header, run.view, harness)
        if not summary.overlap.proven or summary.main_result.valid is not True:
            raise MeasuringFailedError(f"the certificate of {run_dir} is not that of a valid run: {summary.reasons}")

    return certify


def _parse(run_dir: Path) -> None:
    for path in run_dir.glob(f"workers/*/{DETAIL_LOG}"):
        for line in path.read_bytes().splitlines():
            json.loads(line[len(PREFIX) :])


def _time(call: Callable[[], object], rounds: int) -> list[float]:
    took_s = []
    for _ in range(rounds):
        before_s = time.perf_counter()
        call()
        took_s.append(time.perf_counter() - before_s)
    return took_s
