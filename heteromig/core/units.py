"""Aliases and formatters for quantities; names elsewhere carry the unit as a suffix."""

from __future__ import annotations

import re

from heteromig.core.errors import UsageError

MonotonicNs = int
"""Nanoseconds of the monotonic clock of this boot: the only clock used inside."""

UtcNs = int
"""Nanoseconds since the Unix epoch: for people, and for comparisons with LoadGen's wall-clock stamps."""

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_DURATION = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,18})?)\s*(?P<unit>ms|s|m|h|)")
_MS_PER_UNIT = {"": 1, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def parse_duration_ms(text: str | int) -> int:
    """Milliseconds of `600000`, `600000ms`, `600s`, `10m` or `1h`; a bare number is milliseconds.

    Raises:
        UsageError: the text is no duration.
    """
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration: write milliseconds (600000) or a number with a unit (600s, 10m, 1h)."
        )
    return round(float(match["number"]) * _MS_PER_UNIT[match["unit"]])


def format_duration_s(seconds: float) -> str:
    """`2.1 s`, `1:05 min` or `1:02:05 h`, for people."""
    if round(seconds, 1) < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes}:{rest_s:02d} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d} h"


def format_bytes(count_bytes: int) -> str:
    """`512 B`, `9.5 GiB`: binary multiples, one decimal from KiB on."""
    size = float(count_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - binary multiples
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
