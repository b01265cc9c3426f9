"""What the user asked for: validated, complete, and free of anything that depends on the machine."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from heteromig.core.phases import EvidenceLevel


class Goal(Enum):
    """How far the run goes."""

    RUN = "run"
    BUILD = "build"
    """Stop after the engines are built."""


class Mode(Enum):
    """LoadGen's test mode, as far as it is offered."""

    PERFORMANCE = "performance"
    ACCURACY = "accuracy"


class Drain(Enum):
    """What happens to backgrounds once main has ended."""

    KILL = "kill"
    """Stop them now, by a clean stop first."""
    WAIT = "wait"
    """Let them finish."""


class BenchmarkInfo(Struct, frozen=True, rename="kebab"):
    """What a harness knows about one benchmark.

    `model` groups benchmarks that are the same model: a background set never contains main's model.
    """

    name: str
    model: str
    scenarios: tuple[str, ...]
    accuracies: tuple[str, ...]
    default_accuracy: str


class MainSpec(Struct, frozen=True, rename="kebab"):
    """The measured benchmark. `duration_ms` is LoadGen's min_duration."""

    benchmark: str
    scenario: str
    mode: Mode
    accuracy: str
    duration_ms: int
    target_qps: float | None = None


class BackgroundSpec(Struct, frozen=True, rename="kebab"):
    """The neighbours.

    `benchmarks` is what the user wrote, a set's name or a list; `candidates` the resolved names in order.
    `duration_ms` is None for automatic; `timeout_ms` caps the automatic duration.
    """

    benchmarks: str
    explicit: bool
    candidates: tuple[str, ...]
    scenario: str
    duration_ms: int | None
    timeout_ms: int


class TimingSpec(Struct, frozen=True, rename="kebab"):
    """Waits and limits, all in milliseconds."""

    start_time_buffer_ms: int
    background_start_timeout_ms: int
    build_timeout_ms: int
    main_timeout_ms: int
    main_exit_timeout_ms: int
    end_time_buffer_min_ms: int
    clean_stop_ms: int
    grace_ms: int


class RunSpec(Struct, frozen=True, rename="kebab"):
    """Everything that a run is told.

    `catalog` holds the benchmarks that the plan can mention. `uses_gpu` says whether the harness computes on a GPU; one
    that does not is refused on real slices, because it would measure something else.
    """

    goal: Goal
    slices: str
    harness: str
    simulated: bool
    main: MainSpec
    background: BackgroundSpec
    timing: TimingSpec
    catalog: tuple[BenchmarkInfo, ...]
    start_evidence: EvidenceLevel
    drain: Drain
    seed: int
    pin: bool
    lenient: bool
    rebuild: bool
    sample_period_ms: int
    runs_dir: str
    engines_dir: str
    uses_gpu: bool = False

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The catalog's entry; names were checked when the spec was made."""
        return next(info for info in self.catalog if info.name == name)
