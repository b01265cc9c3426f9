"""The page of a tuning: the answer of each side, how it was found, and every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heteromig.campaign.probes import SERVER, Answer, Bracket, Side, TuneSettings
from heteromig.campaigns.wording import (
    UNKNOWN,
    answer_figure,
    bracket_words,
    figure_words,
    latencies_of,
    measured_words,
    rate_words,
    span_words,
)
from heteromig.core.units import format_duration_s
from heteromig.report import tuning_plots
from heteromig.report.page import Fact, Figure, fill
from heteromig.report.tables import Cell, Table
from heteromig.report.tuning_story import SIDES, Fate, TunedRun, TunedSide, TuningStory
from heteromig.report.words import length_words

_TONES = {"answered": "good", "inconclusive": "warn", "not ended": "warn"}
_FATE_TONES = {Fate.PASSED: "good", Fate.FAILED: "bad", Fate.ENDED: "bad", Fate.NOTHING: "warn"}


def render(story: TuningStory) -> str:
    """All that there is to see of it."""
    used = {(run.fate, run.is_full) for run in story.runs if run.rate_qps is not None}
    return fill(
        "tune.html.jinja",
        story=story,
        tone=_TONES.get(story.status, "bad"),
        facts=tuple(_facts(story)),
        answers=_answers_table(story),
        figures=tuple(_figures(story)),
        marks=tuple((fate.name.lower(), fate.value) for fate in Fate if any(one is fate for one, _ in used)),
        rings=any(is_full for _, is_full in used),
        runs=_runs_table(story),
        knees=any(side.knee is not None for side in story.sides),
        settings=_settings_table(story),
        next=_next_words(story),
    )


def _facts(story: TuningStory) -> Iterator[Fact]:
    for side in story.sides:
        yield _side_fact(story, side)
    if len(story.sides) > 1:
        yield _cost(story)
    counts = Counter(run.fate for run in story.runs)
    full = sum(run.is_full for run in story.runs)
    details = [f"{len(story.runs) - full} short", f"{full} at full length"]
    details += [f"{counts[fate]} {fate.value}" for fate in (Fate.ENDED, Fate.NOTHING) if counts[fate]]
    if story.next is not None:
        details.append(f"at least {length_words(round(story.next.left_s))} left")
    took = length_words(sum(run.took_s for run in story.runs))
    yield Fact("Runs", f"{len(story.runs)} in {took}", ", ".join(details))


def _side_fact(story: TuningStory, side: TunedSide) -> Fact:
    name, answer = SIDES[side.side], side.answer
    if answer is None:
        runs = f"{side.runs} run" if side.runs == 1 else f"{side.runs} runs"
        known = f"{runs}; bracket {_bracket(side.bracket)}" if _known(side.bracket) else runs
        return Fact(name, "no answer", known if side.runs else side.why, "warn")
    passed = len(answer.achieved_qps)
    details = [f"{passed} of {passed} runs at full length passed"]
    if _known(answer.bracket):
        details.append(f"bracket {_bracket(answer.bracket)}")
    if answer.noise is not None:
        details.append(f"runs scatter by {_percent(answer.noise)} about the fitted line")
    return Fact(name, figure_words(story.settings.scenario, answer), "; ".join(details), "good")


def _cost(story: TuningStory) -> Fact:
    """Beside against alone: in the rate, and in the latency where that is known."""
    name = "Cost of the neighbours"
    alone, beside = (
        next((one.answer for one in story.sides if one.side is side), None) for side in (Side.ISOLATED, Side.BESIDE)
    )
    if alone is None or beside is None:
        return Fact(name, "not known", "It takes an answer alone and one beside the backgrounds.", "warn")
    details: list[str] = []
    first, second = _mean(latencies_of(alone)), _mean(latencies_of(beside))
    if first and second is not None and alone.rate_qps == beside.rate_qps:  # at other rates it says nothing
        details.append(f"{_latency_name(story)} {second:.4g} ms beside, {first:.4g} ms alone")
    figures = [answer_figure(story.settings.scenario, one) for one in (alone, beside)]
    if not figures[0] or figures[1] is None:
        return Fact(name, "not known", "; ".join(details))
    if story.settings.scenario == SERVER:
        details.insert(0, f"{figures[1]:.5g} qps beside, {figures[0]:.5g} qps alone{_span(alone, beside)}")
    lower, is_stream = figures[1] < figures[0], alone.rate_qps is None
    what = f"{'lower' if lower else 'higher'} {'latency' if is_stream else 'rate'}"
    return Fact(
        name, f"{_size(figures[1] / figures[0])} {what}", "; ".join(details), "" if lower is is_stream else "bad"
    )


def _span(alone: Answer, beside: Answer) -> str:
    """Between what the cost is if each answer may be anywhere from its own rate to the upper end of its bracket."""
    low, high = (alone.rate_qps, beside.rate_qps), (alone.bracket.high_qps, beside.bracket.high_qps)
    if not (low[0] and low[1] and high[0] and high[1]):
        return ""
    least, most = low[1] / high[0], high[1] / low[0]
    if most > 1:
        return f" (at most {_size(least)} lower by their brackets)" if least < 1 else ""
    return f" ({_size(most)} to {_size(least)} lower by their brackets)"


def _share(share: float) -> str:
    return f"{share:.2%}".replace("%", "\N{NO-BREAK SPACE}%")


def _size(ratio: float) -> str:
    return _percent(abs(ratio - 1))


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _known(found: Bracket) -> bool:
    return found.low_qps is not None or found.high_qps is not None


def _bracket(found: Bracket) -> str:
    return f"{bracket_words(found)} qps" if _known(found) else UNKNOWN


def _latency_name(story: TuningStory) -> str:
    return f"p{100 * story.settings.percentile:.4g}" if story.searches else "latency"


def _answers_table(story: TuningStory) -> Table:
    latency = _latency_name(story)
    heads = ("Side", "Answer", "Measured, samples/s", f"{latency}, ms", "Bracket", "Noise", "Passed", "Runs", "Why")
    return Table(
        caption="What each side came to, and why",
        heads=heads,
        rows=tuple(_answer_row(story.settings.scenario, side) for side in story.sides),
        numeric=frozenset({1, 2, 3, 4, 5, 6, 7}),
    )


def _answer_row(scenario: str, side: TunedSide) -> tuple[Cell, ...]:
    answer = side.answer
    name = Cell(SIDES[side.side])
    if answer is None:
        unknown = [Cell(UNKNOWN, "faint")] * 3
        bracket = Cell(bracket_words(side.bracket), "" if _known(side.bracket) else "faint")
        noise = None if side.knee is None else side.knee.noise
        return (name, *unknown, bracket, _noise(noise), Cell("0"), Cell(str(side.runs)), Cell(side.why))
    latencies = latencies_of(answer)
    return (
        name,
        Cell(figure_words(scenario, answer)),
        Cell(measured_words(answer)),
        Cell(span_words(latencies)) if latencies else Cell(UNKNOWN, "faint"),
        Cell(bracket_words(answer.bracket), "" if _known(answer.bracket) else "faint"),
        _noise(answer.noise),
        Cell(str(len(answer.achieved_qps))),
        Cell(str(side.runs)),
        Cell(side.why),
    )


def _noise(noise: float | None) -> Cell:
    return Cell(UNKNOWN, "faint") if noise is None else Cell(_percent(noise))


def _figures(story: TuningStory) -> Iterator[Figure]:
    wide = tuning_plots.search(story, narrow=False)
    if wide:
        allowed = 100 * story.settings.allowed_share
        yield Figure(
            "search",
            "How many queries were late at which rate",
            "Each mark is a run, with its number: the rate that it was asked for, and the share of its queries that "
            f"took longer than {_limit(story.settings)}, which may be {allowed:.3g} % at most. Of few "
            "queries fewer may be, for LoadGen to be sure: that is what the fitted line has to cross. Both axes are "
            "logarithmic.",
            wide,
            tuning_plots.search(story, narrow=True),
        )
    wide = tuning_plots.history(story, narrow=False)
    if wide:
        what = "The rate that each run was asked for" if story.searches else "What each run measured"
        yield Figure(
            "history",
            "From run to run",
            f"{what}, and the bracket as it was known after it.",
            wide,
            tuning_plots.history(story, narrow=True),
        )


def _runs_table(story: TuningStory) -> Table:
    """What Server measures is what it was asked for, unless it is overloaded; elsewhere it is what is asked."""
    figure = "Late" if story.searches else "Samples/s"
    return Table(
        caption="Every run in its order; its number leads to its page where it has one, its name to its files",
        heads=(
            *("Run", "Side", "Asked for", "For", "Outcome", figure, f"{_latency_name(story)}, ms"),
            *("Bracket then", "Why this rate"),
        ),
        rows=tuple(_run_row(story, run) for run in story.runs),
        numeric=frozenset({0, 2, 3, 5, 6, 7}),
    )


def _run_row(story: TuningStory, run: TunedRun) -> tuple[Cell, ...]:
    late = None if run.late_share is None else _share(run.late_share)
    measured = None if run.achieved_qps is None else f"{run.achieved_qps:.5g}"
    return (
        Cell(str(run.number), href=run.page),
        Cell(SIDES[run.side].split()[0].lower()),
        Cell(rate_words(run.rate_qps)),
        Cell(format_duration_s(run.duration_s), detail="full length" if run.is_full else ""),
        Cell(_outcome(run), _FATE_TONES[run.fate], detail=run.reason),
        _number(late if story.searches else measured),
        _number(None if run.latency_ms is None else f"{run.latency_ms:.4g}"),
        Cell(bracket_words(run.bracket), "" if _known(run.bracket) else "faint"),
        Cell(run.why, detail=run.run_dir, detail_href=run.directory),
    )


def _outcome(run: TunedRun) -> str:
    if run.fate is Fate.PASSED and run.outcome != "valid":
        return f"{run.outcome}, but few were late"
    if run.fate is Fate.NOTHING:
        return f"{run.outcome}: says nothing"
    return run.fate.value if run.fate is Fate.ENDED else run.outcome


def _number(words: str | None) -> Cell:
    return Cell(UNKNOWN, "faint") if words is None else Cell(words)


def _limit(settings: TuneSettings) -> str:
    return "main's own limit" if settings.latency_limit_ms is None else f"{settings.latency_limit_ms:g} ms"


def _settings_table(story: TuningStory) -> Table:
    settings = story.settings
    must, bound = settings.confirmations, settings.most_full_runs
    rows = [
        ("Main", f"{story.benchmark} {story.scenario}"),
        ("Backgrounds", ", ".join(story.backgrounds) or "none"),
        ("Slices", story.slices),
        ("Harness", story.harness),
    ]
    if settings.verdicts_only:
        rows.append(("A run passes", "by its own rule"))
    elif story.searches:
        rows += [
            ("Latency limit", _limit(settings)),
            ("May be later", f"{100 * settings.allowed_share:.3g} % of the queries"),
        ]
    rows += [
        ("First rate", rate_words(settings.start_qps)),
        ("Short runs", f"{format_duration_s(settings.probe_s)} or longer, at most {settings.most_probes} a side"),
        ("Full length", f"{format_duration_s(settings.full_s)}; {must} must pass, at most {bound} are made a side"),
        ("Precision", f"{100 * settings.precision:.4g} % of the rate"),
    ]
    return Table(
        caption="What was asked",
        heads=("Setting", "Value"),
        rows=tuple((Cell(name), Cell(value)) for name, value in rows),
    )


def _next_words(story: TuningStory) -> str:
    """What would be run now, and how long it takes until the end at least."""
    if story.next is None:
        return ""
    step, left = story.next.step, length_words(round(story.next.left_s))
    rate = "" if step.rate_qps is None else f"{rate_words(step.rate_qps)} for "
    what = f"{rate}{format_duration_s(step.duration_s)}"
    return f"The next run is {SIDES[step.side].lower()}, {what}: {step.why}. At least {left} are left."
