"""Whether a run whose journal has no end goes on, or whether its controller died.

By the controller's process, where this is the machine, the boot and the container in which it was started: by what the
controller wrote down of itself before anything else, if it agrees with the journal, else by the journal alone.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from heteromig.core.errors import PreflightError
from heteromig.core.events import RunStarted
from heteromig.core.units import NS_PER_S, UtcNs
from heteromig.runner.journal import JournalText
from heteromig.runner.survivors import CONTROLLER, Life, life_of, read_notes_of
from heteromig.workers.guardian import read_process

HEARTBEATS_S = 20.0
"""`run.json` is written anew every 5 s (runner.loop): four times nothing is no accident."""


def life_of_run(run_dir: Path, journal: JournalText) -> Life:
    """What is known of its controller here; unknown where its process cannot be told from others, or is not seen."""
    controller = journal.controller
    try:
        notes = [note for note in read_notes_of(run_dir) if note.role == CONTROLLER]
    except PreflightError:  # another user's run
        notes = []
    if notes and (controller is None or (notes[0].pid, notes[0].start_time) == _identity(controller)):
        return life_of(notes)
    if controller is None:
        return Life.UNKNOWN
    process = read_process(controller.controller_pid)
    if process is None or process.state in "ZX" or process.start_time != controller.controller_start_time:
        return Life.UNKNOWN
    return Life.GOES_ON


def goes_on(life: Life, heartbeat_at: str | None, now_utc_ns: UtcNs) -> bool:
    """Whether there is more to come; where the process tells nothing, the last heartbeat in `run.json` does."""
    if life in {Life.GOES_ON, Life.DEAD} or heartbeat_at is None:
        return life is Life.GOES_ON
    try:
        beat = msgspec.convert(heartbeat_at, type=datetime)
    except msgspec.ValidationError:
        return False
    return now_utc_ns / NS_PER_S - beat.timestamp() <= HEARTBEATS_S


def _identity(controller: RunStarted) -> tuple[int, int | None]:
    return controller.controller_pid, controller.controller_start_time
