"""Adopt and end the orphans of a guardian that was killed.

The controller is a subreaper as well, so that whatever a dead guardian leaves becomes the controller's child.
"""

from __future__ import annotations

import os
import select
import signal
import time

from heteromig.core.units import NS_PER_S
from heteromig.workers.guardian import (
    PR_SET_CHILD_SUBREAPER,
    Process,
    descendants,
    prctl,
    read_process,
    read_processes,
    send_signal,
)

RECHECK_S = 0.002

_started: set[int] = set()
"""Children of this process that were started on purpose and are not reaped yet, by pid."""


def become_subreaper() -> None:
    """Make this process the parent of whatever a killed guardian leaves behind; call it once, early.

    Raises:
        OSError: the kernel refused (it is older than 3.4).
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def note_started(pid: int) -> None:
    """`pid` is a child that was started on purpose: no orphan."""
    _started.add(pid)


def note_reaped(pid: int) -> None:
    """`pid` was reaped, so the number may come back as an orphan's."""
    _started.discard(pid)


def kill_tree(pid: int) -> None:
    """KILL the child `pid` of this process and all its descendants, once; whoever reaps `pid` sweeps the rest."""
    for process in descendants(pid):
        send_signal(process, signal.SIGKILL)
    guardian = read_process(pid)
    if guardian is not None and guardian.ppid == os.getpid():
        send_signal(guardian, signal.SIGKILL)


def sweep_orphans(timeout_s: float) -> int:
    """KILL and reap adopted processes until none is left, and return how many are left after `timeout_s`.

    Every guardian leads a session of its own, and nothing can return to the session of the controller: so a child of
    this process in another session which was not started on purpose was adopted from a guardian.
    """
    deadline_ns = time.monotonic_ns() + round(timeout_s * NS_PER_S)
    while left := _orphans():
        for orphan in left:
            for process in (orphan, *descendants(orphan.pid)):
                send_signal(process, signal.SIGKILL)
        if time.monotonic_ns() >= deadline_ns:
            break
        # They raise no event here: their death wakes nobody but waitpid, which cannot wait for some children only.
        select.select((), (), (), RECHECK_S)
    return len(left)


def _orphans() -> list[Process]:
    """Adopted children that are still alive; dead ones are reaped."""
    this = os.getpid()
    session = os.getsid(0)
    alive = []
    for process in read_processes():
        if process.ppid != this or process.pid in _started or process.session == session:
            continue
        if process.state == "Z":
            os.waitpid(process.pid, os.WNOHANG)
        else:
            alive.append(process)
    return alive
