from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.events import AnyEvent, TimedSectionBegan, TimedSectionEnded
from heteromig.logs.loadgen import BEGIN_LINE, DETAIL_LOG, END_LINES, DetailLog, find_end
from heteromig.logs.tail import Tail
from tests.logs.loadgen_runs import run_loadgen
from tests.logs.recorded import ALL, KILLED, SUBMISSION, Recording


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


# --- several runs in one log, however it is cut -----------------------------------------------------------------------


class Scribe:
    """A log that hears lines one at a time, the slowest way there is, and keeps what they say."""

    def __init__(self) -> None:
        self.said: list[type[AnyEvent]] = []
        self._in_section = False
        self._over = False

    def hear(self, line: bytes) -> None:
        if line.startswith(BEGIN_LINE) and not self._in_section:
            self._in_section, self._over = True, False
            self.said.append(TimedSectionBegan)
        elif line.startswith(END_LINES) and not self._over:
            self._in_section, self._over = False, True
            self.said.append(TimedSectionEnded)

    @property
    def in_section(self) -> bool:
        return self._in_section


def _line(head: bytes) -> bytes:
    return head + b', "value": 1, "time_ms": 1.5}\n'


NOISE = st.sampled_from(
    [
        b"\n",
        b"no log at all\n",
        _line(b':::MLLOG {"key": "generated_samples_per_query"'),
        _line(b':::MLLOG {"key": "logger_swap_request_slots_retry_retry_count"'),
        _line(b':::MLLOG {"key": "warning_generic_message"'),
        _line(b':::MLLOG {"key": "early_stopping_met"'),
        b':::MLLOG {"key": "generic_message", "value": "generated_query_count"}\n',
    ]
)
EDGES = st.sampled_from([BEGIN_LINE, *END_LINES]).map(_line)
SECTION = [_line(head) for head in (BEGIN_LINE, *END_LINES)]


@st.composite
def well_formed_logs(draw: st.DrawFn) -> list[bytes]:
    """Lines of up to four runs, the last of which may be cut anywhere."""
    lines: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        for edge in SECTION:
            lines += [*draw(st.lists(NOISE, max_size=3)), edge]
    return lines[: draw(st.integers(0, len(lines)))]


def _cut(lines: list[bytes], cuts: list[int]) -> list[bytes]:
    """The same text in blocks of whole lines; some are empty."""
    positions = [0, *sorted(cut % (len(lines) + 1) for cut in cuts), len(lines)]
    return [b"".join(lines[begin:end]) for begin, end in itertools.pairwise(positions)]


@given(well_formed_logs() | st.lists(NOISE | EDGES, max_size=30), st.lists(st.integers(0, 1000), max_size=10))
def test_what_a_log_says_does_not_depend_on_how_it_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    scribe, log = Scribe(), DetailLog(3)
    for line in lines:
        scribe.hear(line)
    events = [event for at_ns, block in enumerate(_cut(lines, cuts), start=1) for event in log.feed(block, at_ns)]
    assert [type(event) for event in events] == scribe.said
    assert (log.is_timed, log.has_ended) == (scribe.in_section, scribe.said[-1:] == [TimedSectionEnded])
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)


@given(well_formed_logs())
def test_every_run_is_told_with_its_begin_and_its_end(lines: list[bytes]) -> None:
    events = [type(event) for event in DetailLog(0).feed(b"".join(lines), at_ns=1)]
    begins = sum(line.startswith(BEGIN_LINE) for line in lines)
    ends = sum(line.startswith(END_LINES[0]) for line in lines)
    assert events == ([TimedSectionBegan, TimedSectionEnded] * begins)[: begins + ends]


@given(
    lines=well_formed_logs(),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
    looks=st.lists(st.booleans(), max_size=20),
)
def test_what_a_growing_file_says_does_not_depend_on_when_it_is_looked_at(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], looks: list[bool]
) -> None:
    """Written in pieces of any number of bytes, and read now and then."""
    path = tmp_path_factory.getbasetemp() / DETAIL_LOG
    path.write_bytes(b"")
    text = b"".join(lines)
    tail, log = Tail(path), DetailLog(0)
    events: list[AnyEvent] = []
    tail.read()  # the file is there before it says anything, so that its identity is known
    positions = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for number, (begin, end) in enumerate(itertools.pairwise(positions)):
        with path.open("ab") as file:
            file.write(text[begin:end])
        if number < len(looks) and looks[number]:
            events += log.feed(tail.read(), at_ns=1)
    while block := tail.read(at_end=True):
        events += log.feed(block, at_ns=2)
    tail.close()
    assert [type(event) for event in events] == [type(event) for event in DetailLog(0).feed(text, at_ns=1)]


@pytest.mark.parametrize("recording", ALL, ids=str)
def test_recordings_of_every_version_say_the_same_at_once_and_line_by_line(recording: Recording) -> None:
    at_once = DetailLog(0).feed(recording.detail.read_bytes(), at_ns=1)
    log = DetailLog(0)
    assert [event for line in recording.lines for event in log.feed(line, at_ns=1)] == at_once
    runs = {"submission": 2}.get(recording.run, 1)
    expected = [TimedSectionBegan, TimedSectionEnded] * runs
    assert [type(event) for event in at_once] == (expected[:-1] if recording.run == "killed" else expected)


@given(st.lists(st.sampled_from(ALL), max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_logs_of_one_run_after_another_say_each_run_in_turn(recordings: list[Recording], cuts: list[int]) -> None:
    lines = [line for recording in recordings for line in recording.lines]
    log = DetailLog(0)
    events = [type(event) for block in _cut(lines, cuts) for event in log.feed(block, at_ns=1)]
    assert events[::2] == [TimedSectionBegan] * len(events[::2])
    assert events[1::2] == [TimedSectionEnded] * len(events[1::2])


@given(st.binary(max_size=300).filter(lambda block: b":::MLLOG" not in block))
def test_garbage_says_nothing(block: bytes) -> None:
    assert DetailLog(0).feed(block, at_ns=1) == []
