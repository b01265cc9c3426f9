"""What the user asked for: validated, complete, and free of anything that depends on the machine."""

from __future__ import annotations

import itertools
from enum import Enum

from msgspec import Struct

from heteromig.core.phases import EvidenceLevel

GAP_THRESHOLD_MS = 5_000
"""How long a background may be silent within main's timed section before that counts as uncovered. The embedded harness
gives a heartbeat a second; five of them missing in a row is more than a busy machine explains, and half of what ends a
run at once (`faults.STALL_LIMIT_S`)."""


class Goal(Enum):
    """How far the run goes."""

    RUN = "run"
    BASELINE = "baseline"
    """As a run, but main alone: every other slice, and every other GPU of the host, is idle."""
    BUILD = "build"
    """Stop after the engines are built."""

    @property
    def measures(self) -> bool:
        """Whether main runs."""
        return self is not Goal.BUILD


class Mode(Enum):
    """LoadGen's test mode, as far as it is offered."""

    PERFORMANCE = "performance"
    ACCURACY = "accuracy"


class Action(Enum):
    """What main does: the targets of NVIDIA's Makefile that measure something."""

    RUN_HARNESS = "run_harness"
    TEST01 = "run_audit_test01"
    TEST04 = "run_audit_test04"
    TEST05 = "run_audit_test05"

    @property
    def audit(self) -> str | None:
        """The name of the compliance test, None where it is none."""
        return None if self is Action.RUN_HARNESS else self.value.removeprefix("run_audit_").upper()

    @property
    def loadgen_runs(self) -> int:
        """How many LoadGen runs it may take: a test that fails is tried again (NVIDIA's Makefile v2.1:760-784)."""
        return {Action.RUN_HARNESS: 1, Action.TEST01: 2, Action.TEST04: 3, Action.TEST05: 3}[self]


class Drain(Enum):
    """What happens to backgrounds once main has ended."""

    KILL = "kill"
    """Stop them now, by a clean stop first."""
    WAIT = "wait"
    """Let them finish."""


class Preparation(Enum):
    """What is done to a GPU before its slices are discovered, and taken back in the end."""

    LAYOUT = "layout"
    """It is cut into the MIG slices of `RunSpec.layout`."""
    MPS = "mps"
    """It is shared by a CUDA MPS daemon of the run's own."""


class Isolation(Enum):
    """What keeps the slices of a run apart."""

    HARDWARE = "hardware"
    """Each has multiprocessors, cache, memory and memory bandwidth of its own, and its errors stay with it: MIG
    devices, whole GPUs. Power, clocks and what is outside the GPU are shared all the same."""
    SOFT = "soft"
    """Each may use so many multiprocessors, and nothing else is kept apart: shares under MPS."""
    SIMULATED = "simulated"
    """There is no GPU; at most they have processors of their own."""


class BenchmarkInfo(Struct, frozen=True, rename="kebab"):
    """What a harness knows about one benchmark.

    `model` groups benchmarks that are the same model: a background set never contains main's model. `config_vers` are
    (accuracy, configuration version) where the harness has a version for each accuracy. `stops_cleanly`: there is a
    signal at which it completes what is outstanding and exits.
    """

    name: str
    model: str
    scenarios: tuple[str, ...]
    accuracies: tuple[str, ...]
    default_accuracy: str
    config_vers: tuple[tuple[str, str], ...] = ()
    stops_cleanly: bool = True

    def config_ver(self, accuracy: str) -> str:
        """The configuration version of that accuracy; empty where there is none."""
        return dict(self.config_vers).get(accuracy, "")


class SystemSpec(Struct, frozen=True, rename="kebab"):
    """What a harness supports on one kind of GPU.

    `gpu` is contained in the product name that NVML gives; `benchmarks` are (benchmark, its scenarios).
    """

    gpu: str
    benchmarks: tuple[tuple[str, tuple[str, ...]], ...]

    def supports(self, benchmark: str, scenario: str) -> bool:
        """Whether the benchmark has that scenario here."""
        return scenario in dict(self.benchmarks).get(benchmark, ())


class CommandSpec(Struct, frozen=True, rename="kebab"):
    """One benchmark of the `command` harness: any program.

    `argv`, `env` and `cwd` may hold the placeholders of `harnesses/command/placeholders.py`. `cwd` is relative to the
    directory in which heteromig was started; None is the worker's own. `start`, `end` and `result` are regular
    expressions, searched in each line of the output; `valid_when` compares groups of `result` with constants.
    `loadgen_logs` is the directory, relative to the worker's own, where the program puts LoadGen's logs; None where it
    writes none. `clean_stop` is the name of the signal at which it ends well; None where it knows none.
    """

    name: str
    argv: tuple[str, ...]
    model: str
    scenarios: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str | None = None
    start: str | None = None
    end: str | None = None
    result: str | None = None
    valid_when: tuple[str, ...] = ()
    clean_stop: str | None = None
    loadgen_logs: str | None = None


class MainSpec(Struct, frozen=True, rename="kebab"):
    """The measured benchmark. `duration_ms` is LoadGen's min_duration.

    `run_args` are the user's own arguments for the harness, `cmd_prefix` what goes in front of its command line.
    `slice` says where it runs: a UUID, an index among the slices, or a profile; None for the first slice.
    `most_over_latency`: with more samples over the limit on latency it cannot be VALID any more, and is ended at once;
    None to let it go on in any case.
    """

    benchmark: str
    scenario: str
    mode: Mode
    accuracy: str
    duration_ms: int
    target_qps: float | None = None
    action: Action = Action.RUN_HARNESS
    config_ver: str = ""
    run_args: tuple[str, ...] = ()
    cmd_prefix: tuple[str, ...] = ()
    slice: str | None = None
    most_over_latency: int | None = None

    @property
    def may_run_again(self) -> bool:
        """Whether LoadGen may run more than once within it, so that the end of a run is not the end of main."""
        pairs = itertools.pairwise(self.run_args)
        both = "--test_mode=SubmissionRun" in self.run_args or ("--test_mode", "SubmissionRun") in pairs
        return both or self.action.audit is not None


class BackgroundSpec(Struct, frozen=True, rename="kebab"):
    """The neighbours.

    `benchmarks` is what the user wrote, a set's name or a list; `candidates` the resolved names in order.
    `duration_ms` is None for automatic; `timeout_ms` caps the automatic duration. `config_ver` replaces that of each
    benchmark where it is not empty; `run_args` are further arguments for the harness.
    """

    benchmarks: str
    explicit: bool
    candidates: tuple[str, ...]
    scenario: str
    duration_ms: int | None
    timeout_ms: int
    config_ver: str = ""
    run_args: tuple[str, ...] = ()


class TimingSpec(Struct, frozen=True, rename="kebab"):
    """Waits and limits, all in milliseconds.

    `gap_threshold_ms` is for how long a background may be silent while main is timed.
    """

    start_time_buffer_ms: int
    background_start_timeout_ms: int
    build_timeout_ms: int
    main_timeout_ms: int
    main_exit_timeout_ms: int
    end_time_buffer_min_ms: int
    clean_stop_ms: int
    grace_ms: int
    gap_threshold_ms: int = GAP_THRESHOLD_MS


class RunSpec(Struct, frozen=True, rename="kebab"):
    """Everything that a run is told.

    `catalog` holds the benchmarks that the plan can mention, `systems` the kinds of GPU that the harness supports, none
    for any. `uses_gpu` says whether the harness computes on a GPU; one that does not is refused on real slices, because
    it would measure something else. `batch_builds`: one build makes all engines of a configuration version. `gpu` is
    the UUID or the index of the GPU to run on; None for the one with the most slices. `harness_dir` and `commands` are
    what the harnesses of these names need. `keeps_backgrounds`: those that are timed go on when the run is over, for
    the next one of the same campaign, and those of the one before are taken over, and so is what was prepared.
    `preparation` says what is done to the GPU first; `layout` is the MIG layout to cut it into, and `enable_mig_mode`
    allows to turn MIG on for that.
    `allow_shared_dirs`: others may write to the directories of runs and engines. `allow_busy` lets a baseline go on
    while others use what it does not.
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
    batch_builds: bool = False
    gpu: str | None = None
    keeps_backgrounds: bool = False
    preparation: Preparation | None = None
    layout: str = ""
    enable_mig_mode: bool = False
    systems: tuple[SystemSpec, ...] = ()
    harness_dir: str = ""
    commands: tuple[CommandSpec, ...] = ()
    allow_shared_dirs: bool = False
    allow_busy: bool = False

    @property
    def gives_heartbeats(self) -> bool:
        """Whether every worker says what it has completed, from its first completion on: the embedded ones do.

        So whoever says nothing has completed nothing.
        """
        return self.harness == "loadgen"

    @property
    def isolation(self) -> Isolation:
        """What keeps its slices apart."""
        if self.simulated:
            return Isolation.SIMULATED
        return Isolation.SOFT if self.preparation is Preparation.MPS else Isolation.HARDWARE

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The catalog's entry; names were checked when the spec was made."""
        return next(info for info in self.catalog if info.name == name)
