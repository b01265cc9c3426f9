"""How long a talkative background is kept waiting by whoever takes its output."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from heteromig.workers.worker import Worker
from tests.bench.launching import DEADLINE_S, MeasuringFailedError, scratch
from tests.bench.standin import Behaviour, child_argv
from tests.bench.table import Row, judge, ratio

WINDOW_S = 15.0
LINE_BYTES = 200
RATES = (50, 2000)
"""Lines a second: what NVIDIA's harnesses print when told to be verbose, and more than anything prints."""
TICK_S = 0.25
"""As the loop looks at logs while main runs."""
SLOW_READ_PERIOD_S = 0.5
"""Two lines a second, as the original launcher reads."""


class Account(Struct, frozen=True):
    """`writes.json` of a stand-in."""

    wall_s: float
    writes: int
    blocked: int
    blocked_s: float
    longest_s: float


def measure() -> list[Row]:
    """All children at the same time, so that they have the same neighbours."""
    with scratch() as name:
        root = Path(name)
        behaviours = {(rate, kind): _behaviour(root, rate, kind) for rate in RATES for kind in ("file", "pipe")}
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(_worker(number, behaviours[rate, "file"])) for number, rate in enumerate(RATES)
            ]
            pipes = [stack.enter_context(_piped(behaviours[rate, "pipe"])) for rate in RATES]
            _attend(workers, pipes)
        accounts = {key: _account(Path(behaviour.log_dir)) for key, behaviour in behaviours.items()}
    return [row for rate in RATES for row in _rows(rate, accounts[rate, "file"], accounts[rate, "pipe"])]


def _rows(rate: int, file: Account, pipe: Account) -> list[Row]:
    return [
        Row(
            what=f"blocked on stdout, {rate} lines/s of {LINE_BYTES} bytes, under a worker (file)",
            measured=f"{file.blocked_s:.3g} s of {file.wall_s:.1f} s, in {file.blocked} of {file.writes} writes",
            budget="0",
            verdict="kept" if not file.blocked else judge(file.blocked_s, 0.0),
        ),
        Row(
            what="  the same child, its pipe read at 2 lines/s",
            measured=f"{pipe.blocked_s:.3g} s of {pipe.wall_s:.1f} s, in {pipe.blocked} of {pipe.writes} writes",
            budget="",
            verdict=ratio(pipe.blocked_s, file.blocked_s),
        ),
    ]


def _behaviour(root: Path, rate: int, kind: str) -> Behaviour:
    directory = root / f"{rate}-{kind}"
    directory.mkdir()
    return Behaviour(
        log_dir=str(directory),
        duration_s=WINDOW_S,
        banner_lines=0,
        load_s=0.0,
        lines_per_s=rate,
        line_bytes=LINE_BYTES,
    )


@contextlib.contextmanager
def _worker(index: int, behaviour: Behaviour) -> Iterator[Worker]:
    directory = Path(behaviour.log_dir)
    command = Command(argv=child_argv(behaviour), env={"PATH": os.defpath}, cwd=directory)
    worker = Worker(index=index, directory=directory, command=command, logs=LogPlace(directory))
    worker.spawn()
    try:
        yield worker
    finally:
        worker.close()


@contextlib.contextmanager
def _piped(behaviour: Behaviour) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        child_argv(behaviour), cwd=behaviour.log_dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        yield process


def _attend(workers: list[Worker], pipes: list[subprocess.Popen[bytes]]) -> None:
    """Read logs on the loop's tick and pipes at the original's pace; then let go of everything."""
    start_s = time.monotonic()
    next_line_s = start_s
    while time.monotonic() < start_s + WINDOW_S:
        now_ns = time.monotonic_ns()
        for worker in workers:
            worker.read_logs(now_ns)
        if time.monotonic() >= next_line_s:
            next_line_s += SLOW_READ_PERIOD_S
            for process in pipes:
                assert process.stdout is not None
                os.read(process.stdout.fileno(), LINE_BYTES)
        time.sleep(TICK_S)
    for process in pipes:
        assert process.stdout is not None
        process.stdout.close()  # a child that is blocked in write sees a broken pipe, and stops counting
        process.wait(DEADLINE_S)
    for worker in workers:
        if not select.select([worker.pidfd], [], [], DEADLINE_S)[0]:
            raise MeasuringFailedError(f"{worker.directory} did not end")


def _account(directory: Path) -> Account:
    return msgspec.json.decode((directory / "writes.json").read_bytes(), type=Account)
