"""A verdict and its overlap in words, for the summary of a run and for its verification."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.text import Text

from heteromig.core.clocks import ClockCheck
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.spec import Isolation
from heteromig.core.units import NS_PER_S
from heteromig.core.verdict import Reason
from heteromig.views.text import fit, printable

SIMULATED_NOTE = "SIMULATED: no GPU was involved, and this is not a measurement of a GPU."
SOFT_NOTE = "ISOLATION: soft. Shares of one GPU under MPS: memory bandwidth, L2 and errors are not kept apart."
UNKNOWN = "unknown"

_LABEL_WIDTH = 13
_HEADLINES = {
    "valid": "main is VALID, and every background was timed during the whole timed section of main.",
    "built": "every engine is there.",
    "lenient": "the run went on in spite of what is listed below, so it proves nothing.",
}
_ALONE = "main is VALID; there was no background."
COVERED_WORDS = {True: "yes", False: "NO", None: "not proven"}
"""Whether a background was timed during main; None where the evidence does not decide."""

_COVERED_STYLES = {True: "green", False: "bold red", None: "yellow"}
_STATUS_STYLES = {"valid": "bold green", "built": "bold green", "lenient": "bold yellow", "inconclusive": "bold yellow"}


def warnings(isolation: Isolation) -> tuple[str, ...]:
    """What whoever reads a result has to know before anything else."""
    notes = {Isolation.SIMULATED: (SIMULATED_NOTE,), Isolation.SOFT: (SOFT_NOTE,), Isolation.HARDWARE: ()}
    return notes[isolation]


def append_verdict(
    text: Text, status: str, exit_code: int, reasons: Sequence[Reason], width: int, *, backgrounds: int
) -> None:
    """One sentence first: the status, the exit code, and why; the other reasons follow."""
    sentence, rest = headline(status, reasons, backgrounds=backgrounds)
    head = f"{status.upper()} (exit {exit_code}): "
    lines = textwrap.wrap(head + sentence, width, break_long_words=False, break_on_hyphens=False)
    text.append(lines[0][: len(head)], _STATUS_STYLES.get(status, "bold red"))
    text.append(lines[0][len(head) :] + "\n")
    for line in lines[1:]:
        text.append(line + "\n")
    for reason in rest:
        append_block(text, "", f"- {printable(reason.sentence)} (exit {reason.exit_code})", width, indent=2)


def headline(status: str, reasons: Sequence[Reason], *, backgrounds: int) -> tuple[str, Sequence[Reason]]:
    """The verdict in one sentence, and the reasons which that sentence does not tell."""
    sentence = _ALONE if status == "valid" and not backgrounds else _HEADLINES.get(status)
    if sentence is not None:
        return sentence, reasons
    return printable(reasons[0].sentence) if reasons else "no reason is recorded.", reasons[1:]


def append_block(text: Text, label: str, words: str, width: int, *, indent: int = _LABEL_WIDTH) -> None:
    """`label` in the margin, `words` wrapped beside it; nothing within a word is broken, so paths stay whole."""
    lines = textwrap.wrap(words, max(20, width - indent), break_long_words=False, break_on_hyphens=False) or [""]
    text.append(fit(label, indent), "bold")
    text.append(lines[0] + "\n")
    for line in lines[1:]:
        text.append(" " * indent + line + "\n")


def append_overlap(
    text: Text,
    proven: bool,  # noqa: FBT001 - read from the record
    figures: tuple[float | None, float | None, float | None],
    backgrounds: Sequence[BackgroundOverlap],
    width: int,
) -> None:
    """Coverage and slack: the worst in one sentence, then each background in a line.

    `figures` are coverage as a share, slack before and slack after in seconds.
    """
    coverage, before_s, after_s = figures
    if not backgrounds:
        append_block(text, "Overlap", "proven: there was no background" if proven else "not proven", width)
        return
    worst = (
        f"coverage {share_words(coverage)}, slack {slack_words(before_s)} before and {slack_words(after_s)} after main"
    )
    append_block(text, "Overlap", f"{'proven' if proven else 'NOT proven'}: at worst {worst}", width)
    names = [f"{background.worker} {printable(background.benchmark)}" for background in backgrounds]
    name_width = max(len("BACKGROUND"), *map(len, names))
    title = f"{'BACKGROUND':<{name_width}}  {'TIMED DURING MAIN':<17}  {'COVERAGE':>8}  {'BEFORE':>10}  {'AFTER':>10}"
    text.append(f"  {title}  EVIDENCE\n", "dim")
    for name, background in zip(names, backgrounds, strict=True):
        style = _COVERED_STYLES[background.covered]
        text.append(f"  {fit(name, name_width)}  ")
        text.append(f"{covered_words(background):<17}", style)
        text.append(
            f"  {share_words(background.coverage):>8}  {slack_words(background.slack_before_s):>10}"
            f"  {slack_words(background.slack_after_s):>10}  {background.evidence.value}\n"
        )


def append_gaps(text: Text, backgrounds: Sequence[BackgroundOverlap], threshold_s: float, width: int) -> None:
    """Whether backgrounds were at work all the time, as far as anything would have shown that they were not."""
    by_watch: dict[str, list[str]] = {}
    for background in backgrounds:
        name = f"{background.worker} {printable(background.benchmark)}"
        by_watch.setdefault(gaps_words(background, threshold_s), []).append(name)
    if by_watch:
        words = "; ".join(f"{found}: {', '.join(names)}" for found, names in by_watch.items())
        append_block(text, "Gaps", words, width)


def gaps_words(background: BackgroundOverlap, threshold_s: float) -> str:
    """`none longer than 5 s by heartbeat`, or how many, or that nothing would have shown one."""
    if background.gaps is None:
        return "not observed (no heartbeat, no device activity)"
    if background.gaps:
        lost_s = sum(gap.end_utc_ns - gap.begin_utc_ns for gap in background.gaps) / NS_PER_S
        return f"{len(background.gaps)} of {lost_s:.3f} s in all"
    watches = " and ".join(watch.value for watch in background.gaps_seen_by)
    return f"none longer than {threshold_s:g} s by {watches}"


def covered_words(background: BackgroundOverlap) -> str:
    """Whether it was timed during main, and at work."""
    return "NO, it stalled" if background.gaps else COVERED_WORDS[background.covered]


def clock_words(check: ClockCheck) -> str:
    """Whether the wall clock, which stamps the logs, went as the monotonic one did."""
    drift_s = round(check.drift_s, 3) + 0.0  # never -0.000
    went = f"{check.readings} readings of the wall clock beside the monotonic one: drift {drift_s:+.3f} s"
    if check.largest_step_s is None:
        return f"{went}, and it was never set"
    stamps = {True: ", all stamps were corrected", False: ", not all stamps could be corrected", None: ""}
    return f"{went}, and it was set by {check.largest_step_s:+.3f} s{stamps[check.corrected]}"


def share_words(share: float | None) -> str:
    """`99.9 %`, never rounded up."""
    if share is None:
        return UNKNOWN
    # Rounding up would turn a gap into "100 %".
    return "100 %" if share >= 1 else f"{int(share * 1000) / 10:.1f} %"


def slack_words(seconds: float | None) -> str:
    """`+0.255 s`."""
    return UNKNOWN if seconds is None else f"{seconds:+.3f} s"
