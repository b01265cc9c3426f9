"""A tuning in words: a line for each run while it goes on, and in the end the answer, as text or as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from heteromig.campaign.probes import SERVER, Answer, Bracket, Confirm, Done, Probe, Side, TuneSettings
from heteromig.campaign.tuning import bracket
from heteromig.campaigns.directory import Campaign, Wanted
from heteromig.core.units import format_duration_s
from heteromig.core.verdict import ExitCode
from heteromig.views.text import printable, sentence
from heteromig.views.verdict_text import SIMULATED_NOTE

_UNKNOWN = "n/a"
_TITLES = ("SIDE", "ANSWER", "MEASURED", "LATENCY", "BRACKET", "NOISE", "RUNS")
_HISTORY = ("run", "side", "asked for", "duration", "outcome", "late", "measured", "why this rate")
_PLACES = {Side.ISOLATED: "alone", Side.BESIDE: "beside its backgrounds"}
_FIRST_PROBES = 1
"""Short runs that a side takes at least."""
_STATUS: dict[int, str] = {ExitCode.VALID: "answered", ExitCode.INCONCLUSIVE: "inconclusive"}


def begun_line(campaign: Campaign, step: Wanted) -> str:
    """What is run next, why, and how long all of it takes at least."""
    number = len(campaign.entries) + 1
    confirming = f", confirmation {step.number} of {step.of}" if isinstance(step, Confirm) else ""
    left = format_duration_s(round(least_left_s(campaign, step)))
    what = f"{_rate(step.rate_qps)} for {format_duration_s(step.duration_s)}{confirming}"
    return sentence(f"{number}: {step.side.value}, {what}: {step.why}; at least {left} left")


def ended_line(campaign: Campaign) -> str:
    """How the last run came out, and what is known now."""
    number, entry = len(campaign.entries), campaign.entries[-1]
    probe = entry.probe
    if probe is None:
        return sentence(f"{number}: {entry.step.side.value}, exit {entry.exit_code}: {campaign.sentence}")
    found = bracket(campaign.asked.tune, probe.side, campaign.probes)
    details = [
        *([f"{_late(probe)} of {probe.queries} queries late"] if probe.misses is not None else []),
        *([f"{probe.achieved_qps:.5g} samples/s"] if probe.achieved_qps is not None else []),
        *([f"latency {probe.percentile_latency_ms:.4g} ms"] if probe.percentile_latency_ms is not None else []),
        *([f"bracket {_bracket(found)}"] if found.low_qps is not None or found.high_qps is not None else []),
    ]
    said = f": {probe.reason}" if probe.reason else ""
    head = f"{number}: {probe.side.value}, {_rate(probe.rate_qps)} {probe.outcome.value.upper()}"
    return sentence(f"{head}, {', '.join(details)}{said}" if details else f"{head}{said}")


def least_left_s(campaign: Campaign, step: Wanted) -> float:
    """How long it takes at least from the beginning of a run: all that is surely still to come, if all of it passes."""
    settings = campaign.asked.tune
    more_s = sum(entry.took_s - entry.step.duration_s for entry in campaign.entries) / max(1, len(campaign.entries))
    sides = settings.sides[settings.sides.index(step.side) + 1 :]
    runs = [step.duration_s]
    confirmed = step.number if isinstance(step, Confirm) else 0
    runs += [settings.full_s] * (settings.confirmations - confirmed)
    for _ in sides:
        runs += [settings.probe_s] * _FIRST_PROBES + [settings.full_s] * settings.confirmations
    return sum(duration_s + more_s for duration_s in runs)


def plan_text(settings: TuneSettings, spec_text: str) -> str:
    """What would be done, before anything is."""
    sides = " and then ".join(_PLACES[side] for side in settings.sides)
    limit = f", at most {settings.allowed_share:.3g} of the queries later than {settings.latency_limit_ms:g} ms"
    start = _rate(settings.start_qps)
    probe, full = format_duration_s(settings.probe_s), format_duration_s(settings.full_s)
    passing = settings.confirmations
    bound = settings.most_confirmations + passing - 1  # a rate that passes so far is not left when the first is reached
    least = format_duration_s(settings.probe_s + settings.confirmations * settings.full_s)
    most = format_duration_s(settings.most_probes * settings.probe_s + bound * settings.full_s)
    return (
        f"Tune {spec_text} {sides}{limit if settings.latency_limit_ms else ''}.\n"
        f"Start at {start}; short runs of {probe}, at most {settings.most_probes} a side; then runs of {full}, "
        f"of which {passing} must pass, at most {bound} a side.\n"
        f"The answer is to be within {settings.precision:.2%} of the highest rate that would pass. A side takes "
        f"{least} to {most}, and the time to start and to stop."
    )


def answer_text(campaign: Campaign, campaign_dir: str, width: int) -> str:
    """What came of it, for a person."""
    lines = textwrap.wrap(sentence(_head(campaign)), width)
    if campaign.asked.run.simulated:
        lines += textwrap.wrap(SIMULATED_NOTE, width)
    rows = [_row(answer) for answer in _answers(campaign)]
    if rows:
        table = [_TITLES, *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(_TITLES))]
        lines.append("")
        lines += ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in table]
    for answer in _answers(campaign):
        lines += textwrap.wrap(sentence(f"{answer.side.value}: {answer.why}"), width, subsequent_indent="  ")
    lines += ["", f"Runs         {len(campaign.entries)} in {campaign_dir}"]
    return "\n".join(lines)


def answer_markdown(campaign: Campaign) -> str:
    """The same for a ticket, with every run."""
    head = _escaped(sentence(_head(campaign)))
    lines = [head, ""]
    if campaign.asked.run.simulated:
        lines += [f"> {SIMULATED_NOTE}", ""]
    answers = _answers(campaign)
    if answers:
        lines += [*_markdown([title.lower() for title in _TITLES], [_row(answer) for answer in answers]), ""]
        lines += [*(f"- {answer.side.value}: {_escaped(sentence(answer.why))}" for answer in answers), ""]
    return "\n".join([*lines, *_markdown(_HISTORY, _history(campaign))])


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells]


def _history(campaign: Campaign) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, entry in enumerate(campaign.entries, start=1):
        probe, step = entry.probe, entry.step
        late = _UNKNOWN if probe is None or probe.misses is None else _late(probe)
        measured = _UNKNOWN if probe is None or probe.achieved_qps is None else f"{probe.achieved_qps:.5g}"
        rows.append(
            (
                str(number),
                step.side.value,
                _rate(step.rate_qps),
                format_duration_s(step.duration_s),
                f"exit {entry.exit_code}" if probe is None else probe.outcome.value,
                late,
                measured,
                printable(step.why),
            )
        )
    return rows


def _head(campaign: Campaign) -> str:
    main = campaign.asked.run.main
    code = ExitCode.INTERNAL if campaign.exit_code is None else campaign.exit_code
    status = _STATUS.get(code, "stopped").upper()
    words = campaign.sentence
    if isinstance(campaign.answer, Done):
        words = f"{main.benchmark} {main.scenario}: {'; '.join(_answer_words(main.scenario, campaign.answer.answers))}."
    return f"{status} (exit {int(code)}): {words}"


def _answer_words(scenario: str, answers: Sequence[Answer]) -> Iterator[str]:
    """In Server the rate is the answer; elsewhere what was measured, for a rate expected too high does no harm."""
    alone = next((_figure(scenario, answer) for answer in answers if answer.side is Side.ISOLATED), None)
    for answer in answers:
        figure = _rate(answer.rate_qps) if scenario == SERVER else f"{_measured(answer)} samples/s"
        here = _figure(scenario, answer)
        share = f", {here / alone:.1%} of that" if answer.side is Side.BESIDE and alone and here is not None else ""
        yield f"{figure} {_PLACES[answer.side]}{share}"


def _figure(scenario: str, answer: Answer) -> float | None:
    rates = [one for one in answer.achieved_qps if one is not None]
    mean = sum(rates) / len(rates) if rates else None
    return answer.rate_qps if scenario == SERVER else mean


def _answers(campaign: Campaign) -> tuple[Answer, ...]:
    return campaign.answer.answers if campaign.answer is not None else ()


def _row(answer: Answer) -> tuple[str, ...]:
    latencies = [one for one in answer.percentile_latency_ms if one is not None]
    return (
        answer.side.value,
        _rate(answer.rate_qps),
        _measured(answer),
        f"{_span(latencies)} ms" if latencies else _UNKNOWN,
        _bracket(answer.bracket),
        _UNKNOWN if answer.noise is None else f"{answer.noise:.1%}",
        str(answer.runs),
    )


def _measured(answer: Answer) -> str:
    rates = [one for one in answer.achieved_qps if one is not None]
    return _span(rates) if rates else _UNKNOWN


def _span(figures: Sequence[float]) -> str:
    low, high = f"{min(figures):.4g}", f"{max(figures):.4g}"
    return low if low == high else f"{low} to {high}"


def _bracket(found: Bracket) -> str:
    low, high = found.low_qps, found.high_qps
    if low is not None and high is not None:
        return f"{low:.5g} to {high:.5g}"
    if low is not None:
        return f"above {low:.5g}"
    return _UNKNOWN if high is None else f"below {high:.5g}"


def _late(probe: Probe) -> str:
    share = (probe.misses or 0) / probe.queries if probe.queries else 0.0
    return f"{share:.2%}"


def _rate(rate_qps: float | None) -> str:
    return "no rate" if rate_qps is None else f"{rate_qps:.5g} qps"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
