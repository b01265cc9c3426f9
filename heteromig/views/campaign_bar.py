"""How far a campaign of many runs is: the line above the picture of the run in hand."""

from __future__ import annotations

from msgspec import Struct

from heteromig.core.units import format_duration_s
from heteromig.views.rows import BOLD, DIM, GOOD, PLAIN, Line
from heteromig.views.text import crop, printable

BAR_FULL, BAR_EMPTY = "━", "╌"
_BAR_WIDTH = 20


class CampaignProgress(Struct, frozen=True):
    """Of the run in hand: it is the `number`th of about `of`, and `what` it measures.

    Before it, all runs took `took_s`; from its beginning all that is left takes about `left_s`, after it `after_s`.
    `at_least`: nobody knows how many runs and how long there will be, only that there will be so many.
    """

    campaign: str
    number: int
    of: int
    what: str
    took_s: float
    left_s: float
    after_s: float
    at_least: bool = False


def campaign_line(progress: CampaignProgress, elapsed_s: float, width: int) -> Line:
    """So many seconds after the run began. What is left never falls below what is left without it."""
    left_s = max(progress.left_s - elapsed_s, progress.after_s)
    done_s = progress.took_s + elapsed_s
    full = int(_BAR_WIDTH * done_s / (done_s + left_s)) if done_s + left_s > 0 else 0
    bound = "at least " if progress.at_least else ""
    name = f"{progress.campaign} {progress.number} of {bound}{progress.of} "
    note = f"  {bound}{format_duration_s(round(left_s))} left  {printable(progress.what)}"
    return (
        (name, BOLD),
        (BAR_FULL * full, GOOD),
        (BAR_EMPTY * (_BAR_WIDTH - full), DIM),
        (crop(note, max(0, width - len(name) - _BAR_WIDTH)), PLAIN),
    )
