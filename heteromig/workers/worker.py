"""One process tree on one slice: spawned, watched through its logs, stopped rung by rung, and reaped.

Nothing here blocks but `close` and the sweep after a guardian that was killed, and both are bounded.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from heteromig.core.decoding import decode
from heteromig.core.errors import EvidenceError, PreflightError
from heteromig.core.events import (
    AnyEvent,
    FinishAnnounced,
    FoundStopped,
    ProgressMade,
    ResultReported,
    SpawnFailed,
    StartAnnounced,
    StillTimed,
    TimedSectionBegan,
    TimedSectionEnded,
    WorkerExited,
    WorkerSpawned,
)
from heteromig.core.units import MonotonicNs, UtcNs
from heteromig.logs.files import read_regular
from heteromig.logs.harness import MLPERF_LINES, HarnessLog, LinePattern
from heteromig.logs.loadgen import DetailLog
from heteromig.logs.search import LogPlace, LogSearch
from heteromig.logs.tail import Tail, displayable
from heteromig.workers import guardian
from heteromig.workers.command import Command
from heteromig.workers.environment import without_slice
from heteromig.workers.guardian import descendants, read_process
from heteromig.workers.private import create_private
from heteromig.workers.sweep import kill_tree, note_reaped, note_started, sweep_orphans

STDOUT_LOG = "stdout.log"
COMMAND_FILE = "command.json"
EXIT_FILE = "exit.json"

INTERPRETER_OPTIONS = ("-I", "-S")
"""The guardian needs neither site-packages nor the user's Python settings, and starts 5 ms sooner without."""

SWEEP_TIMEOUT_S = 0.5
"""Orphans of a killed guardian are gone within milliseconds of their KILL, unless they are stuck in the kernel."""

CLOSE_TIMEOUT_S = 5.0

_REMEDIES = {
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Allow more open files (ulimit -n)",
    errno.EAGAIN: "Allow more processes (ulimit -u)",
    errno.ENOMEM: "Free some memory",
    errno.ENOSPC: "Make room",
}
"""What to do where it is not for the directory that a worker cannot be started."""


class ExitRecord(msgspec.Struct, frozen=True):
    """`exit.json`: how the harness ended, as its guardian saw it.

    `stopped_by` is the strongest way in which it was being stopped when it ended: `clean stop`, `TERM`, `KILL`,
    `lifeline` (the controller was gone), or None. The times and the memory are of the whole tree as far as it was
    waited for, `wall_s` is of the harness. `killed_descendants` were left when it ended, or were killed with it.
    """

    pid: int
    exit_code: int | None
    signal: int | None
    killed_descendants: int
    stopped_by: str | None
    utime_s: float
    stime_s: float
    maxrss_bytes: int
    wall_s: float
    started_utc_ns: UtcNs
    ended_utc_ns: UtcNs


class Spawned(msgspec.Struct, frozen=True):
    """The guardian's report when the harness runs. `start_time` is None when it was gone again already."""

    pid: int
    start_time: int | None


class NotSpawned(msgspec.Struct, frozen=True):
    """The guardian's report when it does not."""

    error: str


def read_report(text: bytes) -> Spawned | NotSpawned | None:
    """What a guardian reported; None when that is neither, as when it was killed before."""
    try:
        return decode(text, Spawned)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return decode(text, NotSpawned)
    except (msgspec.DecodeError, RecursionError):
        return None


def read_exit(path: Path) -> ExitRecord | None:
    """What a guardian left in `exit.json`; None when it left nothing, or something else lies there."""
    try:
        return decode(read_regular(path, "The exit record"), ExitRecord)
    except (OSError, EvidenceError, msgspec.DecodeError, RecursionError):
        return None


class Worker:
    """Supervises one harness through its guardian.

    The loop calls `spawn`, waits for `report_fd` and `pidfd` to become readable, calls `read_report` and `reap` then,
    and `read_logs` at every tick and once more when `reap` returned something, before it passes that on.
    """

    def __init__(
        self,
        *,
        index: int,
        directory: Path,
        command: Command,
        written: Command | None = None,
        cpus: tuple[int, ...] = (),
        logs: LogPlace | None = None,
        lines: tuple[LinePattern, ...] = MLPERF_LINES,
    ) -> None:
        """A worker that is not spawned.

        Args:
            index: number of the worker in the plan.
            directory: exists; receives `command.json`, `stdout.log` and `exit.json`.
            command: what to run.
            written: the same as it may be written down, None where it has no secrets.
            cpus: processors for the whole tree, empty for those of the controller.
            logs: where LoadGen's logs will appear; None when there are none. What is there already is not its own.
            lines: what to look for in the harness' output.
        """
        self.index = index
        self.directory = directory
        self.command = command
        self._written = command if written is None else written
        self.cpus = cpus
        self.pid: int | None = None
        self.exit: ExitRecord | None = None
        self._start_time: int | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._reaped = False
        self._lifeline_fd = -1
        self._report_fd = -1
        self._pidfd = -1
        self._report_text = b""
        self._report: WorkerSpawned | SpawnFailed | None = None
        self._report_taken = False
        self._output = Tail(directory / STDOUT_LOG)
        self._lines = lines
        self._harness_log = HarnessLog(index, lines)
        self._search = None if logs is None else LogSearch(logs)
        self._detail: Tail | None = None
        self._detail_path: Path | None = None
        self._detail_log = DetailLog(index)
        self._is_announced = False
        self._found: list[AnyEvent] = []

    def spawn(self) -> None:
        """Start the guardian, which starts the harness. What becomes of that is learnt from `read_report`.

        Raises:
            PreflightError: the worker's directory cannot be written, already holds a worker, or there is no memory
                or process to be had for the guardian.
        """
        lifeline_fd = report_fd = command_fd = -1
        try:
            self._write_command()
            command_fd = self._command_in_memory()
            lifeline_fd, self._lifeline_fd = os.pipe2(os.O_CLOEXEC)
            self._report_fd, report_fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._lifeline_fd, False)
            os.set_blocking(self._report_fd, False)
            self._guardian = subprocess.Popen(
                (
                    sys.executable,
                    *INTERPRETER_OPTIONS,
                    guardian.__file__,
                    str(lifeline_fd),
                    str(report_fd),
                    str(command_fd),
                    str(os.getpid()),
                    os.fspath(self.directory),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lifeline_fd, report_fd, command_fd),
                env=without_slice(),
                start_new_session=True,
            )
            note_started(self._guardian.pid)
            self._pidfd = os.pidfd_open(self._guardian.pid)
        except OSError as error:
            raise PreflightError(
                f"Worker {self.index} cannot be started in {self.directory}: {error}. "
                f"{_REMEDIES.get(error.errno or 0, 'Give it a fresh directory that can be written to')}."
            ) from error
        finally:
            # The guardian's ends must be the guardian's alone, else no end of file would ever be seen.
            for fd in (lifeline_fd, report_fd, command_fd):
                if fd >= 0:
                    os.close(fd)

    def rejoin(self, index: int) -> None:
        """Begin anew as worker `index` of another run: all that it wrote so far is news, and read from the start."""
        self.index = index
        self._report_taken = True
        self._output.close()
        self._output = Tail(self.directory / STDOUT_LOG)
        self._harness_log = HarnessLog(index, self._lines)
        if self._detail is not None:
            self._detail.close()
        self._detail = None if self._detail_path is None else Tail(self._detail_path)
        self._detail_log = DetailLog(index)
        self._is_announced = False
        self._found = []

    @property
    def report_fd(self) -> int:
        """Readable when `read_report` has something to say. Valid from `spawn` to `close`."""
        return self._report_fd

    @property
    def pidfd(self) -> int:
        """Readable when `reap` has something to say. Valid from `spawn` to `close`."""
        return self._pidfd

    @property
    def guardian_pid(self) -> int | None:
        """The guardian, which leads the worker's session; None before `spawn`."""
        return None if self._guardian is None else self._guardian.pid

    @property
    def is_alive(self) -> bool:
        """Spawned, and its guardian is not reaped."""
        return self._guardian is not None and not self._reaped

    @property
    def last_line(self) -> str:
        """What the harness printed last, fit for display."""
        return displayable(self._output.last_line)

    def read_report(self, at_ns: MonotonicNs) -> WorkerSpawned | SpawnFailed | None:
        """Whether the harness runs, once; None when that is not known yet or was told before.

        Once this has returned something, stop waiting for `report_fd`: it stays readable.
        """
        self._take_in_report(at_ns)
        if self._report is None or self._report_taken:
            return None
        self._report_taken = True
        return self._report

    def reap(self, at_ns: MonotonicNs) -> WorkerExited | None:
        """How the harness ended, once, after all of its tree is gone; None while it runs, and before `spawn`.

        Once this has returned something, stop waiting for `pidfd`: it stays readable. A harness that could not be
        started ends as well, with neither exit code nor signal.
        """
        if self._guardian is None or self._reaped or self._guardian.poll() is None:
            return None
        self._reaped = True
        note_reaped(self._guardian.pid)
        if self._guardian.returncode != 0:
            sweep_orphans(SWEEP_TIMEOUT_S)
            self._discard_half_written()
        self.exit = read_exit(self.directory / EXIT_FILE)
        return WorkerExited(
            at_ns=at_ns,
            worker=self.index,
            exit_code=None if self.exit is None else self.exit.exit_code,
            signal=None if self.exit is None else self.exit.signal,
            # "lifeline" is none of the controller's doing as long as the controller lives: somebody sent the guardian a
            # TERM, and a worker lost to that must not look like one that was stopped.
            stopped_by=None if self.exit is None or self.exit.stopped_by == "lifeline" else self.exit.stopped_by,
        )

    def clean_stop(self) -> None:
        """Ask the harness process, and nobody else, to finish what is outstanding; nothing if it cannot."""
        self._tell(b"c")

    def terminate(self) -> None:
        """TERM every process of the tree."""
        self._tell(b"t")

    def kill(self) -> None:
        """KILL every process of the tree, again until none is left."""
        self._tell(b"k")

    def kill_hard(self) -> None:
        """KILL the guardian and the tree from here: the last rung, for a guardian that does not react."""
        if self._guardian is not None and not self._reaped:
            kill_tree(self._guardian.pid)

    def read_logs(self, at_ns: MonotonicNs) -> list[AnyEvent]:
        """What the harness and LoadGen wrote since the last call, as events in the order of their coming about."""
        self._look(at_ns)
        found, self._found = self._found, []
        return _in_order(found)

    def observe(self, at_ns: MonotonicNs) -> StillTimed | FoundStopped | None:
        """Look now: the harness is alive, and its log shows a timed section that has not ended; and whether it moves.

        Without a log of LoadGen's, its markers say so. The wall clock is read before the looking, so the statement
        holds for that time. Whatever else the look finds is told by the next `read_logs`.
        """
        at_utc_ns = time.time_ns()
        self._look(at_ns)
        if self._detail is not None and self._detail.is_behind:
            return None
        timed = self._is_announced if self._detail is None else self._detail_log.is_timed
        if not timed or self.pid is None:
            return None
        process = read_process(self.pid)
        if process is None or process.start_time != self._start_time or process.state in "ZXt":
            return None
        # What is at work may be below a shell, or make.
        if any(one.state == "T" for one in (process, *descendants(self.pid))):
            return FoundStopped(at_ns=at_ns, worker=self.index)
        return StillTimed(at_ns=at_ns, worker=self.index, at_utc_ns=at_utc_ns)

    def close(self) -> None:
        """Let go of everything; a tree that still lives is killed first."""
        if self._guardian is not None and not self._reaped:
            self.kill_hard()
            try:
                self._guardian.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._guardian.returncode = -signal.SIGKILL  # Stuck in the kernel; nothing more can be done to it.
            self._reaped = True
            note_reaped(self._guardian.pid)
            sweep_orphans(SWEEP_TIMEOUT_S)
            self._discard_half_written()
        for fd in (self._lifeline_fd, self._report_fd, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._lifeline_fd = self._report_fd = self._pidfd = -1
        self._output.close()
        if self._detail is not None:
            self._detail.close()

    def _discard_half_written(self) -> None:
        """A guardian that was killed may have been writing."""
        with contextlib.suppress(OSError):
            (self.directory / f".{EXIT_FILE}").unlink()

    def _write_command(self) -> None:
        with os.fdopen(create_private(self.directory / COMMAND_FILE), "wb") as file:
            file.write(self._as_json(self._written))

    def _command_in_memory(self) -> int:
        """A descriptor from which the guardian reads the command as it is, which is on no disk."""
        fd = os.memfd_create("command")
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(self._as_json(self.command))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _as_json(self, command: Command) -> bytes:
        fields = {
            "argv": command.argv,
            "env": command.env,
            "cwd": os.fspath(command.cwd),
            "cpus": self.cpus,
            "clean_stop_signal": command.clean_stop_signal,
        }
        # The standard library's encoder, because environments may hold bytes that are no UTF-8.
        return json.dumps(fields, indent=2).encode("ascii") + b"\n"

    def _tell(self, command: bytes) -> None:
        if self._lifeline_fd >= 0:
            # A guardian that is dead already is reaped soon; one that does not read is for `kill_hard`.
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self._lifeline_fd, command)

    def _take_in_report(self, at_ns: MonotonicNs) -> None:
        if self._report is not None or self._guardian is None:
            return
        try:
            while chunk := os.read(self._report_fd, 4096):
                self._report_text += chunk
        except BlockingIOError:
            if not self._report_text.endswith(b"\n"):
                return
        report = read_report(self._report_text)
        if isinstance(report, Spawned):
            self.pid = report.pid
            self._start_time = report.start_time
            self._report = WorkerSpawned(
                at_ns=at_ns, worker=self.index, guardian_pid=self._guardian.pid, pid=report.pid
            )
            return
        ended = (
            f"The guardian of worker {self.index} ended before its harness ran; "
            f"{self.directory / STDOUT_LOG} may say why."
        )
        self._report = SpawnFailed(at_ns=at_ns, worker=self.index, message=report.error if report else ended)

    def _look(self, at_ns: MonotonicNs) -> None:
        at_end = self._reaped
        while block := self._output.read(at_end=at_end):
            said = self._harness_log.feed(block, at_ns)
            for event in said:
                if isinstance(event, StartAnnounced | FinishAnnounced):
                    self._is_announced = isinstance(event, StartAnnounced)
            self._found += said
            if not at_end:
                break
        self._find_detail()
        while self._detail is not None and (block := self._detail.read(at_end=at_end)):
            self._found += self._detail_log.feed(block, at_ns)
            if not at_end:
                break

    def _find_detail(self) -> None:
        """Look for LoadGen's log until it is there, and, once its run is over, for that of a run after it."""
        if self._search is None or (self._detail is not None and not self._detail_log.has_ended):
            return
        path = self._search.find()
        if path is not None and path != self._detail_path:
            if self._detail is not None:
                self._detail.close()
            self._detail_path, self._detail = path, Tail(path)


def _in_order(found: list[AnyEvent]) -> list[AnyEvent]:
    """What one look at two files found, in the order in which it came about."""
    timed = [event for event in found if isinstance(event, TimedSectionBegan | TimedSectionEnded)]
    begin = next((index for index, event in enumerate(timed, start=1) if isinstance(event, TimedSectionBegan)), 0)
    return [
        *(event for event in found if isinstance(event, StartAnnounced)),
        *timed[:begin],
        *(event for event in found if isinstance(event, ProgressMade)),
        *timed[begin:],
        *(event for event in found if isinstance(event, FinishAnnounced | ResultReported)),
    ]
