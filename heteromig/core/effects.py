"""Requests, in the imperative: all that the core wants done. The shell does them in order and feeds facts back."""

from __future__ import annotations

from typing import Union

from msgspec import Struct

from heteromig.core.events import Timer
from heteromig.core.guards import Finding
from heteromig.core.phases import Phase
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.verdict import Verdict


class Effect(Struct, frozen=True, tag_field="effect"):
    """Common part of all effects."""


class PrepareDevices(Effect, frozen=True, tag=True):
    """Start the keeper: it locks the GPU and cuts or shares it, and takes that back when its lifeline closes.

    That of the run before is taken over, where the campaign has one that still keeps the GPU so.
    """


class RestoreDevices(Effect, frozen=True, tag=True):
    """End the sampler, and whoever was to go on there, then have the keeper take back what it did."""


class StartSampler(Effect, frozen=True, tag=True):
    """Start the sampler process; it enumerates first, then samples each period."""


class RequestSample(Effect, frozen=True, tag=True):
    """Ask the sampler for a reading now."""


class LockGpus(Effect, frozen=True, tag=True):
    """Keep every other heteromig off these GPUs."""

    gpu_uuids: tuple[str, ...]


class InspectEngines(Effect, frozen=True, tag=True):
    """Say which of these engines are missing from the cache; `discard` says to treat all as missing."""

    needs: tuple[EngineNeed, ...]
    discard: bool


class SpawnWorker(Effect, frozen=True, tag=True):
    """Start the harness of this worker on its slice."""

    assignment: Assignment


class ObserveWorkers(Effect, frozen=True, tag=True):
    """Read the logs of these workers now and say which are alive and still timed."""

    workers: tuple[int, ...]


class CleanStop(Effect, frozen=True, tag=True):
    """Ask these harnesses, and none of their children, to end well."""

    workers: tuple[int, ...]


class Terminate(Effect, frozen=True, tag=True):
    """TERM to every process of these workers."""

    workers: tuple[int, ...]


class TerminateClients(Effect, frozen=True, tag=True):
    """Have the keeper take the processes of these workers off the GPU that they share with others, before a KILL.

    A client of an MPS server that dies in the midst of its work can take the work of others with it.
    """

    workers: tuple[int, ...]


class ReleaseWorkers(Effect, frozen=True, tag=True):
    """Let go of these workers as they are, for the next run; keep a copy of what they wrote so far."""

    workers: tuple[int, ...]


class Kill(Effect, frozen=True, tag=True):
    """KILL to every process of these workers, again until none is left."""

    workers: tuple[int, ...]


class ArmTimer(Effect, frozen=True, tag=True):
    """Deliver `DeadlinePassed(timer, entry)` after that many seconds."""

    timer: Timer
    entry: int
    after_s: float


class SetTick(Effect, frozen=True, tag=True):
    """Look at the logs that often."""

    period_s: float


class ComputeCertificate(Effect, frozen=True, tag=True):
    """Read the evidence on disk and judge it."""


class WriteVerdict(Effect, frozen=True, tag=True):
    """Put the verdict on disk, synced; then let go of sampler, locks, and a keeper that is handed on."""

    verdict: Verdict


class RecordTransition(Effect, frozen=True, tag=True):
    """For the journal: the phase changed, on these findings."""

    source: Phase
    destination: Phase
    findings: tuple[Finding, ...]


class RecordRejection(Effect, frozen=True, tag=True):
    """For the journal: a guard said no, for a reason not recorded before in this phase."""

    finding: Finding


AnyEffect = Union[  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too
    PrepareDevices,
    RestoreDevices,
    StartSampler,
    RequestSample,
    LockGpus,
    InspectEngines,
    SpawnWorker,
    ObserveWorkers,
    CleanStop,
    Terminate,
    TerminateClients,
    ReleaseWorkers,
    Kill,
    ArmTimer,
    SetTick,
    ComputeCertificate,
    WriteVerdict,
    RecordTransition,
    RecordRejection,
]
