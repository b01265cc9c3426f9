"""Whole runs on slices of the stand-in library: fixtures, and what can befall the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.product import RunCommand
from tests.nvml_library.fixtures import MakeState, environment
from tests.nvml_library.state import State

ORDINARY = Path(__file__).parents[1] / "e2e" / "ordinary.py"

PROGRAMS = rf"""
[command.measured]
argv = ["{{python}}", "{ORDINARY}", "measuring", "{{duration_s}}"]
start = "^start$"
end = "end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$'

[command.beside]
argv = ["{{python}}", "{ORDINARY}", "steady"]
start = "start"
"""

LONG = ("--main-benchmark-duration", "60s")

Run = Callable[..., RunCommand]


@pytest.fixture
def machine(make_state: MakeState, request: pytest.FixtureRequest) -> State:
    """Two GPUs, of which runs take the first; or the one that a test names."""
    return make_state(*getattr(request, "param", "a30/4x1g.6gb a30/4x1g.6gb").split())


@pytest.fixture
def run(tmp_path: Path, library_dir: Path, machine: State) -> Iterator[Run]:
    """Start `heteromig run --slices mig` with two ordinary programs."""
    started: list[RunCommand] = []
    (tmp_path / "programs.toml").write_text(PROGRAMS)

    def start(*flags: str, library: Path = library_dir) -> RunCommand:
        argv = (
            *("run", "--config", "programs.toml", "--slices", "mig", "--runs-dir", "runs", "--sample-period", "100ms"),
            *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s", "--background-benchmarks", "beside"),
            *("--main-benchmark-duration", "700ms", *flags),
        )
        environ = environment(library, machine)
        started.append(RunCommand(tmp_path, argv, environ=environ, module="heteromig", name=f"run{len(started)}"))
        return started[-1]

    yield start
    for command in started:
        command.close()


@contextmanager
def stranger(slice_uuid: str) -> Iterator[int]:
    """A process of somebody else that has this slice as its device."""
    process = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"),
        env={"CUDA_VISIBLE_DEVICES": slice_uuid},
        stdin=subprocess.PIPE,
    )
    try:
        yield process.pid
    finally:
        process.communicate()
