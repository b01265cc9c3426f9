from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.events import AnyEvent, ProgressMade, ResultReported, StartAnnounced
from heteromig.logs.harness import HarnessLog, LinePattern

STARTS = [
    b"Starting running actual test.",
    b"[I] Starting running actual test.",
    b"I0215 14:43:04.123456  1234 main_bert.cc:169] Starting running actual test.",
    b"Start running actual test",
    b"starting running actual test.  ",
]
NO_STARTS = [
    b"Finished running actual test.",
    b"I0215 14:43:04.123456  1234 main_dlrm.cc:229] Finished running actual test.",
    b"Starting warmup. Running for a minimum of 5 seconds.",
    b"Starting running actual test. Not.",
    b"Restart running actual test",
    b"# echo Starting running actual test. &&",
]


def feed(*lines: bytes) -> list[AnyEvent]:
    return HarnessLog(3).feed(b"\n".join(lines) + b"\n", at_ns=5)


@pytest.mark.parametrize("line", STARTS)
def test_start_markers_of_all_families(line: bytes) -> None:
    assert feed(b"Finished warmup. Ran for 5.0s.", line, b"more") == [StartAnnounced(at_ns=5, worker=3)]


@pytest.mark.parametrize("line", NO_STARTS)
def test_lines_that_are_no_start(line: bytes) -> None:
    assert feed(line) == []


def test_a_start_is_announced_once() -> None:
    log = HarnessLog(0)
    assert len(log.feed(STARTS[0] + b"\n", at_ns=1)) == 1
    assert log.feed(STARTS[0] + b"\n", at_ns=2) == []


@pytest.mark.parametrize(
    ("line", "valid"),
    [
        (b"Result is : VALID", True),
        (b"Result is : INVALID", False),
        (b"Result: samples_per_second: 5100.2, Result is VALID", True),
        (b"    resnet50: samples_per_second: 1, Result is INVALID", False),
    ],
)
def test_results(line: bytes, valid: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert feed(line) == [ResultReported(at_ns=5, worker=3, valid=valid)]


@pytest.mark.parametrize("line", [b"Result is : VALIDATED", b"Result is unknown", b"Result is :\nVALID"])
def test_lines_that_are_no_result(line: bytes) -> None:
    assert feed(line) == []


def test_the_same_result_in_other_words_is_not_repeated() -> None:
    assert len(feed(b"Result is : VALID", b"x: Result is VALID")) == 1


def test_only_the_newest_heartbeat_counts() -> None:
    assert feed(
        b"heartbeat: completed=0 samples_per_second=0",
        b"heartbeat: completed=12345 samples_per_second=2345.6",
    ) == [ProgressMade(at_ns=5, worker=3, completed_samples=12345, samples_per_s=2345.6)]


@pytest.mark.parametrize(
    "line",
    [
        b"heartbeat: completed=x samples_per_second=1",
        b"heartbeat: completed=1 samples_per_second=nan",
        b"heartbeat: completed=1 samples_per_second=1e999",
        b"heartbeat: completed=-1 samples_per_second=1",
        b"heartbeat: completed=1 samples_per_second=1 cut",
        b"heartbeat: completed=1",
    ],
)
def test_broken_heartbeats(line: bytes) -> None:
    assert feed(line) == []


def test_patterns_of_any_other_program() -> None:
    pattern = LinePattern(
        needle=b"go",
        regex=re.compile(rb"^go$", re.MULTILINE),
        read=lambda worker, at_ns, _: StartAnnounced(at_ns, worker),
    )
    assert HarnessLog(1, (pattern,)).feed(b"ago\ngo\n", at_ns=2) == [StartAnnounced(at_ns=2, worker=1)]


@given(st.lists(st.one_of(st.sampled_from(STARTS + NO_STARTS), st.binary(max_size=60))))
def test_garbage_raises_nothing_and_hides_nothing(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    starts = [event for event in feed(*lines) if isinstance(event, StartAnnounced)]
    assert bool(starts) >= any(line in STARTS for line in lines)
