"""The way of waiting that heteromig replaces, for comparison on the same children.

NVIDIA's launcher of heterogeneous MIG runs gives the output of each background, a pipe, to a thread that sleeps half a
second after every line, and asks ten times a second whether all threads have seen the start marker. This does the same
and nothing more: no timeouts, no lenient mode. (A child that died ends the measuring here.)
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.launching import MeasuringFailedError

MARKER = b"unning actual test."
SLEEP_PER_LINE_S = 0.5
POLL_PERIOD_S = 0.1


class Watched:
    """One background and the thread that reads it; to be closed."""

    def __init__(self, argv: Sequence[str], directory: Path, environ: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.started = threading.Event()
        self.process = subprocess.Popen(
            argv,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self.process.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def hang_up(self) -> None:
        """Read no more; who is blocked in write sees a broken pipe, and so does whoever writes from now on."""
        assert self.process.stdout is not None
        self._over.set()
        self._thread.join()
        self.process.stdout.close()

    def has_ended_within(self, wait_s: float) -> bool:
        """Wait so long for the end of the child. It is not reaped, so that its group keeps its number."""
        return bool(select.select([self._pidfd], [], [], wait_s)[0])

    def close(self) -> None:
        """End the child, all that it started, and the thread."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.hang_up()
        self.process.wait()
        os.close(self._pidfd)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.rstrip().endswith(MARKER):
                self.started.set()
            if self._over.wait(SLEEP_PER_LINE_S):
                return


def wait_for_all(watched: Sequence[Watched]) -> None:
    """Wait until the marker of each has been read.

    Raises:
        MeasuringFailedError: one has ended before.
    """
    while not all(one.started.is_set() for one in watched):
        if any(one.has_ended_within(0) for one in watched):
            raise MeasuringFailedError(f"one of the backgrounds under {watched[0].directory} has ended")
        time.sleep(POLL_PERIOD_S)


def start_main(backgrounds: Sequence[Sequence[str]], directories: Sequence[Path], main: Sequence[str]) -> float:
    """Start all, wait for all markers, start main.

    Returns:
        Seconds from the begin of the last background's timed section to the start of main's process.
    """
    watched = [Watched(argv, directory) for argv, directory in zip(backgrounds, directories, strict=True)]
    try:
        wait_for_all(watched)
        started_ns = time.time_ns()
        subprocess.Popen(main, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).wait()
        begun_ns = max(int((one.directory / "begun").read_text()) for one in watched)
    finally:
        for one in watched:
            one.close()
    return (started_ns - begun_ns) / 1e9
