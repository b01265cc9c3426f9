from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from heteromig.benchmarks import engines
from heteromig.benchmarks.engines import EngineStatus, inspect_engine
from heteromig.benchmarks.runtimes import Device
from tests.benchmarks.program import DEADLINE_S, PROFILE, build, started, what

if TYPE_CHECKING:
    from pathlib import Path


def status(path: Path) -> EngineStatus:
    return inspect_engine(path, benchmark="dlrm", scenario="offline", accuracy="99", profile=PROFILE).status


def test_a_build_says_so_and_leaves_one_engine(tmp_path: Path) -> None:
    done = build("dlrm", "offline", "99", tmp_path / "cache" / "engine")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "Building engines for dlrm benchmark in Offline scenario...",
        "Finished building engines for dlrm benchmark in Offline scenario.",
    ]
    assert done.stderr == ""
    assert status(tmp_path / "cache" / "engine") is EngineStatus.OK
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == ["engine"]


def test_an_engine_in_any_condition_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / engines.ENGINES[Device.CPU]).write_text("half an engine")
    assert status(tmp_path / "engine") is EngineStatus.CORRUPT
    assert build("dlrm", "offline", "99", tmp_path / "engine").returncode == 0
    assert status(tmp_path / "engine") is EngineStatus.OK


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_build_leaves_nothing_that_the_next_trips_over(tmp_path: Path, signum: int) -> None:
    with started("build", *what("dlrm", "offline", "99"), "--output", tmp_path / "engine") as program:
        give_up_s = time.monotonic() + DEADLINE_S
        while not list(tmp_path.glob(".engine.*.building")):
            assert time.monotonic() < give_up_s
            time.sleep(0.005)
        program.signal(signum)
        assert program.end() == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert not (tmp_path / "engine").exists()
    if signum != signal.SIGKILL:
        assert not list(tmp_path.glob(".engine.*.building"))
    assert build("dlrm", "offline", "99", tmp_path / "engine").returncode == 0
    assert status(tmp_path / "engine") is EngineStatus.OK
    assert not list(tmp_path.glob(".engine.*.building"))


def test_what_is_no_engine_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    done = build("dlrm", "offline", "99", tmp_path / "precious")
    assert done.returncode == 2
    assert "is no engine directory (it holds 'thesis.tex')" in done.stderr
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "years of work"


def test_a_destination_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = build("dlrm", "offline", "99", tmp_path / "file" / "engine")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
