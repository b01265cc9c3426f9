"""heteromig as its users meet it: a child process with arguments, files, an exit code, and processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jsonschema
import msgspec
from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.journal import JOURNAL, read_journal
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.schemas import schema_file

DEADLINE_S = 90.0
"""Far more than anything here takes, even on a machine that is busy with something else."""

REPOSITORY = Path(__file__).parents[2]
BOARD = "sim:a30/4x1g.6gb"

_SCHEMA = msgspec.json.decode(schema_file("run").read_bytes())


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds, and fail when it does not within `DEADLINE_S`."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.01)


def processes_with(text: str) -> dict[int, str]:
    """Live processes with `text` in their command line or environment, by pid."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            everything = command + b"\0" + (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in everything and int(process.name) != os.getpid():
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


class Finished(Struct, frozen=True):
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str


_E = TypeVar("_E", bound=ev.Event)


class Command:
    """One `heteromig ...` child; everything below it can be found by the path of `home`."""

    def __init__(
        self,
        home: Path,
        argv: tuple[str, ...],
        *,
        environ: Mapping[str, str],
        module: str,
        name: str = "command",
        stdout: int | None = None,
        cwd: Path | None = None,
        runs: Path | None = None,
    ) -> None:
        """`stdout` is a descriptor for its standard output, where that is not to be a file.

        `cwd` is `home` or this. `runs` is where the run directory is to be found, if not below `home`.
        """
        self.home = home
        self._runs = runs or home / "runs"
        self._out, self._err = home / f"{name}.out", home / f"{name}.err"
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("HETEROMIG_", "QUICK_"))}
        # Workers get nothing of our environment but PYTHONPATH, which is how all of them can be told from others.
        path = f"{REPOSITORY}{os.pathsep}{home / 'mark'}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                (sys.executable, "-m", module, *argv),
                cwd=cwd or home,
                env={**ours, "PYTHONPATH": path, "HETEROMIG_REPORT": "false", **environ},
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self._err.read_text(encoding="utf-8")

    def finish(self) -> Finished:
        """Wait for its end."""
        exit_code = self.process.wait(DEADLINE_S)
        return Finished(exit_code, self._out.read_text(encoding="utf-8"), self.said)

    def close(self) -> None:
        """End it and all that it started, if a test failed in between."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class RunCommand(Command):
    """One `heteromig run` or `build` child with a runs directory of its own."""

    @property
    def runs(self) -> Path:
        """Where its run directory is."""
        return self._runs

    @property
    def run_dir(self) -> Path:
        """The newest run directory, which is waited for."""
        until(lambda: sorted(self.runs.glob("2*/events.jsonl")) or self.process.poll() is not None, "a run directory")
        return max(self.runs.glob("2*"), key=lambda path: path.stat().st_ctime_ns)

    def heard(self, kind: type[_E]) -> Iterator[_E]:
        """Events of a kind in the journal so far."""
        journal = self.run_dir / JOURNAL
        until(lambda: journal.stat().st_size or self.process.poll() is not None, "a header in the journal")
        return (event for event in read_journal(self.run_dir).events if isinstance(event, kind))

    def wait_for(self, kind: type[_E], worker: int | None = None) -> _E:
        """Wait for the first event of a kind, of that worker if one is given."""
        found: list[_E] = []

        def look() -> bool:
            over = self.process.poll() is not None
            found.extend(
                event for event in self.heard(kind) if worker is None or getattr(event, "worker", -1) == worker
            )
            assert found or not over, f"no {kind.__name__} before the run ended:\n{self.said}"
            return bool(found)

        until(look, f"{kind.__name__} of worker {worker}")
        return found[0]

    def wait_for_phase(self, phase: Phase) -> None:
        """Wait until the run is in that phase."""
        line = f'"destination":"{phase.value}"'.encode()

        def look() -> bool:
            over = self.process.poll() is not None
            there = line in (self.run_dir / JOURNAL).read_bytes()
            assert there or not over, f"the run never was {phase.value}:\n{self.said}"
            return there

        until(look, f"phase {phase.value}")

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill_worker(self, worker: int, *, guardian: bool = False, signum: int = signal.SIGKILL) -> None:
        """KILL the harness of a worker, or its guardian."""
        spawned = self.wait_for(ev.WorkerSpawned, worker)
        os.kill(spawned.guardian_pid if guardian else spawned.pid, signum)

    def record(self) -> RunRecord:
        """`run.json`, checked against the schema that the package ships."""
        raw = (self.run_dir / RUN_JSON).read_bytes()
        jsonschema.validate(msgspec.json.decode(raw), _SCHEMA)
        return msgspec.json.decode(raw, type=RunRecord)

    def expect(self, exit_code: int, *words: str) -> RunRecord:
        """Wait for its end: with that exit code, those words in its reasons, and nothing left running."""
        finished = self.finish()
        assert finished.exit_code == exit_code, f"{finished.exit_code}\n{finished.stdout}\n{finished.stderr}"
        assert processes_with(str(self.home)) == {}
        assert "Traceback" not in finished.stderr
        record = self.record()
        assert record.phase == Phase.FINISHED.value
        assert record.verdict is not None
        assert record.verdict.exit_code == exit_code
        text = " ".join(reason.sentence for reason in record.verdict.reasons)
        for word in words:
            assert word in text, text
        return record
