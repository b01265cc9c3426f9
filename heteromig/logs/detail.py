"""What a finished or cut LoadGen log proves: read once, after the run, for the certificate.

References are to loadgen of mlcommons/inference, 6.0.17. Logs of 4.0 to 5.1 lack some keys, those of v1.1 to v2.1 some
more, and none has others that are read here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msgspec import Struct

from heteromig.core.errors import EvidenceError
from heteromig.core.units import NS_PER_MS, UtcNs
from heteromig.logs.loadgen import BEGIN_LINE, find_end

POWER_RESOLUTION_NS = NS_PER_MS
"""`power_begin` and `power_end` are cut to milliseconds (loadgen.cc:556-565), so the instant is up to 1 ms later."""
MAX_ERRORS = 5
"""How many of LoadGen's error messages are kept; a run that fails can log thousands."""

_PREFIX = b":::MLLOG "
_RECORD = re.compile(rb"^(?=:::MLLOG )", re.MULTILINE)
_JSON = json.JSONDecoder(strict=False)
_KEY = re.compile(rb':::MLLOG \{"key": "([^"]+)"')
_AUDITED = b"Found Audit Config file"
"""What LoadGen says when it has found an `audit.config` and taken its settings from there (loadgen.cc, StartTest)."""
_TOO_MANY = b" Ending early: Too many outstanding queries."
"""What it says when it has ended a run of Server by `max_async_queries` (issue_query_controller.cc)."""
_ERROR = b'"is_error": true'
_BUILD_ERROR = _PREFIX + b'{"key": "error_uncommitted_loadgen_changes"'
"""About how LoadGen was built and not how it ran (version.cc:63). Every log of the 4.0 wheel has it."""
_SUMMARY_VALIDITY = re.compile(rb"^Result is[ \t]*:[ \t]*(VALID|INVALID)\b", re.MULTILINE)

_WANTED = frozenset(
    {
        b"generated_query_count",
        b"power_begin",
        b"power_end",
        b"early_stopping_met",
        b"early_stopping_latency_ss",
        b"early_stopping_latency_ms",
        b"num_errors",
        b"effective_scenario",
        b"effective_test_mode",
        b"effective_min_duration_ms",
        b"effective_samples_per_query",
        b"effective_target_qps",
        b"effective_target_latency_percentile",
    }
)
_PARAMETER = b"effective_"
_METRIC_PREFIXES = ("result_", "early_stopping_latency_")

_WRAPPED_NS = 1 << 64
"""`time_ms` is unsigned nanoseconds in print: 18446744073709.26 is a line queued 0.29 ms before the log began."""


class DetailFacts(Struct, frozen=True):
    """What one `mlperf_log_detail.txt` says about its last LoadGen run. What it does not say is None.

    `power_begin_utc_ns` and `power_end_utc_ns` are UTC, cut to 1 ms, and only of the last timed section: the
    performance part of a SubmissionRun. `timed_begin_offset_ns` is from the log's beginning to the timed section.
    `has_end_key`: the timed section is known to have ended. `metrics` holds every
    numeric key `result_*` and `early_stopping_latency_*` under LoadGen's name, latencies in ns, NaN and infinity
    included. `num_errors` counts what went wrong in the run so far, and `errors` are the first of its messages; that
    LoadGen was built from a tree with local edits is not among them. `audited`: an `audit.config` changed the settings,
    so that figures are those of a compliance test. `ended_by_queue`: LoadGen ended a run of Server, because more
    queries were outstanding than it was told to allow. `latency_percentile` is a share. `unreadable_lines` excludes a
    last line that was cut.
    """

    power_begin_utc_ns: UtcNs | None
    power_end_utc_ns: UtcNs | None
    timed_begin_offset_ns: int | None
    has_end_key: bool
    valid: bool | None
    invalid_reason: str | None
    min_duration_met: bool | None
    min_queries_met: bool | None
    perf_constraints_met: bool | None
    early_stopping_met: bool | None
    num_errors: int
    errors: tuple[str, ...]
    scenario: str | None
    test_mode: str | None
    min_duration_ms: int | None
    samples_per_query: int | None
    target_qps: float | None
    latency_percentile: float | None
    audited: bool
    ended_by_queue: bool
    metrics: dict[str, float]
    unreadable_lines: int


def read_detail(path: Path) -> DetailFacts:
    """Read the detail log at `path`. 82 MB in 300,000 lines take about 0.15 s: only lines that matter are parsed.

    Raises:
        EvidenceError: the file cannot be read.
    """
    data = _read(path)
    last_begin = data.rfind(BEGIN_LINE)
    end = find_end(data, max(last_begin, 0))
    lines, unreadable = _wanted_lines(data, last_begin, end)
    values = {key: value for key, value, _ in lines}
    times = {key: time_ns for key, _, time_ns in lines}
    num_errors = _errors_of_run(data, _count(values.get("num_errors")))
    return DetailFacts(
        power_begin_utc_ns=_power_time(values.get("power_begin")),
        power_end_utc_ns=_power_time(values.get("power_end")),
        timed_begin_offset_ns=times.get("generated_query_count"),
        has_end_key=end >= 0,
        valid=_validity(values.get("result_validity")),
        invalid_reason=_text(values.get("result_invalid_reason")),
        min_duration_met=_flag(values.get("result_min_duration_met")),
        min_queries_met=_flag(values.get("result_min_queries_met")),
        perf_constraints_met=_flag(values.get("result_perf_constraints_met")),
        early_stopping_met=_flag(values.get("early_stopping_met")),
        num_errors=num_errors,
        errors=tuple(itertools.islice(_errors(data), MAX_ERRORS)) if num_errors else (),
        scenario=_text(values.get("effective_scenario")),
        test_mode=_text(values.get("effective_test_mode")),
        min_duration_ms=_count(values.get("effective_min_duration_ms")),
        samples_per_query=_count(values.get("effective_samples_per_query")),
        target_qps=_number(values.get("effective_target_qps")),
        latency_percentile=_number(values.get("effective_target_latency_percentile")),
        audited=data.find(_AUDITED, 0, max(data.find(BEGIN_LINE), 0) or len(data)) >= 0,
        ended_by_queue=data.find(_TOO_MANY, max(last_begin, 0)) >= 0,
        metrics={
            key: number
            for key, value in values.items()
            if key.startswith(_METRIC_PREFIXES) and (number := _number(value)) is not None
        },
        unreadable_lines=unreadable,
    )


def read_summary(path: Path) -> bool | None:
    """Whether `mlperf_log_summary.txt` says VALID; None when it says neither, as after a kill (0 bytes).

    Raises:
        EvidenceError: the file cannot be read.
    """
    match = None
    for match in _SUMMARY_VALIDITY.finditer(_read(path)):  # noqa: B007 - the last one is wanted
        pass
    return None if match is None else match[1] == b"VALID"


def read_parameters(path: Path) -> tuple[tuple[str, str], ...]:
    """What LoadGen says it ran with: every `effective_*` key without that prefix, and its value as JSON, in order.

    Raises:
        EvidenceError: the file cannot be read.
    """
    data = _read(path)
    found: dict[str, str] = {}
    for record in _RECORD.split(data[: max(data.rfind(BEGIN_LINE), 0) or data.rfind(b"\n") + 1]):
        key = _KEY.match(record)
        if key is None or not key[1].startswith(_PARAMETER):
            continue
        with contextlib.suppress(ValueError, KeyError, RecursionError):
            value = _decode(record)[0]["value"]
            found[key[1][len(_PARAMETER) :].decode(errors="replace")] = (
                value if isinstance(value, str) else json.dumps(value)
            )
    return tuple(found.items())


def _read(path: Path) -> bytes:
    try:
        # Opening a FIFO waits for its writer, and reading a device never ends.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise EvidenceError(f"LoadGen's log {path} is not a regular file: put the log itself there.")
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"LoadGen's log {path} cannot be read: {error.strerror}.") from error
    except MemoryError:
        raise EvidenceError(f"LoadGen's log {path} cannot be read: it does not fit into memory.") from None


def _wanted_lines(data: bytes, last_begin: int, end: int) -> tuple[list[tuple[str, object, int | None]], int]:
    """Key, value and time of the lines that matter, in order, and how many lines could not be read.

    They are in front of the first timed section or behind the last one; a flood of warnings is in between.
    """
    lines: list[tuple[str, object, int | None]] = []
    complete = data.rfind(b"\n") + 1
    unreadable = data.count(b"\n", 0, complete) - data.count(b"\n" + _PREFIX, 0, complete)
    if complete and data.startswith(_PREFIX):
        unreadable -= 1
    for block in _blocks(data, last_begin, end):
        for record in _RECORD.split(block):
            # Neither a cut last line nor a foreign one has both.
            key = _KEY.match(record)
            if key is None or not (key[1] in _WANTED or key[1].startswith(b"result_")):
                continue
            try:
                entry, line_breaks = _decode(record)
                lines.append((entry["key"], entry["value"], _time_ns(entry.get("time_ms"))))
                unreadable -= line_breaks
            except (ValueError, KeyError, RecursionError):
                unreadable += 1
    return lines, unreadable


def _blocks(data: bytes, last_begin: int, end: int) -> Iterator[bytes]:
    complete = data.rfind(b"\n") + 1
    if last_begin < 0:
        yield data[:complete]
        return
    yield data[: data.find(BEGIN_LINE)]
    yield data[last_begin : data.find(b"\n", last_begin) + 1]
    if end >= 0:
        yield data[end:complete]


def _decode(record: bytes) -> tuple[dict[str, Any], int]:
    """The entry that `record` begins with, and how many line breaks are in its text.

    LoadGen does not escape what it logs (ArgValueTransform in logging.cc), so that a message can have line breaks,
    which JSON forbids: 4.0 writes the reasons of an INVALID run with latencies per token so, later versions spaces.

    Raises:
        ValueError: it is no entry, or the line goes on behind it.
    """
    text = record[len(_PREFIX) :].decode(errors="replace")
    entry, end = _JSON.raw_decode(text)
    rest, line_break, _ = text[end:].partition("\n")
    if rest.strip() or not line_break:
        raise ValueError("The line goes on.")
    return entry, text.count("\n", 0, end)


def _errors_of_run(data: bytes, told: int | None) -> int:
    """How many errors there were. LoadGen tells after performance runs only, and 4.1 not yet; its lines always do."""
    if _ERROR not in data:  # as nearly always: one look through all of it instead of three
        return told or 0
    return max(0, max(data.count(_ERROR), told or 0) - data.count(_BUILD_ERROR))


def _errors(data: bytes) -> Iterator[str]:
    position = -1
    while (position := data.find(_ERROR, position + 1)) >= 0:
        start = max(0, data.rfind(_PREFIX, 0, position))
        if data.startswith(_BUILD_ERROR, start):
            continue
        line_start = data.rfind(b"\n", 0, position) + 1
        end = data.find(b"\n", position) + 1 or len(data)
        try:
            entry, _ = _decode(data[start:end])
            yield f"{entry['key']}: {entry['value']}".replace("\n", " ")
        except (ValueError, KeyError, TypeError, RecursionError):
            yield data[line_start:end].decode(errors="replace").rstrip()


def _time_ns(time_ms: object) -> int | None:
    milliseconds = _number(time_ms)
    if milliseconds is None or not 0 <= milliseconds < _WRAPPED_NS / NS_PER_MS:
        return None
    time_ns = round(milliseconds * NS_PER_MS)
    return time_ns - _WRAPPED_NS if time_ns >= _WRAPPED_NS // 2 else time_ns


def _power_time(value: object) -> UtcNs | None:
    """Nanoseconds since 1970 of a reading of the wall clock, exact to its last digit."""
    try:
        reading = datetime.strptime(str(value), "%m-%d-%Y %H:%M:%S.%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    since = reading - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _validity(value: object) -> bool | None:
    return {"VALID": True, "INVALID": False}.get(str(value))


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value.replace("\n", " ") if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None  # a number of hundreds of digits is damage
