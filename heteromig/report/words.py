"""Numbers of a story in words, the same in every format."""

from __future__ import annotations

from heteromig.core.units import format_duration_s
from heteromig.views.verdict_text import UNKNOWN, slack_words

NONE = "-"
"""What did not happen, or does not apply."""

_SHORT_S, _MINUTES_S, _HOURS_S = 10.0, 300.0, 7200.0


def seconds_words(at_s: float, span_s: float) -> str:
    """A moment on an axis that spans so much: `2.5 s`, `4 min`, `1.5 h`."""
    if span_s >= _HOURS_S:
        return f"{at_s / 3600:.3g} h"
    if span_s >= _MINUTES_S:
        return f"{at_s / 60:.4g} min"
    decimals = 0 if span_s >= _SHORT_S and at_s == round(at_s) else 2 if span_s < 1 else 1
    return f"{at_s:.{decimals}f} s"


def slack_with_uncertainty(slack_s: float | None, uncertainty_s: float | None) -> str:
    """`+4.591 s ± 0.002 s`."""
    if slack_s is None:
        return UNKNOWN
    unsure = "" if uncertainty_s is None else f" ± {uncertainty_s:.3f} s"
    return f"{slack_words(slack_s)}{unsure}"


def moment_words(at_s: float | None) -> str:
    """Since the run began: `12.345 s`, or a dash where it did not happen."""
    return NONE if at_s is None else f"{at_s:.3f} s"


def length_words(seconds: float | None) -> str:
    """How long something took."""
    return NONE if seconds is None else format_duration_s(seconds)
