"""What the rest may ask of a harness."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import BenchmarkInfo, RunSpec
from heteromig.workers.command import Command


class Harness(Protocol):
    """A kind of program that workers run. All methods are pure, but `preflight` and `missing_engines` read files."""

    @property
    def name(self) -> str:
        """Its value of `--harness`."""

    @property
    def start_time_buffer_ms(self) -> int:
        """How long backgrounds settle before main starts, unless the user says otherwise."""

    @property
    def uses_gpu(self) -> bool:
        """Whether its engines compute on a GPU; those that do not are refused on real slices."""

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """All benchmarks it has."""

    def sets(self) -> dict[str, tuple[str, ...]]:
        """Names of sets of benchmarks."""

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

    def preflight(self, spec: RunSpec) -> None:
        """Check that the harness can run here at all.

        Raises:
            PreflightError: something is not installed, or the slices are not for it.
        """

    def missing_engines(self, needs: tuple[EngineNeed, ...], engines_dir: Path) -> tuple[tuple[EngineNeed, str], ...]:
        """Those of `needs` that are not usable, each with the reason."""

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """What to execute for a worker."""

    def uncomputed_samples(self, log_dir: Path) -> int:
        """How many samples were completed without being computed, because somebody stopped the run.

        LoadGen cannot tell them from others, and may call such a run VALID.

        Raises:
            EvidenceError: the harness left no word about it.
        """

    def log_dir(self, assignment: Assignment, run_dir: Path) -> Path:
        """Where LoadGen's logs of that worker appear."""
