"""The page of a run: its story and its figures in the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from heteromig.core.degradation import Judgement
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.report import plots, tables
from heteromig.report.page import Fact, Figure, fill
from heteromig.report.plots import legend_rows
from heteromig.report.story import Instrument, State, Story
from heteromig.report.tables import Table
from heteromig.report.words import length_words, slack_with_uncertainty
from heteromig.views.verdict_text import share_words

_TONES = {
    "valid": "good",
    "built": "good",
    "lenient": "warn",
    "inconclusive": "warn",
    "still going on": "warn",
}
_COST_TONES = {Judgement.WORSE: "bad", Judgement.BETTER: "good", Judgement.NO_DIFFERENCE: "good"}
_NOT_MEASURED = "There is no baseline of this main alone, so what the neighbours cost it is not known."


class Reading(Struct, frozen=True):
    """One slice or GPU: its figure, empty where there is nothing to draw, and its table."""

    instrument: Instrument
    svg: str
    says: str
    table: Table


def render(story: Story) -> str:
    """All that there is to see of it."""
    return fill(
        "run.html.jinja",
        story=story,
        tone=_TONES.get(story.headline.status, "bad"),
        going_on=story.state is State.GOING_ON,
        facts=tuple(_facts(story)),
        figures=tuple(_figures(story)),
        legend=tuple(legend_rows()),
        readings=tuple(_readings(story)),
        tables=tables,
        length=length_words(story.length_s),
    )


def _facts(story: Story) -> Iterator[Fact]:
    result = story.result
    if result is not None:
        words, _, more = result.words.partition("; ")
        tone = {True: "good", False: "bad", None: "warn"}[result.valid]
        validity = {True: "VALID", False: "not VALID", None: ""}[result.valid]
        if not result.metrics and result.valid is None:
            words, more = "none yet" if story.state is State.GOING_ON else "none", "main has no result"
        yield Fact("Main's result", words, "; ".join(filter(None, (validity, more))), tone)
    if story.goal == "run" and story.lanes:
        yield _cost(story)
        yield _overlap(story)
    if story.device_guards:
        yield _guards(story)
    main = next((one for one in story.stays if one.name == Phase.MAIN_RUNNING.value), None)
    if main is not None and main.cpu_s is not None and main.end_s > main.begin_s:
        share = 100 * main.cpu_s / (main.end_s - main.begin_s)
        yield Fact("Cost of watching", f"{share:.2f} % of a core", "while main ran")
    yield Fact("Length", length_words(story.length_s), f"begun {story.started_at}")


def _cost(story: Story) -> Fact:
    found = story.degradation
    name = "Cost of the neighbours"
    if found is None:
        return Fact(name, "not known", _NOT_MEASURED)
    against = "Baseline" if len(found.baselines) == 1 else "Baselines"
    detail = (found.sentence, *found.remarks, f"{against}: {' and '.join(found.baselines)}.")
    return Fact(name, found.change.words, " ".join(detail), _COST_TONES.get(found.change.judgement, "warn"))


def _overlap(story: Story) -> Fact:
    if story.overlap_proven is None:
        return Fact("Overlap", "not judged", "main's timed section is not known", "warn")
    if not story.backgrounds:
        return Fact("Overlap", "no background", "main had the GPU to itself")
    slack = f"at worst {_slack(story.slack_before_s)} before and {_slack(story.slack_after_s)} after main"
    if story.overlap_proven and (story.result is None or story.result.valid is None):
        return Fact("Overlap", f"{share_words(story.coverage)} covered", f"{slack}, as far as main went")
    if story.overlap_proven:
        return Fact("Overlap", f"{share_words(story.coverage)} covered", slack, "good")
    return Fact("Overlap", "not proven", f"coverage {share_words(story.coverage)}, {slack}", "bad")


def _slack(slack_s: float | None) -> str:
    return slack_with_uncertainty(slack_s, None)


def _guards(story: Story) -> Fact:
    counts = Counter(one.status for one in story.device_guards)
    violated = counts[Status.VIOLATED]
    words = [f"{counts[status]} {status.value}" for status in Status if counts[status]]
    held = f"{counts[Status.OK]} of {len(story.device_guards)} held"
    return Fact(
        "Device guards", f"{violated} violated" if violated else held, ", ".join(words), "bad" if violated else ""
    )


def _figures(story: Story) -> Iterator[Figure]:
    if not story.lanes:
        return
    yield Figure(
        "timeline",
        "The whole run",
        _timeline_words(story),
        plots.timeline(story, narrow=False),
        plots.timeline(story, narrow=True),
        tables.lanes_table(story),
    )
    for (name, wide), (_, narrow) in zip(
        plots.close_ups(story, narrow=False), plots.close_ups(story, narrow=True), strict=True
    ):
        figures = [one.slack_before_s if name == "begin" else one.slack_after_s for one in story.backgrounds]
        known = [one for one in figures if one is not None]
        where = "before" if name == "begin" else "after"
        ends = list(dict.fromkeys(map(_slack, (min(known), max(known))))) if known else []
        span = " to ".join(ends) or "not known"
        says = f"Slack {where} main: {span}. The table of the overlap below has every figure."
        yield Figure(name, f"Around main's {name}", says, wide, narrow)


def _timeline_words(story: Story) -> str:
    section = story.section
    if section is None:
        slices = f"{len(story.lanes)} slices over {length_words(story.length_s)}"
        if story.goal == "build":
            return f"{slices}. Engines are built one after another, and nothing else runs."
        when = "yet" if story.state is State.GOING_ON else "that is proven"
        return f"{slices}. Main has no timed section {when}."
    return (
        f"{len(story.lanes)} slices over {length_words(story.length_s)}. Main was timed from {section.begin_s:.3f} s "
        f"({section.begin_source}) to {section.end_s:.3f} s ({section.end_source}), which is shaded."
    )


def _readings(story: Story) -> Iterator[Reading]:
    for number, one in enumerate(story.instruments):
        drawn = [chart.name.lower() for chart in one.charts if chart.drawn]
        yield Reading(
            instrument=one,
            svg=plots.instrument(story, one, f"i{number}"),
            says=f"{', '.join(drawn)} over the run; main's timed section is shaded.",
            table=tables.instrument_table(story, one),
        )
