"""A tuning in words: a line for each run while it goes on, and in the end the answer, as text or as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from heteromig.campaign.probes import (
    OFFLINE,
    SERVER,
    Answer,
    Bracket,
    Confirm,
    Done,
    Outcome,
    Probe,
    Side,
    TuneSettings,
)
from heteromig.campaign.server import has_passed
from heteromig.campaign.tuning import answers, bracket, telling
from heteromig.campaigns.directory import Campaign, Wanted
from heteromig.campaigns.rows import aligned, markdown_table
from heteromig.core.units import format_duration_s
from heteromig.core.verdict import ExitCode
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.text import markdown_text, printable, sentence
from heteromig.views.verdict_text import warnings

UNKNOWN = "n/a"
_TITLES = ("SIDE", "ANSWER", "MEASURED", "LATENCY", "BRACKET", "NOISE", "RUNS")
_HISTORY = ("run", "side", "asked for", "duration", "outcome", "late", "measured", "why this rate")
PLACES = {Side.ISOLATED: "alone", Side.BESIDE: "beside its backgrounds"}
_FIRST_PROBES = 1
"""Short runs that a side takes at least."""
_STATUS: dict[int, str] = {ExitCode.VALID: "answered", ExitCode.INCONCLUSIVE: "inconclusive"}


def begun_line(campaign: Campaign, step: Wanted) -> str:
    """What is run next, why, and how long all of it takes at least."""
    number = len(campaign.entries) + 1
    left = format_duration_s(round(least_left_s(campaign, step)))
    rate = "" if step.rate_qps is None else f"{rate_words(step.rate_qps)} for "
    what = f"{rate}{format_duration_s(step.duration_s)}{_confirming(step)}"
    return sentence(f"{number}: {step.side.value}, {what}: {step.why}; at least {left} left")


def _confirming(step: Wanted) -> str:
    """The middle of a sentence; empty for a short run."""
    return f", confirmation {step.number} of {step.of}" if isinstance(step, Confirm) else ""


def progress_of(campaign: Campaign, step: Wanted) -> CampaignProgress:
    """How far it is at least, for the picture of the run in hand."""
    settings = campaign.asked.tune
    found = bracket(settings, step.side, campaign.probes)
    known = f", bracket {bracket_words(found)}" if found.low_qps is not None or found.high_qps is not None else ""
    rate = "" if step.rate_qps is None else f" {rate_words(step.rate_qps)}"
    this_s, *later_s = _least_runs_s(campaign, step)
    return CampaignProgress(
        campaign="tune",
        number=len(campaign.entries) + 1,
        of=len(campaign.entries) + 1 + len(later_s),
        what=f"{step.side.value}{rate}{_confirming(step)}{known}",
        took_s=sum(entry.took_s for entry in campaign.entries),
        left_s=this_s + sum(later_s),
        after_s=sum(later_s),
        at_least=True,
    )


def ended_line(campaign: Campaign) -> str:
    """How the last run came out, and what is known now."""
    number, entry = len(campaign.entries), campaign.entries[-1]
    probe = entry.probe
    if probe is None:
        return sentence(f"{number}: {entry.step.side.value}, exit {entry.exit_code}: {campaign.sentence}")
    found = bracket(campaign.asked.tune, probe.side, campaign.probes)
    details = [
        *([f"{late_words(probe)} of {probe.queries} queries late"] if probe.misses is not None else []),
        *([f"{probe.achieved_qps:.5g} samples/s"] if probe.achieved_qps is not None else []),
        *([f"latency {probe.percentile_latency_ms:.4g} ms"] if probe.percentile_latency_ms is not None else []),
        *([f"bracket {bracket_words(found)}"] if found.low_qps is not None or found.high_qps is not None else []),
    ]
    said = f": {probe.reason} (in {entry.run_dir})" if probe.reason else ""
    if probe.outcome is Outcome.INVALID and not probe.confirms and has_passed(campaign.asked.tune, probe):
        said += ", but few enough were late"
    rate = "" if probe.rate_qps is None else f"{rate_words(probe.rate_qps)} "
    head = f"{number}: {probe.side.value}, {rate}{probe.outcome.value.upper()}"
    return sentence(f"{head}, {', '.join(details)}{said}" if details else f"{head}{said}")


def least_left_s(campaign: Campaign, step: Wanted) -> float:
    """How long it takes at least from the beginning of a run: all that is surely still to come, if all of it passes."""
    return sum(_least_runs_s(campaign, step))


def _least_runs_s(campaign: Campaign, step: Wanted) -> list[float]:
    """How long that run takes, and each that surely follows it."""
    settings = campaign.asked.tune
    known = [entry.took_s - settings.takes_s(entry.step.duration_s, entry.step.rate_qps) for entry in campaign.entries]
    more_s = max(0.0, sum(known) / max(1, len(known)))
    sides = settings.sides[settings.sides.index(step.side) + 1 :]
    runs = [step.duration_s]
    confirmed = step.number if isinstance(step, Confirm) else 0
    runs += [settings.full_s] * (settings.confirmations - confirmed)
    for _ in sides:
        runs += [settings.probe_s] * _FIRST_PROBES + [settings.full_s] * settings.confirmations
    return [settings.takes_s(duration_s, step.rate_qps) + more_s for duration_s in runs]


def plan_text(settings: TuneSettings, spec_text: str) -> str:
    """What would be done, before anything is."""
    sides = " and then ".join(PLACES[side] for side in settings.sides)
    head = f"Tune {spec_text} {sides}{_rule(settings)}.\n"
    probe, full = format_duration_s(settings.probe_s), format_duration_s(settings.full_s)
    passing, bound = settings.confirmations, settings.most_full_runs
    if settings.scenario != SERVER:
        first = f"A run of {probe} says what to expect" if settings.scenario == OFFLINE else "There is no rate to find"
        runs = "a run" if passing == 1 else f"{passing} runs"
        return f"{head}{first}; {runs} of {full} must pass. Nothing is searched for."
    probe_s, full_s = (settings.takes_s(one, settings.start_qps) for one in (settings.probe_s, settings.full_s))
    least = format_duration_s(probe_s + passing * full_s)
    most = format_duration_s(settings.most_probes * probe_s + bound * full_s)
    queries = f", or longer for {settings.min_queries} queries" if settings.min_queries > 1 else ""
    start = rate_words(settings.start_qps)
    return (
        f"{head}Start at {start}; short runs of {probe}, at most {settings.most_probes} a side; then runs of {full}, "
        f"of which {passing} must pass, at most {bound} a side{queries}.\n"
        f"The answer is to be within {settings.precision:.2%} of the highest rate that would pass, as noise lets it. "
        f"At {start} a side takes {least} to {most}, and the time to start and to stop."
    )


def _rule(settings: TuneSettings) -> str:
    if settings.verdicts_only:
        return ", by its own rule"
    if settings.scenario != SERVER:
        return ""
    late = "than main allows" if settings.latency_limit_ms is None else f"than {settings.latency_limit_ms:g} ms"
    return f", at most {settings.allowed_share:.3g} of the queries later {late}"


def answer_text(campaign: Campaign, campaign_dir: str, width: int) -> str:
    """What came of it, for a person."""
    lines = textwrap.wrap(sentence(_head(campaign)), width)
    for warning in warnings(campaign.asked.run.isolation):
        lines += textwrap.wrap(warning, width)
    known = answers_of(campaign)
    rows = _rows(campaign, known)
    if rows:
        lines += ["", *aligned(_TITLES, rows)]
    for answer in known:
        lines += textwrap.wrap(sentence(f"{answer.side.value}: {answer.why}"), width, subsequent_indent="  ")
    lines += ["", f"Runs         {len(campaign.entries)} in {campaign_dir}"]
    return "\n".join(lines)


def answer_markdown(campaign: Campaign) -> str:
    """The same for a ticket, with every run."""
    head = markdown_text(sentence(_head(campaign)))
    lines = [head, ""]
    for warning in warnings(campaign.asked.run.isolation):
        lines += [f"> {warning}", ""]
    known = answers_of(campaign)
    rows = _rows(campaign, known)
    if rows:
        lines += [*markdown_table([title.lower() for title in _TITLES], rows), ""]
    if known:
        lines += [*(f"- {answer.side.value}: {markdown_text(sentence(answer.why))}" for answer in known), ""]
    return "\n".join([*lines, *markdown_table(_HISTORY, _history(campaign))])


def _history(campaign: Campaign) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, entry in enumerate(campaign.entries, start=1):
        probe, step = entry.probe, entry.step
        late = UNKNOWN if probe is None or probe.misses is None else late_words(probe)
        measured = UNKNOWN if probe is None or probe.achieved_qps is None else f"{probe.achieved_qps:.5g}"
        rows.append(
            (
                str(number),
                step.side.value,
                rate_words(step.rate_qps),
                format_duration_s(step.duration_s),
                f"exit {entry.exit_code}" if probe is None else probe.outcome.value,
                late,
                measured,
                printable(step.why),
            )
        )
    return rows


def conclusion(campaign: Campaign) -> tuple[str, str]:
    """How it came out in a word, and why in a sentence; nothing has come out while the index says of no end."""
    main, scenario = campaign.asked.run.main, campaign.asked.tune.scenario
    if campaign.exit_code is None:
        runs = "1 run" if len(campaign.entries) == 1 else f"{len(campaign.entries)} runs"
        return "not ended", f"It still goes on, or its controller was killed; this is what {runs} came to."
    words = campaign.sentence
    if isinstance(campaign.answer, Done):
        words = f"{main.benchmark} {main.scenario}: {'; '.join(_answer_words(scenario, campaign.answer.answers))}."
        if campaign.exit_code != ExitCode.VALID:
            words = f"{words} {campaign.sentence}"  # what was found is known, and something else is to be said
    return _STATUS.get(campaign.exit_code, "stopped"), sentence(words)


def _head(campaign: Campaign) -> str:
    status, words = conclusion(campaign)
    code = "" if campaign.exit_code is None else f" (exit {int(campaign.exit_code)})"
    return f"{status.upper()}{code}: {words}"


def _answer_words(scenario: str, answers: Sequence[Answer]) -> Iterator[str]:
    alone = next((answer_figure(scenario, answer) for answer in answers if answer.side is Side.ISOLATED), None)
    for answer in answers:
        here = answer_figure(scenario, answer)
        share = f", {here / alone:.1%} of that" if answer.side is Side.BESIDE and alone and here is not None else ""
        yield f"{figure_words(scenario, answer)} {PLACES[answer.side]}{share}"


def figure_words(scenario: str, answer: Answer) -> str:
    """What an answer comes to: the rate in Server, the latency of a stream, which has no rate, else what was measured.

    What Offline expects is none, for a rate expected too high does no harm.
    """
    if scenario == SERVER:
        return rate_words(answer.rate_qps)
    if answer.rate_qps is None:
        latencies = latencies_of(answer)
        return f"{span_words(latencies)} ms" if latencies else UNKNOWN
    return f"{measured_words(answer)} samples/s"


def answer_figure(scenario: str, answer: Answer) -> float | None:
    """The same as a number, the mean of what was measured; None where it was not."""
    if scenario == SERVER:
        return answer.rate_qps
    figures = (
        latencies_of(answer) if answer.rate_qps is None else [one for one in answer.achieved_qps if one is not None]
    )
    return sum(figures) / len(figures) if figures else None


def latencies_of(answer: Answer) -> list[float]:
    """What the confirmations of an answer measured, in ms."""
    return [one for one in answer.percentile_latency_ms if one is not None]


def answers_of(campaign: Campaign) -> tuple[Answer, ...]:
    """The answers of all sides that have one, also where the campaign did not come to its end."""
    return answers(campaign.asked.tune, campaign.probes) if campaign.answer is None else campaign.answer.answers


def _rows(campaign: Campaign, known: Sequence[Answer]) -> list[tuple[str, ...]]:
    """What is known of each side, that on which a campaign came to no answer included."""
    rows = [_row(campaign.asked.tune.scenario, answer) for answer in known]
    answered = {answer.side for answer in known}
    for side in campaign.asked.tune.sides:
        runs = telling(campaign.asked.tune, side, campaign.probes)
        if runs and side not in answered:
            found = bracket_words(bracket(campaign.asked.tune, side, campaign.probes))
            rows.append((side.value, "none", UNKNOWN, UNKNOWN, found, UNKNOWN, str(len(runs))))
    return rows


def _row(scenario: str, answer: Answer) -> tuple[str, ...]:
    latencies = latencies_of(answer)
    return (
        answer.side.value,
        figure_words(scenario, answer),
        measured_words(answer),
        f"{span_words(latencies)} ms" if latencies else UNKNOWN,
        bracket_words(answer.bracket),
        UNKNOWN if answer.noise is None else f"{answer.noise:.1%}",
        str(answer.runs),
    )


def measured_words(answer: Answer) -> str:
    """What the confirmations of an answer measured, in samples a second."""
    rates = [one for one in answer.achieved_qps if one is not None]
    return span_words(rates) if rates else UNKNOWN


def span_words(figures: Sequence[float]) -> str:
    """The least and the greatest, or the one that both are."""
    low, high = f"{min(figures):.4g}", f"{max(figures):.4g}"
    return low if low == high else f"{low} to {high}"


def bracket_words(found: Bracket) -> str:
    """Both ends of a bracket, as far as they are known."""
    low, high = found.low_qps, found.high_qps
    if low is not None and high is not None:
        return f"{low:.5g} to {high:.5g}"
    if low is not None:
        return f"above {low:.5g}"
    return UNKNOWN if high is None else f"below {high:.5g}"


def late_words(probe: Probe) -> str:
    """The share of late queries."""
    share = (probe.misses or 0) / probe.queries if probe.queries else 0.0
    return f"{share:.2%}"


def rate_words(rate_qps: float | None) -> str:
    """A rate as people read it."""
    return "no rate" if rate_qps is None else f"{rate_qps:.5g} qps"
