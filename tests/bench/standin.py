"""A harness of stand-ins: children that print and log like LoadGen benchmarks, as talkative as a measurement needs."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.core.overlap import MainResult
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import BenchmarkInfo, MainSpec, RunSpec, SystemSpec
from heteromig.core.units import UtcNs
from heteromig.harnesses.judging import judge_performance
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.detail import read_detail
from heteromig.logs.harness import MLPERF_LINES, LinePattern
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from tests.bench import child

MARK = "HETEROMIG_BENCH"
"""In the environment of every process that a scenario starts; its value is the scenario's own."""


class Behaviour(Struct, frozen=True):
    """What `child.py` does.

    `load_s` passes from the banner to the timed section. `dies_after_s` is the time from the begin of the timed
    section to a crash, None for a child that lives. `grandchild`: it leaves a process behind that ignores TERM.
    `stamped`: what a heartbeat says was completed is the time on the monotonic clock, in ns.
    """

    log_dir: str
    duration_s: float
    banner_lines: int = 60
    load_s: float = 0.3
    lines_per_s: int = 20
    line_bytes: int = 100
    dies_after_s: float | None = None
    grandchild: bool = False
    stamped: bool = False


class Scenario(Struct, frozen=True):
    """One run with stand-ins. `loads_s` are those of the workers, taken in turn; `dying` is a worker's index."""

    runs_dir: str
    mark: str
    slices: str = "sim:a100-sxm-80gb"
    main_duration_s: float = 2.0
    loads_s: tuple[float, ...] = (0.3,)
    dying: int | None = None
    dies_after_s: float = 0.0
    grandchildren: bool = False
    stamped: bool = False


def child_argv(behaviour: Behaviour) -> tuple[str, ...]:
    """The command line of a stand-in."""
    fields = {name: getattr(behaviour, name) for name in behaviour.__struct_fields__}
    return (sys.executable, "-I", "-S", child.__file__, json.dumps(fields))


class StandIn:
    """Seven benchmarks that differ in nothing but their names."""

    name = "standin"
    start_time_buffer_ms = 0
    uses_gpu = False
    batches_builds = False
    writes_loadgen_logs = True

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._catalog = tuple(
            BenchmarkInfo(f"standin-{letter}", letter, ("offline",), ("99",), "99") for letter in "abcdefg"
        )

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        return self._catalog

    def sets(self) -> dict[str, tuple[str, ...]]:
        return {"all": tuple(info.name for info in self._catalog)}

    def systems(self) -> tuple[SystemSpec, ...]:
        return ()

    def benchmark(self, name: str) -> BenchmarkInfo:
        for info in self._catalog:
            if info.name == name:
                return info
        raise UsageError(f"There is no stand-in {name!r}.")

    def require_supported(self, name: str, scenario: str, accuracy: str) -> None:
        info = self.benchmark(name)
        if scenario not in info.scenarios or accuracy not in info.accuracies:
            raise UsageError(f"The stand-in {name} has no {scenario} with accuracy {accuracy}.")

    def main_exit_timeout_ms(self, main: MainSpec) -> int:  # noqa: ARG002 - all end alike
        return 60_000

    def preflight(self, spec: RunSpec) -> None:
        pass

    def rate_rules(self, spec: RunSpec) -> RateRules:
        return RateRules(spec.main.scenario)

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:  # noqa: ARG002 - it needs none
        return ()

    def prepare(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> None:
        pass

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:  # noqa: ARG002 - the scenario says all
        scenario = self._scenario
        is_main = assignment.role is Role.MAIN
        behaviour = Behaviour(
            log_dir=str(run_dir / assignment.directory),
            duration_s=assignment.duration_ms / 1000,
            load_s=scenario.loads_s[assignment.index % len(scenario.loads_s)],
            dies_after_s=scenario.dies_after_s if assignment.index == scenario.dying else None,
            grandchild=scenario.grandchildren and not is_main,
            stamped=scenario.stamped,
        )
        return Command(
            argv=child_argv(behaviour),
            env={"CUDA_VISIBLE_DEVICES": assignment.slice_uuid, "PATH": os.defpath, MARK: scenario.mark},
            cwd=run_dir / assignment.directory,
            clean_stop_signal=signal.SIGTERM,
        )

    def lines(self, assignment: Assignment) -> tuple[LinePattern, ...]:  # noqa: ARG002 - all print alike
        return MLPERF_LINES

    def logs(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> LogPlace | None:  # noqa: ARG002 - as above
        return LogPlace(run_dir / assignment.directory)

    def collect(
        self, assignment: Assignment, spec: RunSpec, run_dir: Path, *, started_utc_ns: UtcNs, exit_code: int | None
    ) -> None:
        pass

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        return (run_dir / assignment.directory / DETAIL_LOG,)

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:  # noqa: ARG002 - the log says all
        (path,) = self.detail_logs(main, run_dir)
        return judge_performance(path, read_detail(path), main)
