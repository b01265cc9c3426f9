"""LoadGen's detail log while it grows: where the timed section begins and ends.

Order on disk (measured with LoadGen 4.0 to 6.0.17; published logs of v1.1 and v2.0 have the same): settings,
`loaded_qsl_set`, `generated_query_count`, then the timed section, then `logger_swap_request_slots_retry_count` and its
neighbours, `power_begin`, `power_end`, `result_*`. A SubmissionRun has two sections, each from `loaded_qsl_set` to
`power_end`, the accuracy part first. The message "Ending naturally" is no end: in Offline it is written right after
the one query was issued (issue_query_controller.cc:482).
"""

from __future__ import annotations

import re

from heteromig.core.events import AnyEvent, TimedSectionBegan, TimedSectionEnded
from heteromig.core.units import MonotonicNs

DETAIL_LOG = "mlperf_log_detail.txt"
SUMMARY_LOG = "mlperf_log_summary.txt"

# How lines begin. LoadGen does not escape what it logs, but none of its messages has this in it.
_KEY = b':::MLLOG {"key": "'
_BEGIN_KEY = b'generated_query_count"'
_END_KEYS = (b'logger_swap_request_slots_retry_count"', b'power_begin"', b'power_end"', b"result_")
BEGIN_LINE = _KEY + _BEGIN_KEY
"""Logged by GenerateQueries, microseconds before the first query is issued (loadgen.cc:427)."""
END_LINES = tuple(_KEY + key for key in _END_KEYS)
"""Written once the last sample has completed, in this order: the first of the logger's counters (logging.cc:902), the
timed section (loadgen.cc:556-565), results (results.cc:674)."""
# With the common beginning in front, which the engine looks for as fast as it can.
_EDGE = re.compile(re.escape(_KEY) + b"(?:(?P<begin>" + _BEGIN_KEY + b")|" + b"|".join(_END_KEYS) + b")")


def find_end(data: bytes, start: int = 0) -> int:
    """Where the first line of `END_LINES` that there is begins, from `start` on; -1 without any."""
    return next((found for line in END_LINES if (found := data.find(line, start)) >= 0), -1)


class DetailLog:
    """Turns one worker's growing detail log into events.

    LoadGen may run again, in the same file (as the second part of a SubmissionRun) or in another that takes its place:
    each begin is followed by an end, and of the several keys that mark one end the first is told.
    """

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._began = False
        self._ended = False

    @property
    def is_timed(self) -> bool:
        """The log shows that the timed section has begun, and no end of it."""
        return self._began and not self._ended

    @property
    def has_ended(self) -> bool:
        """The log shows that the last timed section is over."""
        return self._ended

    def feed(self, block: bytes, at_ns: MonotonicNs) -> list[AnyEvent]:
        """Events of `block`, which is whole lines."""
        events: list[AnyEvent] = []
        for edge in _EDGE.finditer(block):
            if edge["begin"] is not None:
                if not self.is_timed:
                    events.append(TimedSectionBegan(at_ns=at_ns, worker=self._worker))
                self._began, self._ended = True, False
            elif not self._ended:
                events.append(TimedSectionEnded(at_ns=at_ns, worker=self._worker))
                self._ended = True
        return events
