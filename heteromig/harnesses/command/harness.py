"""The harness `command`: programs of the user's own, started as they say and judged by what they print."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path

from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.core.overlap import MainResult
from heteromig.core.phases import EvidenceLevel, Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import BenchmarkInfo, CommandSpec, MainSpec, Mode, RunSpec, SystemSpec
from heteromig.core.units import UtcNs
from heteromig.harnesses.command.marks import lines_of
from heteromig.harnesses.command.placeholders import PYTHON, RATE, fill, is_plain, values_of
from heteromig.harnesses.command.programs import Program, read_program
from heteromig.harnesses.command.results import judge_output
from heteromig.harnesses.judging import judge_performance
from heteromig.harnesses.loadgen import require_no_make_options
from heteromig.harnesses.prefix import require_prefix
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.detail import read_detail
from heteromig.logs.harness import LinePattern
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.logs.search import LogPlace
from heteromig.workers.command import Command
from heteromig.workers.environment import SLICE_VARIABLE
from heteromig.workers.worker import STDOUT_LOG

_WITHOUT_RATE = ("singlestream", "multistream")
"""LoadGen's scenarios that send one query after the other."""
_SEARCHED = "server"
"""The one whose highest rate is looked for; what an ordinary program's scenarios mean, only the user knows."""


class CommandHarness:
    """The programs of `[command.<name>]`."""

    name = "command"
    start_time_buffer_ms = 10_000
    uses_gpu = True  # the user's program decides, and only the user knows
    batches_builds = False

    def __init__(self, commands: tuple[CommandSpec, ...]) -> None:
        """Read all of them.

        Raises:
            UsageError: there is none, or one of them cannot be.
        """
        if not commands:
            raise UsageError(
                "--harness command runs what [command.<name>] tables describe, and there is none: write one, and name "
                "the file with --config. docs/command-harness.md shows how."
            )
        self._programs = {spec.name: read_program(spec) for spec in commands}
        self.writes_loadgen_logs = all(spec.loadgen_logs is not None for spec in commands)

    def catalog(self) -> tuple[BenchmarkInfo, ...]:
        """All commands, in the order in which they were given."""
        return tuple(program.info for program in self._programs.values())

    def sets(self) -> dict[str, tuple[str, ...]]:
        """All of them, and nothing else: nobody but the user knows what they are for."""
        return {"all": tuple(self._programs)}

    def systems(self) -> tuple[SystemSpec, ...]:
        """Any."""
        return ()

    def benchmark(self, name: str) -> BenchmarkInfo:
        """The command of that name.

        Raises:
            UsageError: there is none; the message has the nearest known name.
        """
        if name not in self._programs:
            near = difflib.get_close_matches(name, list(self._programs), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._programs)}, and the set all."
            raise UsageError(f"There is no [command.{name}]: {hint}")
        return self._programs[name].info

    def require_supported(self, name: str, scenario: str, accuracy: str) -> None:
        """Check that the command has that scenario; an accuracy it does not have.

        Raises:
            UsageError: it has not, or an accuracy was asked for.
        """
        info = self.benchmark(name)
        if scenario not in info.scenarios:
            raise UsageError(
                f"[command.{name}] has no scenario {scenario!r}: choose one of {', '.join(info.scenarios)}, or add it "
                "to its scenarios."
            )
        if accuracy not in info.accuracies:
            raise UsageError(
                f"[command.{name}] has no accuracy {accuracy!r}, as no command has: leave --main-accuracy out."
            )

    def main_exit_timeout_ms(self, main: MainSpec) -> int:
        """A minute, as for LoadGen's programs."""
        del main
        return 60_000

    def preflight(self, spec: RunSpec) -> None:
        """Check that main can be judged, that the evidence asked for can be had, and that the programs are there.

        Raises:
            UsageError: main could never be VALID, or an option is not for programs.
            PreflightError: a program is not installed.
        """
        require_no_make_options(spec)
        if spec.main.mode is not Mode.PERFORMANCE:
            raise UsageError("--main-mode is LoadGen's, and main is a command: write what it needs into its argv.")
        names = dict.fromkeys((spec.main.benchmark, *spec.background.candidates))
        programs = [self._programs[name] for name in names]
        _require_judged(programs[0])
        _require_rate(programs[0], spec.main.target_qps)
        _require_no_rate([self._programs[name] for name in spec.background.candidates])
        if not spec.background.candidates and spec.background.benchmarks != "none":
            raise UsageError(
                f"--background-benchmarks {spec.background.benchmarks} leaves no background: every command is of the "
                f"model {programs[0].spec.model}, which is main's, or has no scenario {spec.background.scenario}. List "
                "commands by name, or say none."
            )
        if spec.start_evidence is not EvidenceLevel.ANNOUNCED:
            _require_logs(programs, spec.start_evidence)
        for program in programs:
            _require_installed(program.spec)
        cwd = programs[0].spec.cwd
        require_prefix(spec.main.cmd_prefix, None if cwd is None else Path(cwd))

    def rate_rules(self, spec: RunSpec) -> RateRules:
        """LoadGen's where main writes its logs, with a limit that main alone knows; else what main is judged by.

        Raises:
            UsageError: its command has no place for a rate.
        """
        main = self._programs[spec.main.benchmark]
        logs = main.spec.loadgen_logs is not None
        if not main.takes_rate and not (logs and spec.main.scenario in _WITHOUT_RATE):
            raise _no_place(main)
        return RateRules(spec.main.scenario) if logs else RateRules(_SEARCHED, verdicts_only=True)

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:
        """None: a command needs no engine."""
        del needs, spec
        return ()

    def prepare(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: what a program needs beside its worker's directory is the user's to provide."""

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        """The command line with its placeholders replaced, behind main's prefix if there is one."""
        program = self._program(assignment)
        values = values_of(assignment, run_dir, spec.main.target_qps if assignment.role is Role.MAIN else None)
        argv = tuple(fill(word, values) for word in program.spec.argv)
        cwd = program.spec.cwd
        return Command(
            argv=(*spec.main.cmd_prefix, *argv) if assignment.role is Role.MAIN else argv,
            env={
                **{name: fill(value, values) for name, value in program.spec.env.items()},
                SLICE_VARIABLE: assignment.slice_uuid,
            },
            cwd=run_dir / assignment.directory if cwd is None else Path(fill(cwd, values)).absolute(),
            clean_stop_signal=program.clean_stop_signal,
        )

    def lines(self, assignment: Assignment) -> tuple[LinePattern, ...]:
        """Its marks. Where LoadGen logs, its log knows better than any line that is printed before it."""
        program = self._program(assignment)
        if program.spec.loadgen_logs is not None:
            return lines_of(None, None)
        return lines_of(program.start, program.end)

    def logs(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> LogPlace | None:
        """The directory that the command names."""
        del spec
        place = self._log_place(assignment, run_dir)
        return None if place is None else LogPlace(place)

    def collect(
        self, assignment: Assignment, spec: RunSpec, run_dir: Path, *, started_utc_ns: UtcNs, exit_code: int | None
    ) -> None:
        """Nothing: what counts as evidence is in the worker's directory already."""

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        """The one that the command promises, there or not.

        Raises:
            EvidenceError: there is no such command.
        """
        place = self._log_place(assignment, run_dir)
        return () if place is None else (place / DETAIL_LOG,)

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        """By LoadGen's VALID where it logs, and by its own output where that is to be judged: both must agree.

        Raises:
            EvidenceError: a log or the output is not there, or cannot be read.
        """
        del spec
        program = self._program(main)
        logs = self.detail_logs(main, run_dir)
        found = [judge_performance(detail, read_detail(detail), main) for detail in logs]
        if program.result is not None:
            found.append(judge_output(run_dir / main.directory / STDOUT_LOG, program, program.result))
        if not found:
            raise EvidenceError(f"[command.{main.benchmark}] says nothing by which its result could be judged.")
        verdicts = [one.valid for one in found]
        return MainResult(
            valid=False if False in verdicts else None if None in verdicts else True,
            complaints=tuple(complaint for one in found for complaint in one.complaints),
            metrics={name: value for one in found for name, value in one.metrics.items()},
        )

    def _program(self, assignment: Assignment) -> Program:
        if assignment.benchmark not in self._programs:
            raise EvidenceError(
                f"The run has a worker {assignment.benchmark!r} and no [command.{assignment.benchmark}]: its journal "
                "was altered."
            )
        return self._programs[assignment.benchmark]

    def _log_place(self, assignment: Assignment, run_dir: Path) -> Path | None:
        place = self._program(assignment).spec.loadgen_logs
        return None if place is None else run_dir / assignment.directory / place


def _require_judged(main: Program) -> None:
    if main.result is None and main.spec.loadgen_logs is None:
        raise UsageError(
            f"[command.{main.spec.name}] has neither `result` nor `loadgen-logs`, so that as main it could never be "
            "VALID: give the pattern of the line that holds its result."
        )


def _require_rate(main: Program, rate_qps: float | None) -> None:
    if main.takes_rate and rate_qps is None:
        raise UsageError(
            f"[command.{main.spec.name}] holds {{{RATE}}}, and no rate was given: say it with --main-target-qps."
        )
    if rate_qps is not None and not main.takes_rate:
        raise _no_place(main)


def _require_no_rate(backgrounds: list[Program]) -> None:
    for program in backgrounds:
        if program.takes_rate:
            raise UsageError(
                f"[command.{program.spec.name}] is a background and holds {{{RATE}}}, which main alone has: write a "
                "number there, or leave it out of the backgrounds."
            )


def _no_place(main: Program) -> UsageError:
    return UsageError(
        f"[command.{main.spec.name}] has no place for a rate: write {{{RATE}}} into its argv or env, where it is to "
        "stand."
    )


def _require_logs(programs: list[Program], level: EvidenceLevel) -> None:
    silent = [program.spec.name for program in programs if program.spec.loadgen_logs is None]
    if silent:
        raise UsageError(
            f"--start-evidence {level.value} is what LoadGen's logs show, and there are none of {', '.join(silent)}: "
            "leave it out, or say announced."
        )


def _require_installed(spec: CommandSpec) -> None:
    """Check that the program can be found where it will be looked for, as far as that is known before it runs."""
    where = f"[command.{spec.name}]"
    if spec.cwd is not None and not is_plain(spec.cwd):
        return
    if spec.cwd is not None and not Path(spec.cwd).is_dir():
        raise PreflightError(f"The working directory {spec.cwd} of {where} is not there: make it, or name another.")
    program = sys.executable if spec.argv[0] == f"{{{PYTHON}}}" else spec.argv[0]
    if not is_plain(program):
        return
    if "/" not in program:
        there = shutil.which(program, path=spec.env.get("PATH")) is not None
    elif Path(program).is_absolute() or spec.cwd is not None:
        path = Path(spec.cwd or "/", program)
        there = path.is_file() and os.access(path, os.X_OK)
    else:
        raise UsageError(
            f"{where} runs {program} in its worker's own directory, which is empty: write its whole path, or say where "
            'to start it, as in cwd = "." for the directory in which heteromig is started.'
        )
    if not there:
        raise PreflightError(
            f"The program {program} of {where} is not there or cannot be executed: install it, or correct its argv."
        )
