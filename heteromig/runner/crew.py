"""What outlives a run: backgrounds, kept by a campaign so that the next run finds them at work, and their GPU's keeper.

A worker of a crew writes below the crew's own directory and not into a run directory, which is sealed when its run is
over. Each run that has it gets a copy of what it wrote until it was released, or ended. So it is with a keeper.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.errors import PreflightError
from heteromig.core.plan import Assignment, expected_duration_ms
from heteromig.core.spec import RunSpec, TimingSpec
from heteromig.core.units import NS_PER_MS, MonotonicNs, UtcNs
from heteromig.runner.keeper_link import KeeperLink
from heteromig.runner.rundir import KEEPER_LOG
from heteromig.runner.survivors import CONTROLLER
from heteromig.slices.mps.keeping import DAEMON_DIRECTORY
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

    def lasts(self, now_ns: MonotonicNs, needed_ms: int) -> bool:
        """Whether its timed section will surely not have ended by itself by then."""
        until_ns = self.spawned_ns + self.assignment.duration_ms * NS_PER_MS
        return until_ns - now_ns >= needed_ms * NS_PER_MS

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
    """The backgrounds that nobody runs beside at the moment, by slice, and the keeper of what they run on, if any."""

    def __init__(self, directory: Path) -> None:
        """`directory` is where the runs of the campaign are; members get directories beside theirs."""
        self._directory = directory
        self._members: dict[str, Member] = {}
        self._keeper: KeeperLink | None = None
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
        if member.fits(assignment) and member.lasts(now_ns, needed_ms) and _wait([member.worker], 0):
            return member
        _end(member)
        return None

    def put(self, member: Member) -> None:
        """Keep it until somebody takes it."""
        self._members[member.assignment.slice_uuid] = member

    def take_keeper(self, spec: RunSpec, now_ns: MonotonicNs) -> KeeperLink:
        """That of the run before, where what it keeps is as it was; else a new one, which has yet to prepare.

        Whoever is on a GPU that is not as it was is ended, and that GPU is taken back first.

        Raises:
            PreflightError: it cannot be taken back, or there is no place for a new one.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.still_keeps():
            # In order, and before anything else begins: a client that is killed can disturb others on a shared GPU.
            needed_ms = expected_duration_ms(spec)
            old = [place for place, member in self._members.items() if not member.lasts(now_ns, needed_ms)]
            _stop([self._members.pop(place) for place in old], spec.timing)
            return keeper
        self.end()
        failure = None if keeper is None else keeper.close()
        if failure is not None:
            raise PreflightError(failure)
        home = self.new_home()
        try:
            make_home(home)
        except OSError as error:
            raise PreflightError(f"No directory for the keeper of the GPU can be made: {error}.") from None
        return KeeperLink(spec, home)

    def put_keeper(self, keeper: KeeperLink) -> None:
        """Have it until somebody takes it, or until what it did is taken back, if it did anything."""
        self._keeper = keeper if keeper.is_needed else None

    def end(self) -> None:
        """End all members at once, because of what became of the GPU that they are on."""
        members, self._members = self._members, {}
        for member in members.values():
            _end(member)

    def dismiss(self, timing: TimingSpec) -> str | None:
        """End all of them, and have taken back what was prepared for them; returns when all that is gone.

        Returns:
            Why something may not be taken back, and what to do; None where nothing is left.
        """
        members, self._members = list(self._members.values()), {}
        keeper, self._keeper = self._keeper, None
        with contextlib.suppress(KeyboardInterrupt):  # whoever says it again has no patience
            _stop(members, timing)
        with _undisturbed():
            for member in members:
                _end(member)
            return None if keeper is None else keeper.close()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """While a GPU is taken back, Ctrl-C would only leave it as it is."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
    _copy(member.home / member.assignment.directory, target)


def copy_log(keeper: KeeperLink, run_dir: Path) -> None:
    """Bring what the keeper and its daemon said so far into a run directory; what takes it back stays where it is.

    Raises:
        OSError: the file system does not let it.
    """
    shutil.copy(keeper.home / KEEPER_LOG, run_dir / KEEPER_LOG)
    _copy(keeper.home / DAEMON_DIRECTORY, run_dir / DAEMON_DIRECTORY)


def _copy(source: Path, target: Path) -> None:
    for folder, directories, names in os.walk(source):
        directories[:] = [name for name in directories if not Path(folder, name).is_symlink()]
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, place / name)  # what only the user may read stays so


def _stop(members: list[Member], timing: TimingSpec) -> None:
    """Rung by rung: a clean stop, TERM, KILL."""
    workers = [member.worker for member in members]
    for worker in workers:
        worker.clean_stop()
    left = _wait([worker for worker in workers if _stops_cleanly(worker)], timing.clean_stop_ms)
    left += [worker for worker in workers if not _stops_cleanly(worker)]
    for worker in left:
        worker.terminate()
    _wait(left, timing.grace_ms)
    for member in members:
        _end(member)


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
