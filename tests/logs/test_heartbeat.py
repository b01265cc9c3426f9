"""Heartbeats out of an output that can be anything."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from heteromig.core.errors import EvidenceError
from heteromig.core.events import ProgressMade
from heteromig.logs import heartbeat
from heteromig.logs.harness import HarnessLog
from heteromig.logs.heartbeat import read_progress

S = 1_000_000_000
MIB = 1 << 20


def beat(completed: int, at_s: float) -> bytes:
    return b"heartbeat: completed=%d samples_per_second=10.5 monotonic_s=%.3f\n" % (completed, at_s)


def progress(path: Path, text: bytes) -> list[float]:
    path.write_bytes(text)
    return [at_ns / S for at_ns in read_progress(path)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def test_each_heartbeat_that_tells_of_more(log: Path) -> None:
    text = beat(0, 1) + beat(5, 2) + b"something else\n" + beat(5, 3) + beat(9, 4.25)
    assert progress(log, text) == [2, 4.25]


def test_a_program_that_counts_anew_has_completed_more(log: Path) -> None:
    assert progress(log, beat(50, 1) + beat(0, 2) + beat(3, 3)) == [1, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"heartbeat: completed=5 samples_per_second=2.5\n",
        b"heartbeat: completed=5 samples_per_second=2.5 monotonic_s=nan\n",
        b"heartbeat: completed=5 samples_per_second=2.5 monotonic_s=-1.0\n",
        b"heartbeat: completed=5 samples_per_second=2.5 monotonic_s=1.5 and more\n",
        b"heartbeat: completed=5 samples_per_second=2.5 monotonic_s=1.5",
        b"heartbeat: completed=" + 100 * b"9" + b" samples_per_second=1 monotonic_s=1.5\n",
        b"xheartbeat: completed=5 samples_per_second=2.5 monotonic_s=1.5\n",
        b"heartbeat: \0completed=5\xff\n",
    ],
)
def test_lines_that_are_no_stamped_heartbeat(log: Path, line: bytes) -> None:
    assert progress(log, line) == []
    assert progress(log, line + b"|\n" + beat(7, 3)) == [3]


def test_what_is_no_text_is_no_trouble(log: Path) -> None:
    rubbish = os.urandom(3 * MIB) + 1000 * b"\0"
    assert progress(log, rubbish + b"\n" + beat(1, 1) + rubbish + b"\r\n" + beat(2, 2)) == [1, 2]


def test_heartbeats_are_found_wherever_a_block_ends(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_BLOCK_BYTES", 17)
    text = b"".join(b"noise %d\n" % number + beat(number, number) for number in range(1, 50))
    assert progress(log, text) == list(range(1, 50))


def test_a_line_of_a_hundred_megabytes_takes_no_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.write(beat(1, 1))
        for _ in range(100):
            file.write(MIB * b"x")
        file.write(b"\n" + beat(2, 2))
    tracemalloc.start()
    try:
        assert [at_ns / S for at_ns in read_progress(log)] == [1, 2]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB


def test_the_controller_hears_stamped_heartbeats_as_well() -> None:
    assert HarnessLog(3).feed(beat(5, 2), at_ns=7) == [ProgressMade(7, 3, completed_samples=5, samples_per_s=10.5)]


def test_a_file_that_is_none(log: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_progress(log))
    os.mkfifo(log)
    with pytest.raises(EvidenceError, match=r"The output .* is not a regular file"):
        list(read_progress(log))
