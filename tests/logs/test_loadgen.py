from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.events import TimedSectionBegan, TimedSectionEnded
from heteromig.logs.loadgen import DETAIL_LOG, DetailLog, find_end
from tests.logs.loadgen_runs import run_loadgen
from tests.logs.recorded import KILLED, SUBMISSION


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [("Offline", "PerformanceOnly"), ("Server", "PerformanceOnly"), ("Offline", "AccuracyOnly")],
)
def test_a_real_log_line_by_line(tmp_path: Path, scenario: str, mode: str) -> None:
    run_loadgen(tmp_path / "logs", scenario, mode)
    lines = (tmp_path / "logs" / DETAIL_LOG).read_bytes().splitlines(keepends=True)
    log = DetailLog(2)
    seen = {}
    timed = 0
    for number, line in enumerate(lines):
        for event in log.feed(line, at_ns=number):
            assert type(event) not in seen
            seen[type(event)] = line
        timed += log.is_timed

    assert b"generated_query_count" in seen[TimedSectionBegan]
    assert b"logger_swap_request_slots_retry_count" in seen[TimedSectionEnded]
    assert 3 <= timed <= 10, "the lines between the two"
    assert not log.is_timed


def test_the_log_of_a_killed_run_shows_no_end() -> None:
    log = DetailLog(0)
    assert log.feed(KILLED.read_bytes(), at_ns=1) == [TimedSectionBegan(at_ns=1, worker=0)]
    assert b"Ending naturally" in KILLED.read_bytes()
    assert log.is_timed


def test_both_ends_of_both_parts_in_one_block() -> None:
    log = DetailLog(0)
    for at_ns in (1, 2):  # Another run's log can take the place of the first.
        assert log.feed(SUBMISSION.read_bytes(), at_ns) == 2 * [
            TimedSectionBegan(at_ns=at_ns, worker=0),
            TimedSectionEnded(at_ns=at_ns, worker=0),
        ]
    assert log.has_ended


@pytest.mark.parametrize("key", ["power_begin", "power_end", "result_validity", "result_99.00_percentile_latency_ns"])
def test_any_key_of_the_end_will_do(key: str) -> None:
    line = f':::MLLOG {{"key": "{key}", "value": 1}}\n'.encode()
    assert find_end(b"noise\n" + line) == 6


def test_keys_inside_messages_are_none() -> None:
    line = rb':::MLLOG {"key": "generic_message", "value": ":::MLLOG {\"key\": \"power_end\""}'
    assert find_end(line) == -1


@given(st.binary(max_size=300).filter(lambda block: b":::MLLOG" not in block))
def test_garbage_says_nothing(block: bytes) -> None:
    assert DetailLog(0).feed(block, at_ns=1) == []
