"""Controllers as processes of their own: started, waited for, looked at from outside."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from heteromig.core import effects as ef
from heteromig.core.phases import Phase
from heteromig.core.record import VerdictRecord
from heteromig.runner.journal import Asked, JournalText, read_journal
from heteromig.workers.worker import ExitRecord
from tests.bench.standin import MARK, Scenario

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
"""Far more than anything here takes, even on a machine that is busy with something else."""


class MeasuringFailedError(Exception):
    """Nothing was measured, because what was to be measured went wrong."""


class _Judged(msgspec.Struct):
    """As much of `run.json` as tells why."""

    verdict: VerdictRecord | None


class Launched:
    """One run of `controller.py`; to be closed."""

    def __init__(self, scenario: Scenario, *, stderr: int = subprocess.DEVNULL, term: str = "dumb") -> None:
        self.scenario = scenario
        environ = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR"}}
        self.process = subprocess.Popen(
            (sys.executable, "-m", "tests.bench.controller", msgspec.json.encode(scenario).decode()),
            cwd=ROOT,
            env={**environ, "TERM": term, MARK: scenario.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self.process.pid)

    def close(self) -> None:
        """End whatever is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._pidfd)
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def run_dir(self) -> Path:
        """The directory of the run, once there is one."""
        return (Path(self.scenario.runs_dir) / "latest").resolve()

    @property
    def journal(self) -> JournalText:
        """What the run wrote so far."""
        return read_journal(self.run_dir)

    @property
    def main_dir(self) -> Path:
        """Main's directory, once there is one."""
        return self.run_dir / "workers" / "0-main-standin-a"

    def wait_for_main(self) -> None:
        """Wait until main is in its timed section."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not (self.main_dir / "begun").exists():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise MeasuringFailedError(f"main did not begin in {self.run_dir}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        ready, _, _ = select.select([self._pidfd], [], [], DEADLINE_S)
        if not ready:
            raise MeasuringFailedError(f"the run in {self.run_dir} did not end")
        return self.process.wait()

    def expect(self, exit_code: int) -> None:
        """Wait for the end, which must be this one."""
        code = self.wait()
        if code != exit_code:
            record = (self.run_dir / "run.json").read_bytes()
            reasons = msgspec.json.decode(record, type=_Judged).verdict
            raise MeasuringFailedError(f"the run ended with {code} instead of {exit_code}: {reasons}")

    def alive(self) -> list[int]:
        """Processes of this scenario that live, the controller included."""
        return marked(f"{MARK}={self.scenario.mark}")


def marked(entry: str) -> list[int]:
    """Live processes other than this one with `entry` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Zombies and kernel threads have an empty environment.
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if entry.encode() in environment.split(b"\0"):
            found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


def new_mark() -> str:
    """A name that no other process has in its environment."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A directory for runs that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="heteromig-bench-") as name:
        yield name


def entered_utc_ns(journal: JournalText, phase: Phase) -> int:
    """When the fact that led to `phase` was heard, on the wall clock."""
    at_ns = 0
    for line in journal.lines:
        if isinstance(line, Asked):
            if isinstance(line.effect, ef.RecordTransition) and line.effect.destination is phase:
                return journal.header.utc_ns(at_ns)
        else:
            at_ns = line.event.at_ns
    raise MeasuringFailedError(f"the run {journal.header.run_id} never was in {phase.value}")


def read_exit(directory: Path) -> ExitRecord:
    """`exit.json` of a worker."""
    return msgspec.json.decode((directory / "exit.json").read_bytes(), type=ExitRecord)


def cpu_s(pid: int) -> float:
    """Processor time of another process so far, to the nanosecond: clock_getcpuclockid(3) as glibc computes it."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9
