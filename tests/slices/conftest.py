from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from heteromig.core.devices import Inventory
from heteromig.slices.discovery import take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library
from heteromig.slices.source import SliceSource, parse_slices

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start real processes, by default ones that only sleep; they are killed when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        argv: Sequence[str] = ("sleep", "600"), *, visible: str | None = None, **options: object
    ) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        if visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = visible
        process: subprocess.Popen[bytes] = subprocess.Popen(argv, env=env, **options)  # type: ignore[call-overload]  # passed on
        started.append(process)
        # Popen returns while the kernel is still about to write down the command and the environment.
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes() and os.waitid(os.P_PID, process.pid, ended) is None:
            pass
        return process

    yield start
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


@pytest.fixture
def a30() -> SliceSource:
    return parse_slices("sim:a30")


@pytest.fixture
def two() -> SliceSource:
    """Two boards, cut differently: two slices on the first, four on the second."""
    return parse_slices("sim:a30/2x2g.12gb;a30")


@pytest.fixture
def library(a30: SliceSource, tmp_path: Path) -> Library:
    """A simulated A30 with four slices."""
    return open_library(a30, tmp_path)


@pytest.fixture
def inventory(library: Library, a30: SliceSource) -> Inventory:
    return take_inventory(library, a30)
