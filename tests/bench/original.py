"""The way of waiting that heteromig replaces, for comparison on the same children.

NVIDIA's launcher of heterogeneous MIG runs gives the output of each background, a pipe, to a thread that sleeps half a
second after every line, and asks ten times a second whether all threads have seen the start marker. This does the same
and nothing more: no timeouts, no lenient mode, no checks for children that died.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

MARKER = b"unning actual test."
SLEEP_PER_LINE_S = 0.5
POLL_PERIOD_S = 0.1


class Watched:
    """One background and the thread that reads it."""

    def __init__(self, argv: Sequence[str], directory: Path) -> None:
        self.directory = directory
        self.started = threading.Event()
        self.process = subprocess.Popen(argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def close(self) -> None:
        """End the child and the thread."""
        self.process.terminate()
        self._over.set()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()  # a child that is blocked in write sees a broken pipe
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.rstrip().endswith(MARKER):
                self.started.set()
            if self._over.wait(SLEEP_PER_LINE_S):
                return


def start_main(backgrounds: Sequence[Sequence[str]], directories: Sequence[Path], main: Sequence[str]) -> float:
    """Start all, wait for all markers, start main.

    Returns:
        Seconds from the begin of the last background's timed section to the start of main's process.
    """
    watched = [Watched(argv, directory) for argv, directory in zip(backgrounds, directories, strict=True)]
    try:
        while not all(one.started.is_set() for one in watched):
            time.sleep(POLL_PERIOD_S)
        started_ns = time.time_ns()
        subprocess.Popen(main, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).wait()
        begun_ns = max(int((one.directory / "begun").read_text()) for one in watched)
    finally:
        for one in watched:
            one.close()
    return (started_ns - begun_ns) / 1e9
