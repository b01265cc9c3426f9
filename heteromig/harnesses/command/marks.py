"""The lines that mark the timed section of a program: its own, as the user describes them."""

from __future__ import annotations

import re

from heteromig.core.events import AnyEvent, FinishAnnounced, StartAnnounced
from heteromig.core.units import MonotonicNs
from heteromig.logs.harness import HEARTBEAT, LinePattern

_ANYWHERE = b""
"""Nothing is known of the user's expressions that a search could begin with."""


def lines_of(start: re.Pattern[bytes] | None, end: re.Pattern[bytes] | None) -> tuple[LinePattern, ...]:
    """What to look for in the output of one worker: its marks, and heartbeats in case it gives some."""
    if start is None:
        return (HEARTBEAT,)
    marks = _Marks(start)
    patterns = [LinePattern(needle=_ANYWHERE, regex=start, read=marks.read_start)]
    if end is not None:
        patterns.append(LinePattern(needle=_ANYWHERE, regex=end, read=marks.read_end))
    return (*patterns, HEARTBEAT)


class _Marks:
    """What one worker has said so far: an end counts only after a start.

    A block of output may hold both, and what looks like an end in front of them: "warm-up done", say.
    """

    def __init__(self, start: re.Pattern[bytes]) -> None:
        self._start = start
        self._block: bytes | None = None
        """The block in which the first start was."""
        self._started = False

    def read_start(self, worker: int, at_ns: MonotonicNs, match: re.Match[bytes]) -> AnyEvent:
        """A start; those after the first say nothing new."""
        if not self._started:
            self._started, self._block = True, match.string
        return StartAnnounced(at_ns=at_ns, worker=worker)

    def read_end(self, worker: int, at_ns: MonotonicNs, match: re.Match[bytes]) -> AnyEvent | None:
        """An end, if a start came before it."""
        if not self._started:
            return None
        if match.string is self._block:
            start = self._start.search(match.string)
            if start is None or start.start() >= match.start():
                return None
        self._block = None
        return FinishAnnounced(at_ns=at_ns, worker=worker)
