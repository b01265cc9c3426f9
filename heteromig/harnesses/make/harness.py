"""The harness `make`: NVIDIA's tree, with the commands of the HeteroMIG document."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import weakref
from pathlib import Path

from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.overlap import MainResult
from heteromig.core.phases import EvidenceLevel, Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import Action, BenchmarkInfo, MainSpec, Mode, RunSpec, SystemSpec
from heteromig.core.units import UtcNs
from heteromig.harnesses.make import catalog, engines, rates, results
from heteromig.harnesses.make.arguments import run_args
from heteromig.harnesses.make.catalog import SCENARIO_NAMES, directory_names
from heteromig.harnesses.make.hold import hold_tree
from heteromig.harnesses.make.shadow import SHADOW, make_shadow, remove_shadow
from heteromig.harnesses.make.tree import require_makeable, require_tree
from heteromig.harnesses.prefix import require_prefix
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.harness import MLPERF_LINES, LinePattern
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from heteromig.workers.environment import SLICE_VARIABLE
from heteromig.workers.worker import STDOUT_LOG

_ACCURACY_ONLY = "--test_mode=AccuracyOnly"
_RUN_STAMP = re.compile(r"(?P<date>\d{8})T(?P<time>\d{6})Z-.*")
_TAG_DIGITS = 8

_POSTPROCESSING_MS = 30 * 60_000
"""Scoring 3d-unet or dlrm takes minutes after LoadGen's end; TEST04 and TEST05 sleep 20 s before each trial."""

_NO_TEST04 = ("bert", "dlrm", "rnnt", "3d-unet", "retinanet")
"""Their inputs differ in length, so that one sample again and again says nothing (compliance/nvidia/TEST04)."""

_OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""What a make that runs heteromig passes on to its children; the harness' make is none of them."""


class MakeHarness:
    """`make generate_engines`, `run_harness` and `run_audit_test01|04|05` in the tree `harness_dir`."""

    name = "make"
    start_time_buffer_ms = 600_000
    uses_gpu = True
    batches_builds = True
    writes_loadgen_logs = True

    def __init__(self, harness_dir: str, further_systems: tuple[SystemSpec, ...]) -> None:
        """`harness_dir` is empty where no tree was found, which is refused before anything runs."""
        self._tree = Path(harness_dir)
        self._catalog = catalog.catalog(further_systems)
        self._systems = catalog.systems(further_systems)
        self._hold: weakref.finalize[[int], MakeHarness] | None = None

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """The benchmarks of the document, and those of the configured systems."""
        return self._catalog

    def sets(self) -> dict[str, tuple[str, ...]]:
        """The document's sets."""
        return dict(catalog.SETS)

    def systems(self) -> tuple[SystemSpec, ...]:
        """The three systems of the document, and the configured ones."""
        return self._systems

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The catalog's entry.

        Raises:
            UsageError: there is none; the message has the nearest known name.
        """
        return catalog.require(name, self._catalog)

    def require_supported(self, name: str, scenario: str, accuracy: str) -> None:
        """Check that the benchmark offers both.

        Raises:
            UsageError: it does not.
        """
        info = self.benchmark(name)
        if scenario not in info.scenarios:
            raise UsageError(f"{name} has no scenario {scenario!r}: choose one of {', '.join(info.scenarios)}.")
        if accuracy not in info.accuracies:
            raise UsageError(f"{name} has no accuracy {accuracy!r}: choose one of {', '.join(info.accuracies)}.")

    def main_exit_timeout_ms(self, main: MainSpec) -> int:
        """A minute after a performance run; what scores answers or runs again takes longer."""
        plain = main.mode is Mode.PERFORMANCE and not main.may_run_again
        return 60_000 if plain else _POSTPROCESSING_MS

    def preflight(self, spec: RunSpec) -> None:
        """Check that there is a tree and a make that can work in it.

        Raises:
            PreflightError: there is none, or the names of directories are not for make.
            UsageError: an option is not for this harness.
        """
        require_makeable(require_tree(spec.harness_dir), "move the tree.")
        require_makeable(Path(spec.runs_dir).absolute(), "choose another place with --runs-dir.")
        if shutil.which("make") is None:
            raise PreflightError("There is no make on the PATH, and NVIDIA's tree is driven by it: install GNU make.")
        require_prefix(spec.main.cmd_prefix, self._tree)
        if spec.main.target_qps is not None:
            rates.require_rate(spec.main, spec.main.target_qps)
            rates.limited_conf(self._tree, spec.main)  # later there is nobody to tell that it cannot be read
        if spec.start_evidence is EvidenceLevel.BUSY:
            raise UsageError("NVIDIA's harness gives no heartbeat: choose --start-evidence timed or announced.")
        audit = spec.main.action.audit
        if audit is not None and spec.main.mode is Mode.ACCURACY:
            raise UsageError(f"--main-action {spec.main.action.value} measures performance: leave AccuracyOnly out.")
        if audit == "TEST04" and spec.main.benchmark in _NO_TEST04:
            raise UsageError(
                f"TEST04 is not for {spec.main.benchmark}, and the tree would run nothing: choose another."
            )

    def rate_rules(self, spec: RunSpec) -> RateRules:
        """Those of the tree's own `mlperf.conf`.

        Raises:
            UsageError: an argument of main's says the rate, or other rules.
            PreflightError: there is no tree, or it does not say them.
        """
        main = spec.main
        rates.require_free_rate(main)
        if main.scenario != catalog.SERVER:
            return RateRules(main.scenario, whole_rates=True)
        found = rates.server_rules(require_tree(spec.harness_dir), main)
        return RateRules(
            scenario=main.scenario,
            latency_limit_ms=found.latency_limit_ms,
            percentile=found.percentile,
            min_queries=found.min_queries,
            whole_rates=True,
        )

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:
        """Those of `needs` that are not in the tree as they were built."""
        return engines.missing(needs, self._tree, Path(spec.engines_dir).absolute())

    def prepare(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> None:
        """A shadow of the tree for a background; for a build a note of it; for main a LOG_DIR that nobody has used.

        Main that is to be ended when it is hopeless gets an `mlperf.conf` of its own, beside its output.

        Raises:
            OSError: the file system does not let it.
            PreflightError: main's LOG_DIR is there already, or the tree is not to be had beside another run.
        """
        if assignment.role is not Role.BUILD and self._hold is None:
            held = hold_tree(self._tree, alone=spec.main.action.audit is not None)
            self._hold = weakref.finalize(self, os.close, held)
        if assignment.role is Role.BACKGROUND:
            make_shadow(self._tree, self._shadow(assignment, run_dir), runs_dir=Path(spec.runs_dir).absolute())
        elif assignment.role is Role.BUILD:
            engines.begin(assignment.builds, self._tree, Path(spec.engines_dir).absolute())
        elif self._main_log_dir(run_dir).exists():
            raise PreflightError(f"{self._main_log_dir(run_dir)} is there already, from another run: try again.")
        elif (conf := rates.limited_conf(self._tree, spec.main)) is not None:
            name, text = conf
            (run_dir / assignment.directory / name).write_text(text, encoding="utf-8")

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """The document's commands. Main and builds run in the tree itself, a background in its shadow."""
        prefix: tuple[str, ...] = ()
        cwd, target = self._tree, Action.RUN_HARNESS.value
        if assignment.role is Role.BUILD:
            log_dir = str(run_dir / assignment.directory / results.LOGS)
            target, arguments = "generate_engines", _build_arguments(assignment, self._catalog)
        elif assignment.role is Role.MAIN:
            log_dir = str(self._main_log_dir(run_dir).relative_to(self._tree))
            prefix, target = spec.main.cmd_prefix, spec.main.action.value
            conf = rates.limited_conf(self._tree, spec.main)
            ending = () if conf is None else (rates.conf_argument(run_dir / assignment.directory / conf[0]),)
            rate = rates.rate_arguments(spec.main)
            arguments = (*_run_arguments(assignment), *rate, *ending, *_own_arguments(spec.main))
        else:
            log_dir = str(run_dir / assignment.directory / results.LOGS)
            cwd = self._shadow(assignment, run_dir)
            arguments = (*_run_arguments(assignment), "--min_query_count=1", *spec.background.run_args)
        return Command(
            argv=(*prefix, "make", target, run_args(arguments)),
            env={
                SLICE_VARIABLE: assignment.slice_uuid,
                "LOG_DIR": log_dir,
                **dict.fromkeys((name for name in _OUTER_MAKE if name in os.environ), ""),
            },
            cwd=cwd,
        )

    def lines(self, assignment: Assignment) -> tuple[LinePattern, ...]:
        """Markers of all harness families, and results."""
        del assignment
        return MLPERF_LINES

    def logs(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> LogPlace | None:
        """Below the worker's LOG_DIR, or where compliance tests put theirs."""
        if assignment.role is Role.BUILD:
            return None
        scenario = SCENARIO_NAMES[assignment.scenario]
        ends = tuple(f"*/{name}/{scenario}" for name in directory_names(assignment.benchmark))
        if assignment.role is Role.BACKGROUND:
            return LogPlace(run_dir / assignment.directory / results.LOGS, ends)
        audit = spec.main.action.audit
        if audit is None:
            return LogPlace(self._main_log_dir(run_dir), ends)
        return LogPlace(self._tree / results.COMPLIANCE_LOGS, tuple(f"{audit}*/{end}" for end in ends))

    def collect(
        self, assignment: Assignment, spec: RunSpec, run_dir: Path, *, started_utc_ns: UtcNs, exit_code: int | None
    ) -> None:
        """Record the engines of a build that succeeded, copy main's logs, remove a background's shadow.

        Raises:
            OSError: the file system does not let it.
        """
        folder = run_dir / assignment.directory / results.LOGS
        audit = spec.main.action.audit
        if assignment.role is Role.BACKGROUND:
            remove_shadow(self._shadow(assignment, run_dir))
        elif assignment.role is Role.BUILD:
            if exit_code == 0:
                engines.record(
                    assignment.builds, self._tree, Path(spec.engines_dir).absolute(), started_utc_ns=started_utc_ns
                )
        elif audit is None:
            results.copy_logs(self._main_log_dir(run_dir), folder)
        else:
            results.copy_compliance(self._tree, audit, folder, started_utc_ns=started_utc_ns)
        if assignment.role is Role.MAIN and self._hold is not None:
            self._hold()

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        """All of the worker's benchmark and scenario that lie in its directory."""
        return results.detail_logs(run_dir / assignment.directory / results.LOGS, assignment)

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        """By LoadGen's VALID, the accuracy test, or the verify files of a compliance test.

        Raises:
            EvidenceError: what says so is not there.
        """
        folder, output = run_dir / main.directory / results.LOGS, run_dir / main.directory / STDOUT_LOG
        logs = self.detail_logs(main, run_dir)
        if spec.main.action.audit is not None:
            return results.judge_audit(logs, folder, spec.main.action.audit, output, main)
        if spec.main.mode is Mode.ACCURACY:
            return results.judge_accuracy(logs, folder, output, main)
        return results.judge_last_performance(logs, main)

    def _shadow(self, assignment: Assignment, run_dir: Path) -> Path:
        return run_dir / assignment.directory / SHADOW

    def _main_log_dir(self, run_dir: Path) -> Path:
        """`build/logs/<timestamp>-<tag>`: as the Makefile would name it, after the begin of the run in UTC.

        The tag tells it from runs of the same second, in whatever directories and on whatever machines they are.
        """
        stamp = _RUN_STAMP.fullmatch(run_dir.name)
        if stamp is None:
            return self._tree / "build" / "logs" / run_dir.name
        date, time = stamp["date"], stamp["time"]
        tag = hashlib.sha256(f"{socket.gethostname()}:{run_dir.absolute()}".encode()).hexdigest()[:_TAG_DIGITS]
        name = f"{date[:4]}.{date[4:6]}.{date[6:]}-{time[:2]}.{time[2:4]}.{time[4:]}-{tag}"
        return self._tree / "build" / "logs" / name


def _run_arguments(assignment: Assignment) -> tuple[str, ...]:
    return (
        f"--benchmarks={assignment.benchmark}",
        f"--scenarios={assignment.scenario}",
        f"--config_ver={assignment.config_ver}",
        f"--min_duration={assignment.duration_ms}",
    )


def _own_arguments(main: MainSpec) -> tuple[str, ...]:
    """What the user added, and the mode, unless it was said there."""
    is_said = any(one.partition("=")[0] == "--test_mode" for one in main.run_args)
    return main.run_args if is_said or main.mode is not Mode.ACCURACY else (_ACCURACY_ONLY, *main.run_args)


def _build_arguments(assignment: Assignment, known: tuple[BenchmarkInfo, ...]) -> tuple[str, ...]:
    """All scenarios by all benchmarks, in the document's order: the driver passes over one that does not exist."""
    scenarios = {need.scenario for need in assignment.builds}
    benchmarks = {need.benchmark for need in assignment.builds}
    return (
        f"--scenarios={','.join(name for name in SCENARIO_NAMES if name in scenarios)}",
        f"--benchmarks={','.join(info.name for info in known if info.name in benchmarks)}",
        f"--config_ver={assignment.config_ver}",
    )
