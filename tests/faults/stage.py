"""Playing one cell: a real run, held in its phase, the fault, the end, and what is seen then."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.errors import HeteromigError
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.journal import Heard, JournalText, read_journal
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.verification import verify_run
from heteromig.slices.locks import holder_of, lock_directory
from heteromig.slices.mps.journal import RUN_JOURNAL
from heteromig.slices.mps.journal import read_journal as read_share_journal
from heteromig.slices.source import parse_slices
from tests.e2e import quick  # noqa: F401 - so that `verify` in this process knows that harness
from tests.e2e.deeds import CUE
from tests.e2e.product import BOARD, REPOSITORY, RunCommand, processes_with, until
from tests.faults.cells import Cell, Expected, Kind
from tests.faults.preload import SettableClock
from tests.faults.terminals import Terminal
from tests.mps import conftest as mps
from tests.mps import daemon
from tests.nvml_library import runs as mig
from tests.nvml_library.fixtures import environment
from tests.nvml_library.state import State

INTERNAL_ERROR = 1
"""What a run exits with when it could not say how it came out; `run.json` says so all the same."""
LEFT_S = 5.0
"""By then nothing is left of a run that is over."""

BASE = ("--runs-dir", "runs", "--start-time-buffer", "0", "--clean-stop", "2s", "--grace", "2s")
LONG = ("--main-benchmark-duration", "60s")
FLAGS = {
    Kind.QUICK: ("--slices", BOARD, "--harness", "quick", "--background-benchmarks", "dlrm"),
    Kind.LOADGEN: ("--slices", BOARD, "--harness", "loadgen", "--background-benchmarks", "dlrm"),
    Kind.MIG: ("--slices", "mig", "--config", "programs.toml", "--background-benchmarks", "beside"),
    Kind.MPS: ("--slices", "mps:3x14", "--config", "programs.toml", "--background-benchmarks", "steady"),
}
SHORT = {
    Kind.LOADGEN: ("--main-benchmark-duration", "700ms"),
    Kind.QUICK: ("--main-benchmark-duration", "700ms"),
    Kind.MIG: ("--main-benchmark-duration", "700ms", "--sample-period", "100ms"),
    Kind.MPS: ("--main-benchmark-duration", "500ms", "--sample-period", "100ms"),
}
MACHINE = {Kind.MIG: ("a30/4x1g.6gb", "a30/4x1g.6gb"), Kind.MPS: ("h100-sxm-80gb",)}
WHOLE = ["1g.6gb"] * 4
"""How the simulated board is cut before and after every run."""


class Hold(Struct, frozen=True):
    """How a run is kept in a phase until the fault strikes, and how to tell that it is there."""

    reached: Callable[[Stage], object]
    flags: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}
    before: Callable[[Stage], None] | None = None


def _main_is_timed(stage: Stage) -> None:
    if stage.cell.kind is Kind.QUICK:
        stage.run.wait_for(ev.TimedSectionBegan, 0)
    else:
        stage.run.wait_for(ev.StartAnnounced, 0)


HOLDS = {
    Phase.DISCOVERING: Hold(
        lambda stage: stage.run.wait_for(ev.SlicesDiscovered),
        flags=("--sim-faults", "hang.json"),
        before=lambda stage: stage.write("hang.json", '{"hang_s": 4}'),
    ),
    Phase.BUILDING: Hold(
        lambda stage: stage.run.wait_for(ev.WorkerSpawned),
        environ={"QUICK_BUILD": "wait for TERM at marker"},
    ),
    Phase.BACKGROUND_STARTING: Hold(
        lambda stage: stage.run.wait_for(ev.StartAnnounced, 1),
        environ={"QUICK_BACKGROUND": "wait for TERM at marker"},
    ),
    Phase.BUFFERING: Hold(
        lambda stage: stage.run.wait_for_phase(Phase.BUFFERING),
        flags=("--start-time-buffer", "60s"),
    ),
    Phase.MAIN_RUNNING: Hold(_main_is_timed, flags=LONG),
    Phase.DRAINING: Hold(lambda stage: stage.run.wait_for_phase(Phase.DRAINING), flags=("--drain", "wait")),
    Phase.VALIDATING: Hold(
        lambda stage: stage.run.wait_for_phase(Phase.VALIDATING),
        environ={"QUICK_JUDGING": "judge"},
    ),
}


class Seen(Struct, frozen=True):
    """What a cell came to."""

    exit_code: int
    status: str | None
    says: str
    verify: int
    left: tuple[str, ...]
    detected_s: float | None
    gone_s: float


class Result(Struct, frozen=True):
    """One line of the results of the matrix."""

    name: str
    seen: Seen
    passed: bool


class Stage:
    """What a fault has to do with."""

    def __init__(self, cell: Cell, library: Callable[[], Path], engines: Callable[[], Path]) -> None:
        """`library` makes the stand-in for NVML, `engines` those of the embedded benchmarks."""
        self.cell = cell
        self.home = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
        self.home.chmod(0o755)
        self.scratch = self.home / "scratch"
        self.scratch.mkdir(mode=0o777)
        self.scratch.chmod(0o777)
        self.machine: State
        self.run: RunCommand
        self.terminal: Terminal | None = None
        self.stdout: int | None = None
        self.launcher: tuple[str, ...] = ()
        """Options of `launcher.py`, for runs that are started in a special way."""
        self.runs = self.home / "runs"
        """Where runs are to be found, which may be inside of another namespace."""
        self.clock: SettableClock | None = None
        self.helpers: set[int] = set()
        """Processes of a fault that carry the run's mark and are none of its."""
        self.environ: dict[str, str] = {}
        self.beside: RunCommand | None = None
        self.engines = self.home / "engines"
        self._library = library
        self._engines = engines
        self._started: list[RunCommand] = []
        self._resources = contextlib.ExitStack()
        self._struck_ns: int | None = None
        self._over_ns = 0
        self.expects_killed = any(expected.exit_code == -signal.SIGKILL for expected in cell.expected)

    # --- for faults ---------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Replace a file in the run's working directory in one step."""
        fresh = self.home / f"{name}.new"
        fresh.write_text(text)
        fresh.replace(self.home / name)

    def cue(self) -> None:
        """Tell the worker to do what it is there for; it says itself when it does."""
        (self.home / "now").touch()
        until((self.home / "now.struck").exists, "the worker has heard its cue")

    def struck(self) -> None:
        """The fault is there from now on; without this it is when `strike` begins."""
        self._struck_ns = time.monotonic_ns()

    def keep(self, what: contextlib.AbstractContextManager[object]) -> object:
        """Enter `what`, and leave it when the run is over."""
        return self._resources.enter_context(what)

    def let_go(self) -> None:
        """Leave everything that was entered."""
        self._resources.close()

    def start(self, *more: str) -> RunCommand:
        """Start a run like the one of the cell, on the same machine."""
        act, kind = self.cell.act, self.cell.kind
        hold = HOLDS[self.cell.phase] if act.strike is not None else None
        environ = {CUE: str(self.home / "now"), "TMPDIR": str(self.scratch), **self.environ}
        for habits in (hold.environ if hold else {}, act.environ):
            for name, habit in habits.items():
                environ[name] = f"{environ[name]} + {habit}" if name in environ and habit else habit
        module = "tests.e2e.quick" if kind is Kind.QUICK else "heteromig"
        argv = ("run", *self.flags(), *more)
        if self.launcher:
            module, argv = "tests.faults.launcher", (*self.launcher, "--", module, *argv)
        cls = mps.SharedRun if kind is Kind.MPS else RunCommand
        name = f"run{len(self._started)}"
        started = cls(self.home, argv, environ=environ, module=module, name=name, runs=self.runs, stdout=self.stdout)
        if self.stdout is not None:
            os.close(self.stdout)
            self.stdout = None
        self._started.append(started)
        return started

    def flags(self) -> tuple[str, ...]:
        """Of the cell's run."""
        act, kind = self.cell.act, self.cell.kind
        hold = HOLDS[self.cell.phase] if act.strike is not None else None
        engines = ("--engines-dir", str(self.engines)) if kind is Kind.LOADGEN else ()
        return (*FLAGS[kind], *BASE, *SHORT[kind], *engines, *(hold.flags if hold else ()), *act.flags)

    # --- the play -----------------------------------------------------------------------------------------------------

    def play(self) -> Seen:
        """All of it."""
        act = self.cell.act
        self._set_up()
        hold = HOLDS[self.cell.phase] if act.strike is not None else None
        if hold is not None and hold.before is not None:
            hold.before(self)
        if act.before is not None:
            act.before(self)
        self.run = self.start()
        if hold is not None and act.strike is not None:
            hold.reached(self)
            self.struck()
            act.strike(self)
        exit_code = self._wait()
        if act.after is not None:
            act.after(self)
        return self._look(exit_code)

    def close(self) -> None:
        """Leave nothing, whatever happened."""
        self._resources.close()
        for started in (*self._started, *([self.beside] if self.beside else [])):
            started.close()
        for pid in processes_with(str(self.home)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "machine"):
            self.machine.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def _set_up(self) -> None:
        kind = self.cell.kind
        if kind is Kind.QUICK:
            return
        if kind is Kind.LOADGEN:
            shutil.copytree(self._engines(), self.engines)
            return
        self.machine = State.create(self.home / "machine", *MACHINE[kind])
        self.environ.update(environment(self._library(), self.machine))
        programs = mig.PROGRAMS
        if kind is Kind.MPS:
            programs = mps.PROGRAMS.replace("HOME", str(self.home))
            daemon.install(self.home / "bin")
            self.environ["PATH"] = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.write("programs.toml", programs)

    def _wait(self) -> int:
        until(lambda: self.run.process.poll() is not None, "the end of the run")
        self._over_ns = time.monotonic_ns()
        return int(self.run.process.returncode)

    def _look(self, exit_code: int) -> Seen:
        struck_ns = self._when_it_struck()
        left = _poll_left(self, self._over_ns)
        gone_ns = time.monotonic_ns()
        status, says = self._verdict(exit_code)
        detected_ns = self._detected_ns(struck_ns, status, exit_code)
        return Seen(
            exit_code=exit_code,
            status=status,
            says=says,
            verify=self._verify(),
            left=left,
            detected_s=None if detected_ns is None or struck_ns is None else (detected_ns - struck_ns) / 1e9,
            gone_s=(gone_ns - (struck_ns if exit_code == -signal.SIGKILL and struck_ns else self._over_ns)) / 1e9,
        )

    def _when_it_struck(self) -> int | None:
        written = self.home / "now.struck"
        if written.exists():
            return int(written.read_text())
        return self._struck_ns

    @property
    def run_dir(self) -> Path | None:
        """That of the cell's run, where there is one."""
        return min(self.runs.glob("2*"), default=None)

    def _verdict(self, exit_code: int) -> tuple[str | None, str]:
        """The status, and the reasons, or what was said where there is no verdict."""
        said = self.run.said
        assert "Traceback" not in said, said
        try:
            raw = (self.run_dir / RUN_JSON).read_bytes() if self.run_dir else b""
        except OSError:
            raw = b""
        record = msgspec.json.decode(raw, type=RunRecord) if raw else None
        if record is None or record.verdict is None:
            complaints = [line for line in said.splitlines() if line.startswith("heteromig: ")]
            return None, " ".join(complaints)
        assert record.phase == Phase.FINISHED.value
        if exit_code != INTERNAL_ERROR:
            assert record.verdict.exit_code == exit_code, "run.json and the exit code differ"
        return record.verdict.status, " ".join(reason.sentence for reason in record.verdict.reasons)

    def _verify(self) -> int:
        run_dir = self.run_dir
        if run_dir is None:
            return 2
        try:
            return verify_run(run_dir).verdict.exit_code
        except HeteromigError as error:
            return error.exit_code

    def _detected_ns(self, struck_ns: int | None, status: str | None, exit_code: int) -> int | None:
        """When the run was told to end for it, or ended; None where there was nothing to tell."""
        if status == "valid" or struck_ns is None or exit_code == -signal.SIGKILL:
            return None
        try:
            journal = read_journal(self.run_dir) if self.run_dir else None
        except HeteromigError:
            journal = None
        told = [] if journal is None else [at_ns for at_ns in _transitions(journal) if at_ns >= struck_ns]
        return told[0] if told else self._over_ns


def _transitions(journal: JournalText) -> Iterator[int]:
    """When the run went to draining."""
    at_ns = 0
    for line in journal.lines:
        if isinstance(line, Heard):
            at_ns = line.event.at_ns
        elif isinstance(line.effect, ef.RecordTransition) and line.effect.destination is Phase.DRAINING:
            yield at_ns


# --- what is left -----------------------------------------------------------------------------------------------------

_OF_A_RUNS_DIRECTORY = {"latest", ".locks", ".engines", ".simulated"}
_OF_A_RUN = {
    "certificate.json",
    "events.jsonl",
    "plan.toml",
    "processes.jsonl",
    "run.json",
    "report.html",
    "sampler.log",
    "keeper.log",
    "telemetry.jsonl",
    "layout.json",
    "mps",
    "mps.json",
    "workers",
}
_OF_A_KILLED_RUN = {".run.json.new"}
"""What a controller that is killed in the midst of it may leave half written."""


def _poll_left(stage: Stage, over_ns: int) -> tuple[str, ...]:
    """What is left `LEFT_S` after the end of the run, or sooner if there is nothing."""
    while True:
        left = tuple(_left(stage))
        if not left or time.monotonic_ns() - over_ns > LEFT_S * 1e9:
            return left
        time.sleep(0.01)


def _left(stage: Stage) -> Iterator[str]:
    for pid, command in processes_with(str(stage.home)).items():
        if pid not in stage.helpers:
            yield f"process {pid}: {command}"
    for path in stage.scratch.iterdir():
        yield f"temporary file {path}"
    for place in (Path("/tmp"), Path("/dev/shm")):  # noqa: S108 - looked into, not written to
        for path in place.glob(f"*{stage.home.name}*"):
            if path != stage.home:
                yield f"temporary file {path}"
    yield from _left_in_runs(stage)
    yield from _locks(stage)
    yield from _cut(stage)
    if stage.cell.kind is Kind.MPS:
        yield from _daemon(stage)


def _left_in_runs(stage: Stage) -> Iterator[str]:
    if not stage.runs.exists():
        return
    for path in stage.runs.iterdir():
        if path.name.startswith("2"):
            allowed = _OF_A_RUN | (_OF_A_KILLED_RUN if stage.expects_killed else set())
            if path.is_dir():
                yield from (f"file {one}" for one in path.iterdir() if one.name not in allowed)
                yield from (f"file {one}" for one in path.glob("workers/*/.*"))
        elif path.name not in _OF_A_RUNS_DIRECTORY:
            yield f"file {path}"


def _locks(stage: Stage) -> Iterator[str]:
    for path in stage.runs.glob(".locks/*.lock"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield f"lock {path}"
    if stage.cell.kind in MACHINE:
        directory = lock_directory(parse_slices("mig"), stage.runs)
        for gpu in range(len(MACHINE[stage.cell.kind])):
            if holder_of(stage.machine.gpu_uuid(gpu), directory) is not None:
                yield f"lock of {stage.machine.gpu_uuid(gpu)}"


def _cut(stage: Stage) -> Iterator[str]:
    if stage.cell.kind is Kind.QUICK:
        for path in stage.runs.glob(".simulated/*.json"):
            profiles = [one["profile"] for one in json.loads(path.read_bytes())["instances"]]
            if profiles != WHOLE:
                yield f"layout {profiles}"


def _daemon(stage: Stage) -> Iterator[str]:
    path = None if stage.run_dir is None else stage.run_dir / RUN_JOURNAL
    journal = None if path is None else read_share_journal(path)
    if journal is not None:
        if not journal.ended:
            yield "MPS daemon that is not written down as ended"
        if Path(journal.directory).exists():
            yield f"temporary directory {journal.directory}"
        for pid, command in processes_with(journal.directory).items():
            yield f"process {pid}: {command}"


def agrees(expected: Expected, seen: Seen) -> bool:
    """Whether that is one of the ways to come out."""
    return (
        (expected.exit_code, expected.status, expected.verified) == (seen.exit_code, seen.status, seen.verify)
        and all(words in seen.says for words in expected.says)
        and not seen.left
    )


__all__ = ["HOLDS", "REPOSITORY", "Hold", "Result", "Seen", "Stage", "agrees"]
