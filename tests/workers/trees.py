"""Real process trees for the tests: tiny inline programs under a `Worker`."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from heteromig.core.events import SpawnFailed, WorkerExited, WorkerSpawned
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from heteromig.workers.guardian import read_process
from heteromig.workers.worker import Worker

DEADLINE_S = 30.0
"""Far more than anything here takes, even on a machine that is busy with something else."""

PYTHON = (sys.executable, "-I", "-S", "-c")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds, and fail when it does not within `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def marked(entry: str) -> list[int]:
    """Live processes other than this one whose environment has `entry`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid():
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if entry.encode() in environment.split(b"\0"):
                found.append(int(process.name))
    return found


def is_alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


class Trees:
    """Starts workers, waits for what they report, and lets go of them at the end."""

    def __init__(self, marker: str, root: Path) -> None:
        self.root = root
        name, _, value = marker.partition("=")
        self.env = {"PATH": os.defpath, name: value}
        self._workers: list[Worker] = []

    def worker(
        self,
        *argv: str,
        cpus: tuple[int, ...] = (),
        clean_stop_signal: int | None = None,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        logs: LogPlace | None = None,
    ) -> Worker:
        index = len(self._workers)
        directory = self.root / f"worker-{index}"
        directory.mkdir()
        command = Command(
            argv=argv,
            env=self.env if env is None else env,
            cwd=directory if cwd is None else cwd,
            clean_stop_signal=clean_stop_signal,
        )
        worker = Worker(index=index, directory=directory, command=command, cpus=cpus, logs=logs)
        self._workers.append(worker)
        return worker

    def start(self, code: str, *, clean_stop_signal: int | None = None, cpus: tuple[int, ...] = ()) -> Worker:
        """A worker that runs the Python program `code` and has started."""
        worker = self.worker(*PYTHON, code, clean_stop_signal=clean_stop_signal, cpus=cpus)
        worker.spawn()
        report = reported(worker)
        assert isinstance(report, WorkerSpawned)
        return worker

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def reported(worker: Worker) -> WorkerSpawned | SpawnFailed:
    """What the guardian says about the start, waited for as the loop does."""
    readable, _, _ = select.select([worker.report_fd], [], [], DEADLINE_S)
    assert readable, "the guardian reported nothing"
    report = worker.read_report(at_ns=1)
    assert report is not None
    return report


def ended(worker: Worker) -> WorkerExited:
    """How the worker ended, waited for as the loop does."""
    readable, _, _ = select.select([worker.pidfd], [], [], DEADLINE_S)
    assert readable, "the guardian did not end"
    exited = worker.reap(at_ns=2)
    assert exited is not None
    return exited


def output(worker: Worker) -> str:
    path = worker.directory / "stdout.log"
    return path.read_text() if path.exists() else ""


def printed(worker: Worker, text: str) -> None:
    """Wait until the harness printed `text`."""
    until(lambda: text in output(worker), f"{text!r} in {output(worker)!r}")
