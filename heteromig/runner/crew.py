"""Backgrounds that outlive a run: kept by a campaign, so that the next run finds them at work.

A worker of a crew writes below the crew's own directory and not into a run directory, which is sealed when its run is
over. Each run that has it gets a copy of what it wrote until it was released, or ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.plan import Assignment
from heteromig.core.spec import TimingSpec
from heteromig.core.units import NS_PER_MS, MonotonicNs, UtcNs
from heteromig.runner.survivors import CONTROLLER
from heteromig.workers.command import Command
from heteromig.workers.guardian import note_process
from heteromig.workers.worker import Worker


class Member(Struct, frozen=True):
    """One worker that may go on beyond the run that it is in, and where it writes: `home` is like a run directory.

    `tidy` removes what was there for it alone, once it is gone.
    """

    worker: Worker
    assignment: Assignment
    command: Command
    home: Path
    spawned_ns: MonotonicNs
    spawned_utc_ns: UtcNs
    tidy: Callable[[], None]

    @property
    def until_ns(self) -> MonotonicNs:
        """The earliest that its timed section can end by itself."""
        return self.spawned_ns + self.assignment.duration_ms * NS_PER_MS

    def fits(self, assignment: Assignment) -> bool:
        """Whether it does just what is asked for, whatever its number is and however long it was to take."""
        same = msgspec.structs.replace(
            self.assignment,
            index=assignment.index,
            directory=assignment.directory,
            duration_ms=assignment.duration_ms,
        )
        return same == assignment


class Crew:
    """The backgrounds that nobody runs beside at the moment, by slice."""

    def __init__(self, directory: Path) -> None:
        """`directory` is where the runs of the campaign are; members get directories beside theirs."""
        self._directory = directory
        self._members: dict[str, Member] = {}
        self._homes = 0

    def new_home(self) -> Path:
        """Where no member of this crew, or of one before it, has been; it is not made yet."""
        while True:
            self._homes += 1
            home = self._directory / f"crew-{self._homes}"
            if not home.exists():
                return home

    def take(self, assignment: Assignment, now_ns: MonotonicNs, needed_ms: int) -> Member | None:
        """The member that does what `assignment` asks for, and will for `needed_ms` more; None if there is none.

        Whoever else is on that slice is in the way, and is ended.
        """
        member = self._members.pop(assignment.slice_uuid, None)
        if member is None:
            return None
        lasts = member.until_ns - now_ns >= needed_ms * NS_PER_MS
        if member.fits(assignment) and lasts and _wait([member.worker], 0):
            return member
        _end(member)
        return None

    def put(self, member: Member) -> None:
        """Keep it until somebody takes it."""
        self._members[member.assignment.slice_uuid] = member

    def dismiss(self, timing: TimingSpec) -> None:
        """End all of them, rung by rung: a clean stop, TERM, KILL. Returns when they are gone."""
        members = list(self._members.values())
        workers = [member.worker for member in members]
        self._members = {}
        for worker in workers:
            worker.clean_stop()
        left = _wait([worker for worker in workers if _stops_cleanly(worker)], timing.clean_stop_ms)
        left += [worker for worker in workers if not _stops_cleanly(worker)]
        for worker in left:
            worker.terminate()
        _wait(left, timing.grace_ms)
        for member in members:
            _end(member)


def make_home(home: Path) -> None:
    """Make it so that whoever cleans up can tell whose the processes are that write there.

    Raises:
        OSError: the file system does not let it.
    """
    (home / "workers").mkdir(0o755, parents=True)
    note_process(str(home), CONTROLLER, os.getpid())


def copy_traces(member: Member, target: Path) -> None:
    """Bring what the worker wrote so far into its directory in a run, `target`; links are left out.

    Raises:
        OSError: the file system does not let it.
    """
    source = member.home / member.assignment.directory
    for folder, directories, names in os.walk(source):
        directories[:] = [name for name in directories if not Path(folder, name).is_symlink()]
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, place / name)  # what only the user may read stays so


def _end(member: Member) -> None:
    member.worker.close()  # which kills what is left
    with contextlib.suppress(OSError):
        member.tidy()


def _stops_cleanly(worker: Worker) -> bool:
    return worker.command.clean_stop_signal is not None


def _wait(workers: list[Worker], limit_ms: int) -> list[Worker]:
    """Those that are still there once the others have ended, or the time is over."""
    left = {worker.pidfd: worker for worker in workers}
    poll = select.poll()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    deadline_s = time.monotonic() + limit_ms / 1000
    while left:
        patience_ms = max(0.0, 1000 * (deadline_s - time.monotonic()))
        for pidfd, _ in poll.poll(patience_ms):
            poll.unregister(pidfd)
            del left[pidfd]
        if not patience_ms:
            break
    return list(left.values())
