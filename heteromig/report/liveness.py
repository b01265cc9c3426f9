"""Whether a run whose journal has no end is still going on, or whether its controller died."""

from __future__ import annotations

import socket
from datetime import datetime

import msgspec
import psutil

from heteromig.core import events as ev
from heteromig.core.record import RunRecord
from heteromig.core.units import NS_PER_S
from heteromig.runner.clock import Clock
from heteromig.runner.journal import Header, JournalText

_SAME_BOOT_S = 60.0
"""How far the wall clock may have been set since the run began for this to count as the same boot of the machine."""
_HEARTBEATS_S = 20.0
"""`run.json` is written anew every 5 s (runner.loop): four times nothing is no accident."""
_CLOCK_TICK_S = 1.0
"""How much later than the run's begin its controller may seem to have been started: boot time is in whole seconds."""


def is_going_on(journal: JournalText, record: RunRecord | None, clock: Clock) -> bool:
    """By its controller's process where this is the machine that it runs on, else by the heartbeat in `run.json`."""
    header = journal.header
    first = next((event for event in journal.events if isinstance(event, ev.RunStarted)), None)
    if record is not None and first is not None and _is_here(header, record, clock):
        return _lives(first.controller_pid, header)
    if record is None:
        return False
    try:
        beat = msgspec.convert(record.heartbeat_at, type=datetime)
    except msgspec.ValidationError:
        return False
    return clock.utc_ns() / NS_PER_S - beat.timestamp() <= _HEARTBEATS_S


def _is_here(header: Header, record: RunRecord, clock: Clock) -> bool:
    """Whether both clocks have the same distance as then, on a machine of that name."""
    then_ns, now_ns = header.at_utc_ns - header.at_ns, clock.utc_ns() - clock.monotonic_ns()
    return record.host.hostname == socket.gethostname() and abs(now_ns - then_ns) / NS_PER_S <= _SAME_BOOT_S


def _lives(pid: int, header: Header) -> bool:
    """Whether a process of that number is there, and was when the run began: numbers are used again."""
    try:
        process = psutil.Process(pid)
        is_dead = process.status() == psutil.STATUS_ZOMBIE
        return not is_dead and process.create_time() <= header.at_utc_ns / NS_PER_S + _CLOCK_TICK_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
