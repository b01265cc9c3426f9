"""The embedded harness: one `python -m heteromig.benchmarks` process per worker."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.benchmarks import catalog
from heteromig.benchmarks.catalog import OUTCOME
from heteromig.benchmarks.engines import EngineStatus, engine_key, inspect_engine
from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import BenchmarkInfo, RunSpec
from heteromig.workers.command import Command
from heteromig.workers.environment import SLICE_VARIABLE, package_path

_MODULES = ("mlperf_loadgen", "numpy", "onnx", "onnxruntime")
"""What `pip install 'heteromig[loadgen]'` brings."""


class _Outcome(Struct, frozen=True):
    """`outcome.json`."""

    not_computed: int


class LoadgenHarness:
    """Real MLCommons LoadGen over small models, on the CPU of a simulated slice."""

    name = "loadgen"
    start_time_buffer_ms = 10_000
    uses_gpu = False

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """All benchmarks it has."""
        return tuple(spec.info for spec in catalog.BENCHMARKS.values())

    def sets(self) -> dict[str, tuple[str, ...]]:
        """Names of sets of benchmarks."""
        return dict(catalog.SETS)

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The catalog's entry.

        Raises:
            UsageError: there is none; the message has the nearest known name.
        """
        return catalog.require(name).info

    def require_supported(self, name: str, scenario: str, accuracy: str) -> None:
        """Check that the benchmark offers both.

        Raises:
            UsageError: it does not.
        """
        catalog.require_supported(name, scenario, accuracy)

    def preflight(self, spec: RunSpec) -> None:
        """Check that LoadGen and a runtime are installed, and that the runtime is one for these slices.

        Raises:
            PreflightError: something is not installed, or the slices are real.
            UsageError: main's target is given in a mode that has none.
        """
        absent = [module for module in _MODULES if importlib.util.find_spec(module) is None]
        if absent:
            raise PreflightError(
                f"The loadgen harness needs {', '.join(absent)}, which is not installed: "
                "pip install 'heteromig[loadgen]'."
            )
        if spec.main.target_qps is not None and spec.main.mode.value != "performance":
            raise UsageError("--main-target-qps goes with --main-mode performance only; leave one of them out.")

    def missing_engines(self, needs: tuple[EngineNeed, ...], engines_dir: Path) -> tuple[tuple[EngineNeed, str], ...]:
        """Those of `needs` that are missing, stale or corrupt, each with the reason."""
        missing = []
        for need in needs:
            state = inspect_engine(
                self._engine_dir(need, engines_dir),
                benchmark=need.benchmark,
                scenario=need.scenario,
                accuracy=need.accuracy,
                profile=need.profile,
            )
            if state.status is not EngineStatus.OK:
                missing.append((need, state.reason))
        return tuple(missing)

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """`run` for main and backgrounds, `build` for builds; the slice goes by CUDA_VISIBLE_DEVICES."""
        engine = str(self._engine_dir(assignment.engine, Path(spec.engines_dir).absolute()))
        what = (
            "--benchmark", assignment.benchmark,
            "--scenario", assignment.scenario,
            "--accuracy", assignment.accuracy,
            "--profile", assignment.profile,
        )  # fmt: skip
        python = (sys.executable, "-m", "heteromig.benchmarks")
        argv: tuple[str, ...]
        if assignment.role is Role.BUILD:
            argv = (*python, "build", *what, "--output", engine)
        else:
            argv = (
                *python, "run", *what,
                "--mode", assignment.mode.value,
                "--engine", engine,
                "--log-dir", str(self.log_dir(assignment, run_dir)),
                "--min-duration-ms", str(assignment.duration_ms),
            )  # fmt: skip
            if assignment.role is Role.MAIN and spec.main.target_qps is not None:
                argv = (*argv, "--target-qps", f"{spec.main.target_qps:g}")
        return Command(
            argv=argv,
            env=self._environment(assignment),
            cwd=run_dir / assignment.directory,
            clean_stop_signal=signal.SIGTERM,
        )

    def _environment(self, assignment: Assignment) -> dict[str, str]:
        return {
            SLICE_VARIABLE: assignment.slice_uuid,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": package_path(),
        }

    def uncomputed_samples(self, log_dir: Path) -> int:
        """What the benchmark wrote into `outcome.json` when it was done.

        Raises:
            EvidenceError: it is not there, or is not what the benchmark writes.
        """
        path = log_dir / OUTCOME
        if not path.is_file():
            raise EvidenceError(f"{path} is not there, so it is not known whether the run was stopped.")
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Outcome).not_computed
        except OSError as error:
            raise EvidenceError(f"{path} cannot be read: {error.strerror}.") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise EvidenceError(f"{path} is not the outcome of a benchmark: {error}.") from None

    def log_dir(self, assignment: Assignment, run_dir: Path) -> Path:
        """The worker's own directory."""
        return run_dir / assignment.directory

    def _engine_dir(self, need: EngineNeed, engines_dir: Path) -> Path:
        return engines_dir / engine_key(need.benchmark, need.scenario, need.accuracy, need.profile)
