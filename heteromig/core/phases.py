"""Phases, roles, worker states and evidence levels, with the named sets that the rest asks for."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a run is. How it came out is its verdict, never a phase."""

    DISCOVERING = "discovering"
    BUILDING = "building"
    BACKGROUND_STARTING = "background-starting"
    BUFFERING = "buffering"
    MAIN_RUNNING = "main-running"
    DRAINING = "draining"
    VALIDATING = "validating"
    FINISHED = "finished"


ACTIVE_PHASES = (
    Phase.DISCOVERING,
    Phase.BUILDING,
    Phase.BACKGROUND_STARTING,
    Phase.BUFFERING,
    Phase.MAIN_RUNNING,
)
"""Phases in which something that goes wrong leads to draining."""

MEASURING_PHASES = (Phase.BUFFERING, Phase.MAIN_RUNNING)
"""Phases in which every background must be in its timed section."""


class Role(Enum):
    """What a worker is for."""

    MAIN = "main"
    BACKGROUND = "background"
    BUILD = "build"


class WorkerState(Enum):
    """How far one worker's process tree has come."""

    PLANNED = "planned"
    """Assigned to a slice, not spawned."""
    SPAWNING = "spawning"
    """The shell was asked to spawn it."""
    SPAWNED = "spawned"
    """Its guardian runs the harness; nothing heard of a timed section."""
    ANNOUNCED = "announced"
    """It printed the marker; LoadGen may still be loading samples."""
    TIMED = "timed"
    """LoadGen's timed section has begun."""
    BUSY = "busy"
    """Timed, and first completions were seen."""
    ENDED = "ended"
    """LoadGen's timed section has ended; the process is still alive."""
    STOPPING = "stopping"
    """The stop ladder was begun."""
    RELEASED = "released"
    """Alive and timed, and no concern of this run any more: the next one of the campaign takes it over."""
    EXITED = "exited"
    """Reaped."""


class Keeping(Enum):
    """How far the keeper of the GPU has come."""

    NONE = "none"
    """There is nothing to take back."""
    ASKED = "asked"
    """The keeper may be at work."""
    KEPT = "kept"
    """The GPU is as the run wants it."""
    HANDED_ON = "handed on"
    """The GPU stays so beyond the run, and its keeper is the next run's of the campaign."""
    RESTORING = "restoring"
    """The keeper was told to take it back."""
    ENDED = "ended"
    """It was taken back, or will not be."""


TIMED_STATES = frozenset({WorkerState.TIMED, WorkerState.BUSY})
LIVE_STATES = frozenset(WorkerState) - {WorkerState.PLANNED, WorkerState.RELEASED, WorkerState.EXITED}
"""Those in which a run has something to wait for."""


class EvidenceLevel(Enum):
    """What it takes to say that a worker is in its timed section, weakest first."""

    ANNOUNCED = "announced"
    """The harness' marker line."""
    TIMED = "timed"
    """`generated_query_count` in LoadGen's detail log."""
    BUSY = "busy"
    """First completions seen."""

    def reached_by(self, state: WorkerState) -> bool:
        """Whether a worker in `state` shows at least this much."""
        return state in _STATES_SHOWING[self]


_STATES_SHOWING = {
    EvidenceLevel.ANNOUNCED: frozenset({WorkerState.ANNOUNCED, WorkerState.TIMED, WorkerState.BUSY}),
    EvidenceLevel.TIMED: TIMED_STATES,
    EvidenceLevel.BUSY: frozenset({WorkerState.BUSY}),
}
