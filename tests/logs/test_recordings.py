"""The readers of LoadGen's logs against what versions 4.0 to 6.0 really wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec import Struct

from heteromig.core.events import TimedSectionBegan, TimedSectionEnded
from heteromig.core.units import NS_PER_MS
from heteromig.logs.detail import POWER_RESOLUTION_NS, read_detail, read_parameters, read_summary
from heteromig.logs.loadgen import DETAIL_LOG, DetailLog
from heteromig.logs.tail import Tail
from tests.logs import recorded
from tests.logs.recorded import Recording
from tests.logs.test_detail import utc_ns

BUILT_FROM_EDITED_TREE = ("4.0",)
"""Their wheel says of itself that it was; the summary counts that as an error."""
WITHOUT_NUM_ERRORS = ("4.0", "4.1.30")


class Expected(Struct, frozen=True):
    scenario: str
    mode: str
    min_duration_ms: int
    valid: bool | None
    min_duration_met: bool | None = True
    perf_constraints_met: bool | None = None
    early_stopping_met: bool | None = True
    reasons: tuple[str, ...] = ()
    num_errors: int = 0


PERFORMANCE = "PerformanceOnly"
EXPECTED = {
    "offline": Expected("Offline", PERFORMANCE, 300, valid=True),
    "server": Expected("Server", PERFORMANCE, 500, valid=True, perf_constraints_met=True),
    "single_stream": Expected("SingleStream", PERFORMANCE, 300, valid=True),
    "accuracy": Expected(
        "Offline", "AccuracyOnly", 300, valid=None, min_duration_met=None, early_stopping_met=None, num_errors=3
    ),
    "submission": Expected("Server", "SubmissionRun", 500, valid=True, perf_constraints_met=True),
    "short": Expected(
        "Offline", PERFORMANCE, 500, valid=False, min_duration_met=False, reasons=("Increase expected QPS",)
    ),
    "late": Expected(
        "Server",
        PERFORMANCE,
        500,
        valid=False,
        perf_constraints_met=False,
        early_stopping_met=False,
        reasons=("Reduce target QPS",),
    ),
    "tokens": Expected(
        "Server",
        PERFORMANCE,
        300,
        valid=False,
        perf_constraints_met=False,
        early_stopping_met=False,
        reasons=("TTFT", "TPOT"),
    ),
    "twice": Expected("Offline", PERFORMANCE, 300, valid=True, num_errors=7),
    "killed": Expected("Offline", PERFORMANCE, 5000, valid=None, min_duration_met=None, early_stopping_met=None),
}

every_recording = pytest.mark.parametrize("recording", recorded.ALL, ids=str)
every_recording_but_killed = pytest.mark.parametrize("recording", recorded.but("killed"), ids=str)


def milestones(recording: Recording) -> list[tuple[int, type[TimedSectionBegan | TimedSectionEnded]]]:
    """How many bytes must be there for the begins and the ends to be seen, by the neighbours of the lines."""
    seen: list[tuple[int, type[TimedSectionBegan | TimedSectionEnded]]] = []
    size = 0
    previous = b""
    for line in recording.lines:
        size += len(line)
        if b'"loaded_qsl_set"' in previous:
            seen.append((size, TimedSectionBegan))
        if b'"logger_' in line and b'"logger_' not in previous:
            seen.append((size, TimedSectionEnded))
        previous = line
    return seen


@every_recording
@pytest.mark.parametrize("piece_bytes", [23, 997, 8192, 1 << 20])
def test_begin_and_end_are_seen_as_soon_as_they_are_there(
    tmp_path: Path, recording: Recording, piece_bytes: int
) -> None:
    data = recording.detail.read_bytes()
    expected = milestones(recording)
    milestones_of = {"killed": 1, "submission": 4}
    assert len(expected) == milestones_of.get(recording.run, 2)

    tail = Tail(tmp_path / DETAIL_LOG)
    log = DetailLog(worker=3)
    with (tmp_path / DETAIL_LOG).open("wb", buffering=0) as growing:
        for first in range(0, len(data), piece_bytes):
            written = first + growing.write(data[first : first + piece_bytes])
            events = log.feed(tail.read(), at_ns=written)
            assert events == [kind(at_ns=written, worker=3) for size, kind in expected if first < size <= written]
    tail.close()

    assert log.is_timed == (recording.run == "killed")


@every_recording
def test_order_on_disk(recording: Recording) -> None:
    keys = [entry["key"] for entry in recording.all_entries()]
    sections = " ".join(keys).split("loaded_qsl_set ")[1:]
    for section in sections:
        begun = section.split()
        assert begun[:3] == ["generated_query_count", "generated_samples_per_query", "generated_query_duration"]
        if recording.run == "killed":
            assert begun[3:] == ["generic_message"], "that no more queries will come, which is no end"
            continue
        end = next(number for number, key in enumerate(begun) if not key.startswith(("gener", "error")))
        assert begun[end] == "logger_swap_request_slots_retry_count"
        assert begun[end + 6 : end + 8] == ["power_begin", "power_end"]
    assert len(sections) == (2 if recording.run == "submission" else 1)
    assert ("num_errors" in keys) == (
        recording.version not in WITHOUT_NUM_ERRORS and recording.run not in {"accuracy", "killed"}
    )


@every_recording
def test_facts(recording: Recording) -> None:
    expected = EXPECTED[recording.run]

    facts = read_detail(recording.detail)

    assert (facts.scenario, facts.test_mode) == (expected.scenario, expected.mode)
    assert facts.min_duration_ms == expected.min_duration_ms
    assert facts.valid is expected.valid
    assert facts.min_duration_met is expected.min_duration_met
    assert facts.min_queries_met is (None if expected.valid is None else True)
    assert facts.perf_constraints_met is expected.perf_constraints_met
    assert facts.early_stopping_met is expected.early_stopping_met
    assert all(reason in (facts.invalid_reason or "") for reason in expected.reasons)
    assert (facts.invalid_reason is None) == (not expected.reasons)
    assert facts.has_end_key == (recording.run != "killed")
    assert facts.unreadable_lines == 0
    assert bool(facts.metrics) == (expected.valid is not None)


@every_recording
def test_errors_are_counted_by_versions_that_do_not_tell_as_well(recording: Recording) -> None:
    expected = EXPECTED[recording.run]

    facts = read_detail(recording.detail)

    assert facts.num_errors == expected.num_errors
    assert facts.errors == min(5, expected.num_errors) * ("error_runtime: Attempted to complete a sample twice.",)


@every_recording
def test_summary_agrees(recording: Recording) -> None:
    facts = read_detail(recording.detail)
    text = recording.summary.read_text()

    assert read_summary(recording.summary) is facts.valid
    if recording.run == "killed":
        assert text == ""
        return
    told = re.search(r"^(No|\d+) error", text, re.MULTILINE | re.IGNORECASE)
    assert told is not None
    of_build = recording.version in BUILT_FROM_EDITED_TREE
    assert facts.num_errors + of_build == (0 if told[1] == "No" else int(told[1]))
    latencies = re.findall(r"^(\d\d\.\d\d) percentile latency \(ns\) +: (\d+)$", text, re.MULTILINE)
    assert len(latencies) == (0 if recording.run == "accuracy" else 6)
    for percentile, latency_ns in latencies:
        assert facts.metrics[f"result_{percentile}_percentile_latency_ns"] == int(latency_ns)
    rates = re.findall(r"^(Samples per second|Completed samples per second) *: ([\d.]+)$", text, re.MULTILINE)
    assert len(rates) == (facts.scenario != "SingleStream" and recording.run != "accuracy")
    for headline, rate in rates:
        key = "result_samples_per_second" if headline.startswith("Samples") else "result_completed_samples_per_sec"
        assert facts.metrics[key] == pytest.approx(float(rate), abs=0.01)


@every_recording_but_killed
def test_timed_section(recording: Recording) -> None:
    expected = EXPECTED[recording.run]

    facts = read_detail(recording.detail)

    assert facts.power_begin_utc_ns is not None
    assert facts.power_end_utc_ns is not None
    duration_ns = facts.power_end_utc_ns - facts.power_begin_utc_ns
    if expected.min_duration_met is False:
        assert 0 < duration_ns < expected.min_duration_ms * NS_PER_MS
    elif expected.scenario == "Offline" and expected.valid:
        assert duration_ns >= expected.min_duration_ms * NS_PER_MS - POWER_RESOLUTION_NS


@pytest.mark.parametrize("recording", recorded.of("submission"), ids=str)
def test_of_a_submission_run_the_performance_part_counts(recording: Recording) -> None:
    facts = read_detail(recording.detail)

    begins = [utc_of(entry["value"]) for entry in recording.entries("power_begin")]
    ends = [utc_of(entry["value"]) for entry in recording.entries("power_end")]
    assert begins[0] < ends[0] < begins[1] < ends[1]
    assert (facts.power_begin_utc_ns, facts.power_end_utc_ns) == (begins[1], ends[1])


def utc_of(power_time: str) -> int:
    month, day, year, time = re.split("[- ]", power_time)
    return utc_ns(f"{year}-{month}-{day} {time}")


@pytest.mark.parametrize("recording", recorded.ALL, ids=str)
def test_every_parameter_that_loadgen_says_it_ran_with_is_read(recording: Recording) -> None:
    found = dict(read_parameters(recording.detail))
    told = {
        entry["key"].removeprefix("effective_"): entry["value"]
        for entry in recording.all_entries()
        if entry["key"].startswith("effective_")
    }
    assert found == {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    assert found["scenario"] == told["scenario"]
    assert "min_duration_ms" in found
