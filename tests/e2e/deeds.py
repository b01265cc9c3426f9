"""What a worker does that it should not: `exit 1 at marker`, several joined by ` + `.

Moments are `start` (before it prints its marker), `marker` (after that, before LoadGen issues a query), `result` (after
LoadGen's run) and `cue`: when the file appears that the variable QUICK_CUE names. Before a deed is done, the monotonic
time is written beside that file, with the suffix `.struck`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CUE = "QUICK_CUE"
SAMPLE_LOG = "QUICK_EARLIER_LOG"
"""Names the log of an earlier run of LoadGen."""
FLOOD_BYTES_PER_S = 100_000_000
DETAIL = "mlperf_log_detail.txt"

_SLEEPER = "import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(1, signal.SIG_IGN); time.sleep(1000)"


class Deeds:
    """Those of one worker."""

    def __init__(self, habit: str, log_dir: str, stop: threading.Event) -> None:
        self._log_dir = Path(log_dir)
        self._stop = stop
        self._cue = Path(os.environ.get(CUE, os.devnull))
        self._deeds: list[tuple[str, str]] = []
        for deed in filter(None, habit.split(" + ")):
            name, _, moment = deed.rpartition(" at ")
            self._deeds.append((name, moment))
        if any(moment == "cue" for _, moment in self._deeds):
            threading.Thread(target=self._await_cue, daemon=True).start()

    def do(self, moment: str) -> None:
        """Do what is to be done now."""
        for name, when in self._deeds:
            if when == moment:
                self._strike(name)

    def _await_cue(self) -> None:
        while not self._cue.exists():
            time.sleep(0.01)
        self.do("cue")

    def _strike(self, name: str) -> None:
        if CUE in os.environ:
            self._cue.with_suffix(".struck").write_text(str(time.monotonic_ns()))
        what, _, number = name.partition(" ")
        match what:
            case "exit":
                if number != "0":
                    _say(b"no such luck\n")
                os._exit(int(number))
            case "print":
                _say(PRINTED[number])
            case _:
                _DEEDS[name](self)

    @property
    def log(self) -> Path:
        """LoadGen's detail log."""
        return self._log_dir / DETAIL

    def hang(self) -> None:
        threading.Event().wait()

    def wait_for_term(self) -> None:
        self._stop.wait()
        os._exit(0)

    def ignore_term(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def segfault(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    def fork(self) -> None:
        """A child in the same session and group."""
        if os.fork() == 0:
            _sleep_on(str(self._log_dir))

    def setsid(self) -> None:
        """A child with a session of its own."""
        if os.fork() == 0:
            os.setsid()
            _sleep_on(str(self._log_dir))

    def daemonise(self) -> None:
        """Forks twice, with a session of its own, other files, another directory and no environment."""
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/")
                null = os.open(os.devnull, os.O_RDWR)
                for fd in range(3):
                    os.dup2(null, fd)
                _sleep_on(str(self._log_dir))
            os._exit(0)
        os.waitpid(child, 0)

    def family(self) -> None:
        self.fork()
        self.setsid()
        self.daemonise()
        _say(b"family\n")

    def flood(self) -> None:
        """100 MB/s in lines, for as long as it lives, but no more than 150 MB."""
        threading.Thread(target=_flood, daemon=True).start()

    def long_line(self) -> None:
        """100 MB without an end, beside everything else."""
        block = b"x" * 1_000_000
        for _ in range(100):
            _say(block)
        _say(b"\n")

    def truncate_log(self) -> None:
        os.truncate(self.log, self.log.stat().st_size // 2)

    def empty_log(self) -> None:
        os.truncate(self.log, 0)

    def remove_log(self) -> None:
        self.log.unlink()

    def bring_earlier_log(self) -> None:
        """Put the log of an earlier run in place of its own."""
        shutil.copy(os.environ[SAMPLE_LOG], self.log)

    def replace_log_by_directory(self) -> None:
        self.log.unlink()
        self.log.mkdir()

    def limit_file_size(self) -> None:
        """As on a disk that is full for it alone: what it writes to a log beyond that is lost."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    def stop_tree(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


_DEEDS: dict[str, Callable[[Deeds], None]] = {
    "hang": Deeds.hang,
    "wait for TERM": Deeds.wait_for_term,
    "ignore TERM": Deeds.ignore_term,
    "segfault": Deeds.segfault,
    "fork": Deeds.fork,
    "setsid": Deeds.setsid,
    "daemonise": Deeds.daemonise,
    "family": Deeds.family,
    "flood": Deeds.flood,
    "long line": Deeds.long_line,
    "truncate log": Deeds.truncate_log,
    "empty log": Deeds.empty_log,
    "remove log": Deeds.remove_log,
    "earlier log": Deeds.bring_earlier_log,
    "directory for log": Deeds.replace_log_by_directory,
    "limit file size": Deeds.limit_file_size,
    "stop": Deeds.stop_tree,
}

PRINTED = {
    "NULs": b"\0" * 4096 + b"\n\0\0heartbeat\0\n",
    "invalid UTF-8": b"\xff\xfe\xc3\x28 \xed\xa0\x80 \xf8\x88\x80\x80\x80\n",
    "escapes": b"\x1b[2J\x1b[31mboom\x9b31m\x07\x1b]0;owned\x07\x1b[?1049h\n",
    "markup": b"[bold red]loud[/] [link=file:///etc/passwd]here[/link] [/nothing] <script>alert(1)</script>\n",
    "a second marker": b"Starting running actual test.\n",
    "a false end": b"Finished running actual test.\n",
    "a false VALID": b"Result is : VALID\n",
}


def _say(what: bytes) -> None:
    view = memoryview(what)
    while view:
        view = view[os.write(1, view) :]


def _flood() -> None:
    line = b"y" * 99_999 + b"\n"
    began_s = time.monotonic()
    for number in range(1500):
        _say(line)
        ahead_s = number * len(line) / FLOOD_BYTES_PER_S - (time.monotonic() - began_s)
        if ahead_s > 0:
            time.sleep(ahead_s)


def _sleep_on(mark: str) -> None:
    """Be another program, without an environment: only its arguments tell whose it is."""
    os.execve(sys.executable, (sys.executable, "-I", "-S", "-c", _SLEEPER, mark), {})  # noqa: S606 - no shell is meant
