"""LoadGen's detail log while it grows: where the timed section begins and ends.

Order on disk (measured with LoadGen 6.0.17; v1.1 to v2.1 write the same): settings, `loaded_qsl_set`,
`generated_query_count`, then the timed section, then `logger_swap_request_slots_retry_count` and its neighbours,
`power_begin`, `power_end`, `result_*`. The message "Ending naturally" is no end: in Offline it is written right after
the one query was issued (issue_query_controller.cc:482).
"""

from __future__ import annotations

import re

from heteromig.core.events import Event, TimedSectionBegan, TimedSectionEnded
from heteromig.core.units import MonotonicNs

DETAIL_LOG = "mlperf_log_detail.txt"
SUMMARY_LOG = "mlperf_log_summary.txt"

BEGIN_KEY = b"generated_query_count"
"""Logged by GenerateQueries, microseconds before the first query is issued (loadgen.cc:427)."""
FIRST_END_KEY = b"logger_swap_request_slots_retry_count"
"""The first of the logger's counters, written once the last sample has completed (logging.cc:902)."""

END_KEY = re.compile(
    rb'^:::MLLOG \{"key": "(?:' + FIRST_END_KEY + rb"|power_begin|power_end|result_[\w.]+)" + rb'"', re.MULTILINE
)
BEGIN_LINE = b':::MLLOG {"key": "' + BEGIN_KEY + b'"'


class DetailLog:
    """Turns one worker's growing detail log into events, each at most once."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._began = False
        self._ended = False

    @property
    def is_timed(self) -> bool:
        """The log shows that the timed section has begun, and no end of it."""
        return self._began and not self._ended

    def feed(self, block: bytes, at_ns: MonotonicNs) -> list[Event]:
        """Events of `block`, which is whole lines."""
        events: list[Event] = []
        if not self._began and BEGIN_LINE in block:
            self._began = True
            events.append(TimedSectionBegan(at_ns=at_ns, worker=self._worker))
        if not self._ended and END_KEY.search(block):
            self._ended = True
            events.append(TimedSectionEnded(at_ns=at_ns, worker=self._worker))
        return events
