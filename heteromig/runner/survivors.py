"""Processes of a run that outlived its controller: told by what was written down before they could do anything.

A pid alone tells nothing: it is another process' after a while, and another machine's after a reboot. So a process is
one that was written down only in the same boot, in the same pid namespace, and with the same start time. Of those that
nobody wrote down, a run's own are the descendants of such a process, the members of a guardian's session, and whoever
has the mark of one of its harnesses in his environment. Who left the session, lost all parents and cleared its
environment cannot be told from a stranger, and is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.errors import PreflightError
from heteromig.slices.mps.keeping import DAEMON_DIRECTORY
from heteromig.slices.orders import read_orders
from heteromig.slices.processes import read_command, read_variable
from heteromig.workers.guardian import (
    MARK_VARIABLE,
    PROCESSES_FILE,
    Process,
    read_process,
    read_processes,
    send_signal,
    this_boot,
    this_pid_namespace,
)

CONTROLLER = "controller"
KEEPER = "keeper"
GUARDIAN = "guardian"
HARNESS = "harness"

_BYTES_MAX = 1 << 20
_RECHECK_S = 0.02
_STOP_LIMIT_S = 5.0
"""A process that got KILL is gone within milliseconds unless it is stuck in the kernel."""


class ProcessNote(Struct, frozen=True):
    """One line of `processes.jsonl`; `start_time` is in clock ticks since that boot."""

    boot_id: str
    pid_namespace: str
    role: str
    pid: int
    start_time: int
    mark: str = ""

    @property
    def is_readable_here(self) -> bool:
        """Whether its pid means something to this process."""
        return bool(self.boot_id) and (self.boot_id, self.pid_namespace) == (this_boot(), this_pid_namespace())

    @property
    def process(self) -> Process | None:
        """The very process, if it lives."""
        found = read_process(self.pid) if self.is_readable_here else None
        return found if found is not None and found.start_time == self.start_time and found.state not in "ZX" else None


class Life(Enum):
    """What is known of a run's controller."""

    GOES_ON = "goes on"
    DEAD = "dead"
    ANOTHER_BOOT = "another boot"
    """It ran before this machine was booted, or on another one."""
    ELSEWHERE = "elsewhere"
    """It is, or was, in another container."""
    UNKNOWN = "unknown"


def read_notes(run_dir: Path) -> tuple[ProcessNote, ...]:
    """Every process of the run that was written down; a line that was cut is left out.

    Raises:
        PreflightError: a file is somebody else's, or cannot be read: nobody is to be killed because of it.
    """
    found: list[ProcessNote] = []
    folders = (run_dir, run_dir / DAEMON_DIRECTORY, *sorted((run_dir / "workers").glob("*")))
    for path in (folder / PROCESSES_FILE for folder in folders if not folder.is_symlink()):
        found += _read(path)
    return tuple(found)


def read_notes_of(directory: Path) -> tuple[ProcessNote, ...]:
    """Those in one directory; raises what `read_notes` does."""
    return tuple(_read(directory / PROCESSES_FILE))


def life_of(notes: Iterable[ProcessNote]) -> Life:
    """Whether the run goes on, by what its controller wrote of itself."""
    controller = next((note for note in notes if note.role == CONTROLLER), None)
    if controller is None or not controller.boot_id:
        return Life.UNKNOWN
    if controller.boot_id != this_boot():
        return Life.ANOTHER_BOOT
    if not controller.is_readable_here:
        return Life.ELSEWHERE
    return Life.DEAD if controller.process is None else Life.GOES_ON


def survivors(notes: Iterable[ProcessNote]) -> list[Process]:
    """The live processes of a run whose controller is dead.

    A keeper that is taking back what it did to a GPU is left at it, with all its descendants.
    """
    known = [note for note in notes if note.is_readable_here and note.role != CONTROLLER]
    if not known:
        return []
    processes = {process.pid: process for process in read_processes() if process.state not in "ZX"}
    spared = {process.pid for process in _at_work(known, processes)} | _with_parents(os.getpid(), processes)
    seeds = [
        process
        for process in processes.values()
        if process.pid not in spared and any(_belongs(process, note, processes) for note in known)
    ]
    found = {process.pid: process for process in _with_descendants(seeds, processes) if process.pid not in spared}
    return list(found.values())


def stop(notes: Iterable[ProcessNote]) -> tuple[list[tuple[Process, str]], list[Process]]:
    """KILL the survivors, again until none is left, or for some seconds.

    Returns:
        Those that were there, each with its command line, and those that are there still.
    """
    notes = tuple(notes)
    found: dict[tuple[int, int], tuple[Process, str]] = {}
    deadline_s = time.monotonic() + _STOP_LIMIT_S
    while left := survivors(notes):
        for process in left:
            found.setdefault((process.pid, process.start_time), (process, read_command(process.pid)))
            send_signal(process, signal.SIGKILL)
        if time.monotonic() >= deadline_s:
            break
        time.sleep(_RECHECK_S)
    return list(found.values()), left


def _read(path: Path) -> list[ProcessNote]:
    try:
        data = read_orders(path, _BYTES_MAX, only_trusted=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PreflightError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return [decode(line, ProcessNote) for line in data.split(b"\n")[:-1]]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PreflightError(
            f"{path} is not readable ({error}), so no process is stopped because of it: see what is left of that run "
            "with ps, and remove the file."
        ) from None


def _at_work(known: list[ProcessNote], processes: dict[int, Process]) -> list[Process]:
    keepers = [note.process for note in known if note.role == KEEPER]
    return _with_descendants([one for one in keepers if one is not None and one.state not in "Tt"], processes)


def _belongs(process: Process, note: ProcessNote, processes: dict[int, Process]) -> bool:
    if process.start_time < note.start_time:
        return False
    if process.pid == note.pid:
        return process.start_time == note.start_time
    if note.role == GUARDIAN and process.session == note.pid:
        # As long as a session has members, no other process gets its number (the kernel's alloc_pid).
        leader = processes.get(note.pid)
        return leader is None or leader.start_time == note.start_time
    return bool(note.mark) and read_variable(process.pid, MARK_VARIABLE.encode()) == note.mark.encode()


def _with_descendants(seeds: list[Process], processes: dict[int, Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process)
    found, queue = list(seeds), [process.pid for process in seeds]
    while queue:
        for child in children.pop(queue.pop(), []):
            found.append(child)
            queue.append(child.pid)
    return found


def _with_parents(pid: int, processes: dict[int, Process]) -> set[int]:
    found: set[int] = set()
    while pid in processes and pid not in found:
        found.add(pid)
        pid = processes[pid].ppid
    return found
