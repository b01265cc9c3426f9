"""The shape of `run.json`: what a run was, how far it came and how it came out.

Unknown is null, never 0. Times for people are RFC 3339 in UTC.
"""

from __future__ import annotations

from msgspec import Struct

from heteromig.core.device_guards import DeviceFinding
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.verdict import Reason

SCHEMA_VERSION = 2


class Tool(Struct, frozen=True):
    """What wrote the file."""

    name: str
    version: str


class HostRecord(Struct, frozen=True):
    """The machine. `cpus` are the processors that the run may use."""

    hostname: str
    kernel: str
    python: str
    cpu_model: str | None
    cpus: tuple[int, ...]
    memory_bytes: int | None


class GpuRecord(Struct, frozen=True):
    """One GPU of the run."""

    uuid: str
    name: str
    driver: str


class SliceRecord(Struct, frozen=True):
    """One slice; `cpus` are those of the worker on it."""

    uuid: str
    kind: str
    profile: str
    gpu_uuid: str
    gpu_instance_id: int | None
    compute_instance_id: int | None
    cpus: tuple[int, ...]


class WorkerRecord(Struct, frozen=True):
    """One worker. `timed_begin` and `timed_end` are UTC; `evidence` the level that was reached.

    `config_ver` is the harness' configuration version, empty where it has none.
    """

    index: int
    role: str
    benchmark: str
    scenario: str
    mode: str
    accuracy: str
    config_ver: str
    slice_uuid: str
    directory: str
    pid: int | None
    command: tuple[str, ...]
    env: dict[str, str]
    exit_code: int | None
    signal: int | None
    timed_begin: str | None
    timed_end: str | None
    evidence: str | None
    stopped_by: str | None
    metrics: dict[str, float]


class OverlapRecord(Struct, frozen=True):
    """The second half of the verdict; see `BackgroundOverlap`."""

    proven: bool
    coverage: float | None
    slack_before_s: float | None
    slack_after_s: float | None
    backgrounds: tuple[BackgroundOverlap, ...]


class ObserverPhase(Struct, frozen=True):
    """What watching cost in one phase: CPU seconds of the controller, and how often it woke up."""

    name: str
    cpu_s: float
    wakeups: int


class ObserverRecord(Struct, frozen=True):
    """What watching cost in all; the sampler's CPU time is None where it could not be read."""

    cpu_s: float
    sampler_cpu_s: float | None
    wakeups: int
    by_phase: tuple[ObserverPhase, ...]


class PhaseRecord(Struct, frozen=True):
    """One stay in one phase; `left_at` is None for the one the run is in."""

    name: str
    entered_at: str
    left_at: str | None


class VerdictRecord(Struct, frozen=True):
    """How it came out."""

    status: str
    exit_code: int
    reasons: tuple[Reason, ...]


class ReplacedSlice(Struct, frozen=True):
    """What became of a slice whose UUID is `before`; null for one that is new, or that is gone."""

    before: str | None
    after: str | None


class PreparationRecord(Struct, frozen=True):
    """What was done to a GPU for the time of the run, which `what` says in a sentence; null where it was not done.

    `replaced` are the slices before the run and during it, `returned` those before the run and after it. `restored` is
    whether the GPU is as it was, null while that is not known, and where it stays so for the next run of a campaign.
    `sentence` says how that came out, null while it is not known.
    """

    kind: str
    gpu_uuid: str | None
    what: str | None
    replaced: tuple[ReplacedSlice, ...]
    restored: bool | None
    sentence: str | None
    returned: tuple[ReplacedSlice, ...]


class RunRecord(Struct, frozen=True):
    """All of `run.json`. `heartbeat_at` tells a run that goes on from one whose controller died.

    `isolation` is what keeps the slices apart, see `Isolation`. `device_guards` are there once everything was drained;
    what they remark comes first among the `notes`. `preparation` is null where GPUs were taken as they were.
    """

    schema_version: int
    tool: Tool
    run_id: str
    started_at: str
    ended_at: str | None
    heartbeat_at: str
    phase: str
    goal: str
    harness: str
    simulated: bool
    isolation: str
    lenient: bool
    host: HostRecord
    gpus: tuple[GpuRecord, ...]
    slices: tuple[SliceRecord, ...]
    workers: tuple[WorkerRecord, ...]
    left_out: tuple[str, ...]
    overlap: OverlapRecord
    observer: ObserverRecord
    phases: tuple[PhaseRecord, ...]
    notes: tuple[str, ...]
    device_guards: tuple[DeviceFinding, ...]
    verdict: VerdictRecord | None
    preparation: PreparationRecord | None = None
