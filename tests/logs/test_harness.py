from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.events import AnyEvent, FinishAnnounced, ProgressMade, ResultReported, StartAnnounced
from heteromig.logs.harness import HarnessLog, LinePattern

STARTS = [
    b"Starting running actual test.",
    b"[I] Starting running actual test.",
    b"I0215 14:43:04.123456  1234 main_bert.cc:169] Starting running actual test.",
    b"Start running actual test",
    b"starting running actual test.  ",
]
FINISHES = [
    b"Finished running actual test.",
    b"[I] Finished running actual test.",
    b"I0215 14:43:04.123456  1234 main_dlrm.cc:229] Finished running actual test.",
    b"finished running actual test \t",
]
NEITHER = [
    b"Starting warmup. Running for a minimum of 5 seconds.",
    b"Starting running actual test. Not.",
    b"Restart running actual test",
    b"# echo Starting running actual test. &&",
    b"Finished running actual test. Not.",
    b"Unfinished running actual test.",
    b"Running actual test",
    b"Finished Creating QSL.",
]


def feed(*lines: bytes) -> list[AnyEvent]:
    return HarnessLog(3).feed(b"\n".join(lines) + b"\n", at_ns=5)


@pytest.mark.parametrize("line", STARTS)
def test_start_markers_of_all_families(line: bytes) -> None:
    assert feed(b"Finished warmup. Ran for 5.0s.", line, b"more") == [StartAnnounced(at_ns=5, worker=3)]


@pytest.mark.parametrize("line", FINISHES)
def test_finish_markers_are_no_start_markers(line: bytes) -> None:
    assert feed(line) == [FinishAnnounced(at_ns=5, worker=3)]


@pytest.mark.parametrize("line", NEITHER)
def test_lines_that_are_no_marker(line: bytes) -> None:
    assert feed(line) == []


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("finish", FINISHES)
def test_both_markers_in_one_block(start: bytes, finish: bytes) -> None:
    assert feed(start, b"between", finish) == [StartAnnounced(5, 3), FinishAnnounced(5, 3)]


def test_a_start_is_announced_once() -> None:
    log = HarnessLog(0)
    assert len(log.feed(STARTS[0] + b"\n", at_ns=1)) == 1
    assert log.feed(STARTS[0] + b"\n", at_ns=2) == []


def test_another_start_after_an_end_is_announced() -> None:
    log = HarnessLog(0)
    start, end = STARTS[0] + b"\n", FINISHES[0] + b"\n"
    assert len(log.feed(start, at_ns=1)) == 1
    assert len(log.feed(end, at_ns=2)) == 1
    assert log.feed(end, at_ns=3) == []
    assert log.feed(start, at_ns=4) == [StartAnnounced(4, 0)]
    assert log.feed(end, at_ns=5) == []
    assert log.feed(start, at_ns=6) == [], "of the first of them the core knows already"


def test_events_follow_each_other_as_the_lines_do() -> None:
    again = (FINISHES[0], b"Result is : VALID", STARTS[0])
    assert feed(*again) == [FinishAnnounced(5, 3), ResultReported(5, 3, valid=True), StartAnnounced(5, 3)]


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


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        (b"Accuracy = 76.034, Threshold = 75.695. Accuracy test PASSED.", True),
        (b"    raise RuntimeError: Accuracy = 70.1, Threshold = 75.695. Accuracy test FAILED!", False),
    ],
)
def test_results_of_an_accuracy_check(line: bytes, passed: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert feed(line) == [ResultReported(at_ns=5, worker=3, valid=passed)]


@pytest.mark.parametrize(
    "line", [b"Accuracy test PASSEDx", b"Inaccuracy test PASSED", b"Accuracy test is PASSED", b"accuracy test FAILED"]
)
def test_lines_that_are_no_result_of_an_accuracy_check(line: bytes) -> None:
    assert feed(line) == []


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
    ("more", "over_latency"),
    [(b"", None), (b" monotonic_s=5.25", None), (b" monotonic_s=5.25 over_latency=7", 7), (b" over_latency=0", 0)],
)
def test_a_heartbeat_may_say_how_many_samples_were_late(more: bytes, over_latency: int | None) -> None:
    (event,) = feed(b"heartbeat: completed=9 samples_per_second=1.5" + more)
    assert event == ProgressMade(at_ns=5, worker=3, completed_samples=9, samples_per_s=1.5, over_latency=over_latency)


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


@given(st.lists(st.one_of(st.sampled_from(STARTS + FINISHES + NEITHER), st.binary(max_size=60))))
def test_garbage_raises_nothing_and_hides_nothing(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    kinds = {type(event) for event in feed(*lines)}
    assert (StartAnnounced in kinds) >= any(line in STARTS for line in lines)
    assert (FinishAnnounced in kinds) >= any(line in FINISHES for line in lines)
