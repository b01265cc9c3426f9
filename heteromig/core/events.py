"""Facts, in the past tense: everything that the core ever learns arrives as one of these.

Every event carries `at_ns`, the monotonic time at which the shell learnt of it. They are journaled as they are, and a
journal fed back through the core gives the same phases and the same verdict.
"""

from __future__ import annotations

from enum import Enum
from typing import Union

from msgspec import Struct

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.overlap import CertificateSummary
from heteromig.core.plan import EngineNeed
from heteromig.core.units import MonotonicNs, UtcNs


class Timer(Enum):
    """What a deadline is for; each belongs to the entry into one phase."""

    PHASE_TIMEOUT = "phase timeout"
    """The phase took longer than it is allowed to."""
    BUFFER = "buffer"
    """`start_time_buffer` has elapsed."""
    RECHECK = "recheck"
    """Evaluate the guards again although nothing new was heard."""
    MAIN_EXIT = "main exit"
    """Main is still alive `main_exit_timeout` after its timed end."""
    CLEAN_STOP = "clean stop"
    """Workers that were asked to stop cleanly had their time."""
    LAST_LOOK = "last look"
    """Workers that know no clean stop were left at work a moment longer, to be seen there after main's end."""
    GRACE = "grace"
    """Workers that got TERM had their time."""
    CLIENTS = "clients"
    """Work that was taken off a shared GPU should be gone from it: its processes may be killed now."""
    KILLED = "killed"
    """Workers that got KILL should have been reaped long ago."""
    RELEASED = "released"
    """Those that are to go on should have been let go of long ago."""
    SETTLE = "settle"
    """The slices should be empty again by now."""
    RESTORED = "restored"
    """The GPU should be as it was before the run by now."""


class Event(Struct, frozen=True, tag_field="event"):
    """Common part of all events."""

    at_ns: MonotonicNs


class RunStarted(Event, frozen=True, tag=True):
    """The controller is up; `at_utc_ns` is the wall clock at `at_ns`.

    `controller_start_time` is when its process was started, in clock ticks since the boot, as in /proc/PID/stat: with
    it another process that has the same pid later is not taken for it.
    """

    at_utc_ns: UtcNs
    controller_pid: int
    controller_start_time: int | None = None


class ClocksRead(Event, frozen=True, tag=True):
    """Both clocks were read together: the wall clock showed `at_utc_ns` at `at_ns`."""

    at_utc_ns: UtcNs


class LookedAway(Event, frozen=True, tag=True):
    """Nobody read the logs from `since_ns` on: the controller was suspended, or starved. It looks again now."""

    since_ns: MonotonicNs


class DevicesPrepared(Event, frozen=True, tag=True):
    """The keeper has cut or shared the GPU as the run wants it, or did so for the run before, and holds its lock.

    `what` is a sentence. `environment` is what every worker needs to see. `replaced` are (UUID before, UUID now) of MIG
    slices; None on one side for a slice that is new or gone.
    """

    gpu_uuid: str
    what: str
    environment: dict[str, str] = {}
    replaced: tuple[tuple[str | None, str | None], ...] = ()


class PreparationFailed(Event, frozen=True, tag=True):
    """The GPU cannot be cut or shared so; `exit_code` is that of the kind of error.

    It is as it was, or `message` says what to do.
    """

    message: str
    exit_code: int


class KeeperLost(Event, frozen=True, tag=True):
    """The process that keeps the GPU prepared died or said something unreadable, or what it keeps ended by itself."""

    message: str


class DevicesRestored(Event, frozen=True, tag=True):
    """The GPU is as it was before the run; `what` is a sentence.

    `replaced` are (UUID before the run, UUID now): what is made again has another UUID.
    """

    what: str
    replaced: tuple[tuple[str | None, str | None], ...] = ()


class RestorationFailed(Event, frozen=True, tag=True):
    """The GPU is not as it was; `message` says why and what to do."""

    message: str


class SlicesDiscovered(Event, frozen=True, tag=True):
    """The sampler enumerated the devices. `cpus` are the processors that the run may use."""

    inventory: Inventory
    cpus: tuple[int, ...]


class DiscoveryFailed(Event, frozen=True, tag=True):
    """There is nothing to run on; `message` says what is missing and what to do."""

    message: str


class GpusLocked(Event, frozen=True, tag=True):
    """No other heteromig can use these GPUs until the run ends.

    `notes` say what was found of runs that were killed.
    """

    notes: tuple[str, ...] = ()


class LockRefused(Event, frozen=True, tag=True):
    """Somebody else holds the lock; `message` says who."""

    message: str


class EnginesInspected(Event, frozen=True, tag=True):
    """The engine cache was read; `missing` are those absent, stale or corrupt, with the reason."""

    missing: tuple[tuple[EngineNeed, str], ...]


class WorkerSpawned(Event, frozen=True, tag=True):
    """The guardian of a worker runs, and so does the harness.

    `since_ns` is when it was spawned by an earlier run of the campaign, which released it; None where this run did.
    """

    worker: int
    guardian_pid: int
    pid: int
    since_ns: MonotonicNs | None = None


class SpawnFailed(Event, frozen=True, tag=True):
    """The harness could not be started; `WorkerExited` follows once its guardian is reaped."""

    worker: int
    message: str


class StartAnnounced(Event, frozen=True, tag=True):
    """The harness printed its marker line."""

    worker: int


class TimedSectionBegan(Event, frozen=True, tag=True):
    """`generated_query_count` is in LoadGen's detail log, so the timed section begins within microseconds."""

    worker: int


class ProgressMade(Event, frozen=True, tag=True):
    """A heartbeat of the harness: completions so far, and their rate since the heartbeat before.

    `over_latency` are those so far that took longer than the limit on latency; None where it does not say.
    """

    worker: int
    completed_samples: int
    samples_per_s: float
    over_latency: int | None = None


class TimedSectionEnded(Event, frozen=True, tag=True):
    """`power_end` (or the first key that LoadGen writes after its last completion) is in the detail log."""

    worker: int


class FinishAnnounced(Event, frozen=True, tag=True):
    """The harness printed that its test is over; where LoadGen's log is read, that log decides."""

    worker: int


class ResultReported(Event, frozen=True, tag=True):
    """The output said VALID or INVALID, or that accuracy passed or failed; only the certificate decides with it."""

    worker: int
    valid: bool


class WorkerReleased(Event, frozen=True, tag=True):
    """The worker goes on without this run; what it wrote until then is in the run directory."""

    worker: int


class WorkerExited(Event, frozen=True, tag=True):
    """The worker's process tree is gone, concluded from reaping alone.

    Exactly one of `exit_code` and `signal` is set, or none where the harness never ran or its guardian was killed.
    `stopped_by` is the last rung of the stop ladder that reached it, None where it ended by itself. `last_line` is what
    it printed last, made fit for display.
    """

    worker: int
    exit_code: int | None
    signal: int | None
    stopped_by: str | None = None
    last_line: str = ""


class StillTimed(Event, frozen=True, tag=True):
    """The worker was alive and its log showed no end of run, read at `at_utc_ns`."""

    worker: int
    at_utc_ns: UtcNs


class FoundStopped(Event, frozen=True, tag=True):
    """The worker was looked at, and its harness was stopped, as by SIGSTOP: timed by its log only, and not at work."""

    worker: int


class SampleTaken(Event, frozen=True, tag=True):
    """The sampler read the devices."""

    sample: DeviceSample


class DeviceFaulted(Event, frozen=True, tag=True):
    """An Xid, a driver that went away: `message` names the GPU and what NVML said.

    `gpu_uuid` is None where it concerns all of them.
    """

    message: str
    gpu_uuid: str | None = None


class SamplerLost(Event, frozen=True, tag=True):
    """The sampler died or did not answer; `restarted` says whether another one took its place."""

    restarted: bool
    message: str


class DeadlinePassed(Event, frozen=True, tag=True):
    """A timer of the `entry`-th phase of this run went off."""

    timer: Timer
    entry: int


class SignalReceived(Event, frozen=True, tag=True):
    """Somebody wants the run to end."""

    signum: int


class CertificateComputed(Event, frozen=True, tag=True):
    """The evidence on disk was read and judged."""

    summary: CertificateSummary


class VerdictWritten(Event, frozen=True, tag=True):
    """The verdict is on disk, synced."""


AnyEvent = Union[  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too
    RunStarted,
    ClocksRead,
    LookedAway,
    DevicesPrepared,
    PreparationFailed,
    KeeperLost,
    DevicesRestored,
    RestorationFailed,
    SlicesDiscovered,
    DiscoveryFailed,
    GpusLocked,
    LockRefused,
    EnginesInspected,
    WorkerSpawned,
    SpawnFailed,
    StartAnnounced,
    TimedSectionBegan,
    ProgressMade,
    TimedSectionEnded,
    FinishAnnounced,
    ResultReported,
    WorkerReleased,
    WorkerExited,
    StillTimed,
    FoundStopped,
    SampleTaken,
    DeviceFaulted,
    SamplerLost,
    DeadlinePassed,
    SignalReceived,
    CertificateComputed,
    VerdictWritten,
]
