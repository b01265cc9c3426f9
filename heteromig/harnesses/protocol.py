"""What the rest may ask of a harness."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from msgspec import Struct

from heteromig.core.overlap import MainResult
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import BenchmarkInfo, MainSpec, RunSpec, SystemSpec
from heteromig.core.units import UtcNs
from heteromig.logs.harness import LinePattern
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command


class RateRules(Struct, frozen=True):
    """By which rules a run of main is VALID: what whoever looks for its best rate has to know beforehand.

    They are LoadGen's of that `scenario`. In Server at most a share 1 - `percentile` of the queries may take longer
    than `latency_limit_ms`, None where only main itself knows it, and a run has at least `min_queries`. `whole_rates`:
    main takes no others. `verdicts_only`: its runs tell nothing but whether they are VALID, by a rule of their own.
    `start_ms` is what main may take to load and to warm up, where it is ended after so long.
    """

    scenario: str
    latency_limit_ms: float | None = None
    percentile: float = 0.99
    min_queries: int = 1
    whole_rates: bool = False
    verdicts_only: bool = False
    start_ms: int = 600_000


class Harness(Protocol):
    """A kind of program that workers run.

    What is asked before a run (`catalog` to `missing_engines`) and after it (`detail_logs`, `result`) changes nothing;
    only `prepare` and `collect` do, each for one worker.
    """

    @property
    def name(self) -> str:
        """Its value of `--harness`."""

    @property
    def start_time_buffer_ms(self) -> int:
        """How long backgrounds settle before main starts, unless the user says otherwise."""

    @property
    def uses_gpu(self) -> bool:
        """Whether its engines compute on a GPU; those that do not are refused on real slices."""

    @property
    def batches_builds(self) -> bool:
        """Whether one build makes all engines of a configuration version."""

    @property
    def writes_loadgen_logs(self) -> bool:
        """Whether every worker leaves LoadGen's logs: then `timed` is the evidence of a start, else `announced`."""

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """All benchmarks it has."""

    def sets(self) -> dict[str, tuple[str, ...]]:
        """Names of sets of benchmarks."""

    def systems(self) -> tuple[SystemSpec, ...]:
        """The kinds of GPU that it supports; empty for any."""

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The catalog's entry.

        Raises:
            UsageError: there is none; the message has the nearest known name.
        """

    def require_supported(self, name: str, scenario: str, accuracy: str) -> None:
        """Check that the benchmark offers both.

        Raises:
            UsageError: it does not.
        """

    def main_exit_timeout_ms(self, main: MainSpec) -> int:
        """How long main may live after its timed section, unless the user says otherwise."""

    def preflight(self, spec: RunSpec) -> None:
        """Check that the harness can run here at all, and can do what is asked.

        Raises:
            PreflightError: something is not installed, or the slices are not for it.
            UsageError: an option is not for this harness.
        """

    def rate_rules(self, spec: RunSpec) -> RateRules:
        """By which rules runs of main at different rates (`MainSpec.target_qps`) are to be judged.

        Raises:
            UsageError: main cannot be given a rate, or is given one already.
            PreflightError: the rules cannot be read.
        """

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:
        """Those of `needs` that are not usable, each with the reason."""

    def prepare(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> None:
        """Make what the worker needs to find, its own directory excepted, which exists.

        Raises:
            OSError: the file system does not let it.
            PreflightError: something is in the way.
        """

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """What to execute for a worker."""

    def lines(self, assignment: Assignment) -> tuple[LinePattern, ...]:
        """What to look for in the output of a worker."""

    def logs(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> LogPlace | None:
        """Where LoadGen's logs of that worker appear while it runs; None where it writes none."""

    def collect(
        self, assignment: Assignment, spec: RunSpec, run_dir: Path, *, started_utc_ns: UtcNs, exit_code: int | None
    ) -> None:
        """Once the worker's process tree is gone: keep what is evidence, remove what was for it alone.

        `started_utc_ns` is when it was spawned; `exit_code` None where it died of a signal or never ran.

        Raises:
            OSError: the file system does not let it.
        """

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        """LoadGen's detail logs of that worker as they lie in the run directory, sorted."""

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        """How main came out, from what lies in the run directory.

        Raises:
            EvidenceError: what is needed to say so is not there, or cannot be read.
        """
