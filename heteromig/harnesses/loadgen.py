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
from heteromig.benchmarks.runtimes import Device, is_usable
from heteromig.core.decoding import decode
from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.core.overlap import MainResult
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import Action, BenchmarkInfo, MainSpec, Mode, RunSpec, SystemSpec
from heteromig.core.units import NS_PER_MS, UtcNs
from heteromig.harnesses.judging import complaints_of_errors, judge_performance
from heteromig.harnesses.prefix import require_prefix
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.detail import DetailFacts, read_detail
from heteromig.logs.files import read_regular
from heteromig.logs.harness import MLPERF_LINES, LinePattern
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from heteromig.workers.environment import SLICE_VARIABLE, package_path

_MODULES = ("mlperf_loadgen", "numpy", "onnx", "onnxruntime")
"""What `pip install 'heteromig[loadgen]'` brings."""

_START_MS = 30_000
"""A few seconds on an idle machine."""

ACCURACY_RESULT = "accuracy.json"


class AccuracyResult(Struct, frozen=True):
    """`accuracy.json`, which the benchmark writes at the end of an accuracy run."""

    metric: str
    value_percent: float
    target_percent: float
    passed: bool
    samples: int


class _Outcome(Struct, frozen=True):
    """`outcome.json`."""

    not_computed: int


class LoadgenHarness:
    """Real MLCommons LoadGen over small models: on the CPU for a simulated slice, on the GPU for a real one."""

    name = "loadgen"
    start_time_buffer_ms = 10_000
    batches_builds = False
    writes_loadgen_logs = True

    @property
    def uses_gpu(self) -> bool:
        """Whether there is a PyTorch with CUDA, which real slices need."""
        return is_usable(Device.CUDA)

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """All benchmarks it has."""
        return tuple(spec.info for spec in catalog.BENCHMARKS.values())

    def sets(self) -> dict[str, tuple[str, ...]]:
        """Names of sets of benchmarks."""
        return dict(catalog.SETS)

    def systems(self) -> tuple[SystemSpec, ...]:
        """Any: what it supports is decided by its runtime."""
        return ()

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

    def main_exit_timeout_ms(self, main: MainSpec) -> int:
        """A minute: there is little to do after LoadGen's result."""
        del main
        return 60_000

    def preflight(self, spec: RunSpec) -> None:
        """Check that LoadGen and a runtime are installed, and that nothing is asked that only NVIDIA's tree can do.

        Raises:
            PreflightError: something is not installed.
            UsageError: an option is for the harness `make`, or main's target is given in a mode that has none.
        """
        require_no_make_options(spec)
        require_prefix(spec.main.cmd_prefix, None)
        absent = [module for module in _MODULES if importlib.util.find_spec(module) is None]
        if absent:
            raise PreflightError(
                f"The loadgen harness needs {', '.join(absent)}, which is not installed: "
                "pip install 'heteromig[loadgen]'."
            )
        if spec.main.target_qps is not None and spec.main.mode.value != "performance":
            raise UsageError("--main-target-qps goes with --main-mode performance only; leave one of them out.")

    def rate_rules(self, spec: RunSpec) -> RateRules:
        """The catalog's, which LoadGen is told."""
        main = spec.main
        if main.scenario != catalog.SERVER:
            return RateRules(main.scenario, start_ms=_START_MS)
        return RateRules(
            scenario=main.scenario,
            latency_limit_ms=catalog.require(main.benchmark).server_latency_ns / NS_PER_MS,
            percentile=catalog.SERVER_PERCENTILE,
            min_queries=catalog.SERVER_MIN_QUERIES,
            start_ms=_START_MS,
        )

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:
        """Those of `needs` that are missing, stale or corrupt, each with the reason."""
        engines_dir = Path(spec.engines_dir).absolute()
        missing = []
        for need in needs:
            state = inspect_engine(
                self._engine_dir(need, engines_dir),
                benchmark=need.benchmark,
                scenario=need.scenario,
                accuracy=need.accuracy,
                profile=need.profile,
                device=_device(need),
                gpu=need.gpu,
            )
            if state.status is not EngineStatus.OK:
                missing.append((need, state.reason))
        return tuple(missing)

    def prepare(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: a worker writes into its own directory alone."""

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """`run` for main and backgrounds, `build` for builds; the slice goes by CUDA_VISIBLE_DEVICES."""
        need = assignment.builds[0] if assignment.builds else assignment.engine
        engine = str(self._engine_dir(need, Path(spec.engines_dir).absolute()))
        what = (
            "--benchmark", assignment.benchmark,
            "--scenario", assignment.scenario,
            "--accuracy", assignment.accuracy,
            "--profile", assignment.profile,
            *(("--device", _device(need).value, "--gpu", need.gpu) if need.gpu else ()),
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
                "--log-dir", str(run_dir / assignment.directory),
                "--min-duration-ms", str(assignment.duration_ms),
            )  # fmt: skip
            if assignment.role is Role.MAIN:
                rate = () if spec.main.target_qps is None else ("--target-qps", f"{spec.main.target_qps:.10g}")
                argv = (*spec.main.cmd_prefix, *argv, *rate)
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

    def lines(self, assignment: Assignment) -> tuple[LinePattern, ...]:
        """The marker, heartbeats and LoadGen's summary."""
        del assignment
        return MLPERF_LINES

    def logs(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> LogPlace | None:
        """The worker's own directory; a build writes none."""
        del spec
        return None if assignment.role is Role.BUILD else LogPlace(run_dir / assignment.directory)

    def collect(
        self, assignment: Assignment, spec: RunSpec, run_dir: Path, *, started_utc_ns: UtcNs, exit_code: int | None
    ) -> None:
        """Nothing: everything is in the worker's directory already."""

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        """The one in the worker's directory, there or not."""
        return (run_dir / assignment.directory / DETAIL_LOG,)

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        """LoadGen's VALID, or the agreement of an accuracy run, of a run that nobody stopped.

        Raises:
            EvidenceError: a file that says so is missing or unreadable.
        """
        del spec
        folder = run_dir / main.directory
        facts = read_detail(folder / DETAIL_LOG)
        not_computed = uncomputed_samples(folder)
        if not_computed:
            why = f"somebody stopped it, and {not_computed} samples were completed without being computed"
            return MainResult(valid=False, complaints=(why,), metrics={})
        if main.mode is Mode.ACCURACY:
            return _accuracy(folder, facts)
        return judge_performance(folder / DETAIL_LOG, facts, main)

    def _engine_dir(self, need: EngineNeed, engines_dir: Path) -> Path:
        return engines_dir / engine_key(
            need.benchmark, need.scenario, need.accuracy, need.profile, device=_device(need), gpu=need.gpu
        )


def _device(need: EngineNeed) -> Device:
    """Engines for a GPU say for which; simulated slices have none."""
    return Device.CUDA if need.gpu else Device.CPU


def uncomputed_samples(folder: Path) -> int:
    """How many samples were completed without being computed, as the benchmark wrote when it was done.

    LoadGen cannot tell them from others, and may call a run VALID that somebody stopped.

    Raises:
        EvidenceError: `outcome.json` is not there, or is not what the benchmark writes.
    """
    path = folder / OUTCOME
    try:
        return decode(read_regular(path, "The outcome"), _Outcome).not_computed
    except FileNotFoundError:
        raise EvidenceError(f"{path} is not there, so it is not known whether the run was stopped.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is not the outcome of a benchmark: {error}.") from None


def require_no_make_options(spec: RunSpec) -> None:
    """Refuse what only NVIDIA's tree understands.

    Raises:
        UsageError: one of these options was given.
    """
    given = {
        f"--main-action {spec.main.action.value}": spec.main.action is not Action.RUN_HARNESS,
        "--main-benchmark-runargs, --start-from-device or --verbose": bool(spec.main.run_args),
        "--main-config-ver": bool(spec.main.config_ver),
        "--start-from-device or --verbose-all": bool(spec.background.run_args),
        "--background-config-ver": bool(spec.background.config_ver),
    }
    for option, is_given in given.items():
        if is_given:
            raise UsageError(
                f"{option} is for NVIDIA's tree, and the harness is {spec.harness}: leave it out, or choose make."
            )


def _accuracy(folder: Path, facts: DetailFacts) -> MainResult:
    """An accuracy run has no VALID of LoadGen's; what counts is how well the answers agree."""
    path = folder / ACCURACY_RESULT
    try:
        result = decode(read_regular(path, "The accuracy result"), AccuracyResult)
    except FileNotFoundError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is not an accuracy result: {error}.") from None
    metrics = {
        "accuracy_percent": result.value_percent,
        "accuracy_target_percent": result.target_percent,
        "accuracy_samples": float(result.samples),
    }
    if facts.num_errors:
        return MainResult(valid=False, complaints=complaints_of_errors(facts), metrics=metrics)
    if result.passed and result.value_percent >= result.target_percent:
        return MainResult(valid=True, complaints=(), metrics=metrics)
    why = f"{result.metric} is {result.value_percent:g} %, below the target of {result.target_percent:g} %"
    return MainResult(valid=False, complaints=(why,), metrics=metrics)
