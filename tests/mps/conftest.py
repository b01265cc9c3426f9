from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heteromig.slices.mps.journal import RUN_JOURNAL, ShareJournal, read_journal
from tests.e2e.product import RunCommand, processes_with, until
from tests.mps import daemon
from tests.nvml_library.fixtures import MakeState, build_library, environment, library_dir, make_state
from tests.nvml_library.state import State

__all__ = ["build_library", "library_dir", "make_state"]

CLIENT = Path(__file__).parent / "client.py"

PROGRAMS = rf"""
[command.measured]
argv = ["{{python}}", "{CLIENT}", "measuring", "{{duration_s}}"]
start = "^start$"
end = "^end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$'

[command.steady]
argv = ["{{python}}", "{CLIENT}", "steady"]
start = "^start$"

[command.stubborn]
argv = ["{{python}}", "{CLIENT}", "stubborn"]
start = "^start$"

[command.deaf]
argv = ["{{python}}", "{CLIENT}", "deaf"]
start = "^start$"

[command.crashing]
argv = ["{{python}}", "{CLIENT}", "crashing", "HOME/now"]
start = "^start$"

[command.shelled]
argv = ["{{python}}", "{CLIENT}", "shelled", "HOME/now"]
start = "^start$"
"""

Run = Callable[..., "SharedRun"]


class SharedRun(RunCommand):
    """One run on shares of a GPU."""

    @property
    def journal(self) -> ShareJournal:
        """What is written down of its daemon, once its server is up."""
        found: list[ShareJournal] = []

        def look() -> bool:
            journal = read_journal(self.run_dir / RUN_JOURNAL)
            if journal is not None and journal.processes:
                found.append(journal)
            assert found or self.process.poll() is None, self.said
            return bool(found)

        until(look, "the daemon is written down")
        return found[-1]

    @property
    def daemon(self) -> int:
        """Its pid."""
        return self.journal.processes[0].pid

    @property
    def server(self) -> int:
        """Its pid."""
        return self.journal.processes[1].pid


def nothing_left(run: SharedRun) -> None:
    """No daemon, no server, no directory, and nobody who holds the GPU."""
    journal = read_journal(run.run_dir / RUN_JOURNAL)
    assert journal is not None
    assert journal.ended
    assert not Path(journal.directory).exists()
    assert processes_with(journal.directory) == {}
    assert processes_with(str(run.home)) == {}


@pytest.fixture
def machine(make_state: MakeState) -> State:
    """A GPU that is not cut."""
    return make_state("h100-sxm-80gb")


@pytest.fixture
def environ(tmp_path: Path, library_dir: Path, machine: State) -> dict[str, str]:
    """What a process must be started with to find the stand-ins."""
    daemon.install(tmp_path / "bin")
    return {**environment(library_dir, machine), "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def run(tmp_path: Path, environ: dict[str, str]) -> Iterator[Run]:
    """Start `heteromig run --slices mps:3x14` with programs that are clients of the daemon."""
    started: list[SharedRun] = []
    (tmp_path / "programs.toml").write_text(PROGRAMS.replace("HOME", str(tmp_path)))

    def start(*flags: str, slices: str = "mps:3x14", backgrounds: str = "steady", **more: str) -> SharedRun:
        argv = (
            *("run", "--config", "programs.toml", "--slices", slices, "--runs-dir", "runs", "--sample-period", "100ms"),
            *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s"),
            *("--background-benchmarks", backgrounds, "--main-benchmark-duration", "500ms", *flags),
        )
        started.append(
            SharedRun(tmp_path, argv, environ={**environ, **more}, module="heteromig", name=f"run{len(started)}")
        )
        return started[-1]

    yield start
    for command in started:
        command.close()
