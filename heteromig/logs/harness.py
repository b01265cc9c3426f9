"""What harnesses print: their lines of interest as one table of patterns."""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections.abc import Callable, Iterator

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.core.events import AnyEvent, FinishAnnounced, ProgressMade, ResultReported, StartAnnounced
from heteromig.core.units import MonotonicNs
from heteromig.logs.patience import bounded

SEARCH_LIMIT_S = 1.0
"""Of processor time for what a worker printed since the last look, at most 4 MiB: a hundred times what is usual."""


class LinePattern(Struct, frozen=True):
    """Lines that say something.

    Every matching line contains `needle`, so that a block of lines without it costs one search; it is empty for an
    expression of the user's own, which may take for ever and is bounded for that. `regex` is applied
    with `re.MULTILINE` in mind: `^` and `$` are the ends of a line. `read` makes the event from worker, time and match;
    None when the line says nothing after all.
    """

    needle: bytes
    regex: re.Pattern[bytes]
    read: Callable[[int, MonotonicNs, re.Match[bytes]], AnyEvent | None]


def _read_start(worker: int, at_ns: MonotonicNs, _match: re.Match[bytes]) -> AnyEvent:
    return StartAnnounced(at_ns=at_ns, worker=worker)


def _read_finish(worker: int, at_ns: MonotonicNs, _match: re.Match[bytes]) -> AnyEvent:
    return FinishAnnounced(at_ns=at_ns, worker=worker)


def _read_result(worker: int, at_ns: MonotonicNs, match: re.Match[bytes]) -> AnyEvent:
    return ResultReported(at_ns=at_ns, worker=worker, valid=match["validity"] == b"VALID")


def _read_heartbeat(worker: int, at_ns: MonotonicNs, match: re.Match[bytes]) -> AnyEvent | None:
    samples_per_s = float(match["rate"])
    if not math.isfinite(samples_per_s):
        return None
    return ProgressMade(
        at_ns=at_ns,
        worker=worker,
        completed_samples=int(match["completed"]),
        samples_per_s=samples_per_s,
        over_latency=None if match["late"] is None else int(match["late"]),
    )


def _read_accuracy(worker: int, at_ns: MonotonicNs, match: re.Match[bytes]) -> AnyEvent:
    return ResultReported(at_ns=at_ns, worker=worker, valid=match["outcome"] == b"PASSED")


HEARTBEAT = LinePattern(
    needle=b"heartbeat: ",
    regex=re.compile(
        rb"\bheartbeat: completed=(?P<completed>\d{1,18}) "
        rb"samples_per_second=(?P<rate>\d{1,18}(?:\.\d*)?(?:[eE][-+]?\d{1,3})?)"
        rb"(?: monotonic_s=\d{1,12}\.\d{1,9})?(?: over_latency=(?P<late>\d{1,18}))?[ \t]*$",
        re.MULTILINE,
    ),
    read=_read_heartbeat,
)
"""Of heteromig's own harness, at most once a second; any program may print it.

`monotonic_s` says when it was given, by the monotonic clock; without it a heartbeat is judged by when it was heard. See
`logs/heartbeat.py` for who reads it. `over_latency` are the samples so far that took longer than the limit."""

MLPERF_LINES = (
    # "Starting running actual test." of NVIDIA's harnesses (harness_default/main_default.cc:200 in v2.1; with glog's or
    # "[I] " in front in bert, dlrm and rnnt), "Start running actual test" of the Triton ones (main_server.cc:336).
    LinePattern(
        needle=b"unning actual test",
        regex=re.compile(rb"\b[Ss]tart(?:ing)? [Rr]unning actual test\.?[ \t]*$", re.MULTILINE),
        read=_read_start,
    ),
    # "Finished running actual test." of the same files, a few lines below; the Triton ones say nothing.
    LinePattern(
        needle=b"unning actual test",
        regex=re.compile(rb"\b[Ff]inished [Rr]unning actual test\.?[ \t]*$", re.MULTILINE),
        read=_read_finish,
    ),
    HEARTBEAT,
    # LoadGen's summary ("Result is : VALID", results.cc:511) and NVIDIA's driver ("Result is VALID", harness.py:295).
    LinePattern(
        needle=b"Result is",
        # Blanks are never matched by two repetitions in a row: a line of 64 KB of them would take half a minute.
        regex=re.compile(rb"\bResult is[ \t]*(?::[ \t]*)?(?P<validity>VALID|INVALID)\b"),
        read=_read_result,
    ),
    # Of the accuracy check in NVIDIA's driver: "Accuracy = 76.034, Threshold = 75.695. Accuracy test PASSED.", and the
    # same in a traceback with FAILED.
    LinePattern(
        needle=b"Accuracy test ",
        regex=re.compile(rb"\bAccuracy test (?P<outcome>PASSED|FAILED)\b"),
        read=_read_accuracy,
    ),
)


class HarnessLog:
    """Turns one worker's output into events: of each kind the last in a block, as they follow, none twice in a row.

    So the start is announced once until an end is, the heartbeat that counts is the newest, and of the two places where
    NVIDIA's harness says VALID one is heard.
    """

    def __init__(self, worker: int, lines: tuple[LinePattern, ...] = MLPERF_LINES) -> None:
        self._worker = worker
        self._lines = lines
        self._said: dict[int, bytes] = {}
        self._starts: set[int] = set()
        """Lines that announced a start; after an end they are news again."""

    def feed(self, block: bytes, at_ns: MonotonicNs) -> list[AnyEvent]:
        """Events of `block`, which is whole lines.

        Raises:
            UsageError: an expression of the user's own takes longer than `SEARCH_LIMIT_S`.
        """
        found: list[tuple[int, int, bytes, AnyEvent]] = []
        for number, line in enumerate(self._lines):
            if line.needle not in block:
                continue
            # Ours are known to come to an end.
            with contextlib.nullcontext() if line.needle else bounded(line.regex, SEARCH_LIMIT_S, UsageError):
                match = None
                for match in line.regex.finditer(block):  # noqa: B007 - the last one is wanted
                    pass
                event = None if match is None else line.read(self._worker, at_ns, match)
            if match is not None and event is not None:
                found.append((match.start(), number, match[0], event))
        return list(self._news(sorted(found, key=operator.itemgetter(0))))

    def _news(self, found: list[tuple[int, int, bytes, AnyEvent]]) -> Iterator[AnyEvent]:
        for _, number, said, event in found:
            if self._said.get(number) == said:
                continue
            self._said[number] = said
            if isinstance(event, StartAnnounced):
                self._starts.add(number)
            elif isinstance(event, FinishAnnounced):
                for start in self._starts:
                    del self._said[start]
                self._starts.clear()
            yield event
