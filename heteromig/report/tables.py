"""Everything that a story can say in rows: the words beside each figure, and the tables that have no figure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from heteromig.core.guards import Status
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.phases import Role
from heteromig.core.units import format_bytes
from heteromig.report.story import Instrument, Kind, Lane, Series, Story
from heteromig.report.words import NONE, length_words, moment_words, slack_with_uncertainty
from heteromig.views.text import short_uuid
from heteromig.views.verdict_text import covered_words, gaps_words, share_words

_COVERED_TONES = {True: "good", False: "bad", None: "warn"}
_STATUS_TONES = {Status.OK: "good", Status.VIOLATED: "bad", Status.NOT_OBSERVABLE: "warn"}


class Cell(Struct, frozen=True):
    """`tone` is good, warn, bad or nothing; `code` is for what is copied or compared letter by letter.

    `detail` is what stands below it, smaller, in as many lines as it has; `href` and `detail_href` are where the two
    lead, beside the page.
    """

    text: str
    tone: str = ""
    code: bool = False
    detail: str = ""
    href: str = ""
    detail_href: str = ""


class Table(Struct, frozen=True):
    """Rows under heads; `numeric` are the columns that are aligned as numbers, `rows` are as wide as `heads`."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()


def lanes_table(story: Story) -> Table:
    """What the timeline shows: when each slice was used for what."""
    return Table(
        caption="When what happened on each slice, in seconds since the run began",
        heads=("Slice", "Worker", "Builds", "Started", "Announced", "Timed", "Busy", "Timed until", "Gone", "Ending"),
        rows=tuple(_lane(lane) for lane in story.lanes),
        numeric=frozenset(range(2, 9)),
    )


def _lane(lane: Lane) -> tuple[Cell, ...]:
    builds = [one for one in lane.intervals if one.kind is Kind.BUILD]
    timed = [one for one in lane.intervals if one.kind in {Kind.TIMED, Kind.BUSY}]
    stop = lane.first(Kind.STOP)
    worker = lane.worker
    ended_s = stop.begin_s if stop is not None else timed[-1].end_s if timed else None
    begins = [lane.first(kind) for kind in (Kind.START, Kind.ANNOUNCED)]
    busy = lane.first(Kind.BUSY)
    words = f"{len(builds)}, until {builds[-1].end_s:.3f} s" if builds else NONE
    return (
        Cell(f"{lane.profile} {lane.name}"),
        Cell(f"{lane.label} ({worker.role.value})" if worker is not None else "nobody"),
        Cell(words),
        *(Cell(moment_words(one.begin_s if one is not None else None)) for one in begins),
        Cell(moment_words(timed[0].begin_s if timed else None)),
        Cell(moment_words(busy.begin_s if busy is not None else None)),
        Cell(moment_words(ended_s)),
        Cell(moment_words(worker.exited_s if worker is not None else None)),
        Cell(worker.ending if worker is not None else NONE),
    )


def overlap_table(story: Story) -> Table:
    """The proof: each background against main's timed section."""
    return Table(
        caption="Each background against main's timed section",
        heads=(
            "Background",
            "Timed during main",
            "Coverage",
            "Before main",
            "After main",
            "Gaps",
            "Evidence",
            "Its ends are",
        ),
        rows=tuple(
            (
                Cell(f"{one.worker} {one.benchmark}"),
                Cell(covered_words(one), _COVERED_TONES[one.covered]),
                Cell(share_words(one.coverage)),
                Cell(slack_with_uncertainty(one.slack_before_s, one.uncertainty_s), _slack_tone(one.slack_before_s)),
                Cell(slack_with_uncertainty(one.slack_after_s, one.uncertainty_s), _slack_tone(one.slack_after_s)),
                _gaps(story, one),
                Cell(one.evidence.value),
                Cell(f"{one.begin_source or NONE}, {one.end_source or NONE}"),
            )
            for one in story.backgrounds
        ),
        numeric=frozenset({2, 3, 4}),
    )


def _gaps(story: Story, one: BackgroundOverlap) -> Cell:
    if story.section is None or story.gap_threshold_s is None or (one.covered is None and one.coverage is None):
        return Cell(NONE)
    return Cell(gaps_words(one, story.gap_threshold_s), "bad" if one.gaps else "warn" if one.gaps is None else "")


def _slack_tone(slack_s: float | None) -> str:
    return "warn" if slack_s is None else "bad" if slack_s < 0 else ""


def instrument_table(story: Story, one: Instrument) -> Table:
    """What a figure of readings shows, and why there is nothing where there is nothing."""
    series = [series for chart in one.charts for series in chart.series]
    missing: dict[str, list[str]] = {}
    for reading in series:
        if not reading.values:
            missing.setdefault(reading.missing, []).append(reading.name)
    return Table(
        caption="Readings while main was timed" if story.section is not None else "Readings over the whole run",
        heads=("Reading", "Samples", "Least", "Median", "Greatest"),
        rows=(
            *(_reading(story, reading) for reading in series if reading.values),
            *((Cell(", ".join(names)), Cell(f"n/a: {why}", "na")) for why, names in missing.items()),
        ),
        numeric=frozenset({1, 2, 3, 4}),
    )


def _reading(story: Story, series: Series) -> tuple[Cell, ...]:
    name = Cell(f"{series.name}, {series.unit}")
    values = [series.values[index] for index in story.in_main(series.times_s)]
    if not values:
        return (name, Cell("n/a: none was read while main was timed", "na"))
    figures = (min(values), median(values), max(values))
    return (name, Cell(str(len(values))), *(Cell(_figure(value)) for value in figures))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - decimals of less than a thousandth


def device_table(story: Story) -> Table:
    """What the samples prove of GPUs and slices."""
    return Table(
        caption="What all samples together show of the devices",
        heads=("Guard", "Of", "Status", "Before", "After", "Evidence"),
        rows=tuple(
            (
                Cell(one.guard.replace("_", " ")),
                Cell(short_uuid(one.scope)),
                Cell(one.status.value, _STATUS_TONES[one.status]),
                Cell(one.before or NONE),
                Cell(one.after or NONE),
                Cell(one.evidence),
            )
            for one in story.device_guards
        ),
    )


def passages_table(story: Story) -> Table:
    """On what the run went from one phase to the next."""
    return Table(
        caption="The guards on which the run went on, with their evidence",
        heads=("At", "From", "To", "Guard", "Status", "Evidence"),
        rows=tuple(
            (
                Cell(moment_words(one.at_s)),
                Cell(one.source),
                Cell(one.destination),
                Cell(finding.guard.replace("_", " ")),
                Cell(finding.status.value, _STATUS_TONES[finding.status]),
                Cell(finding.evidence),
            )
            for one in story.passages
            for finding in one.findings
        ),
        numeric=frozenset({0}),
    )


def waits_table(story: Story) -> Table:
    """What the run waited for on the way."""
    return Table(
        caption="Guards that said no for a while: what the run waited for",
        heads=("At", "Guard", "Status", "Evidence"),
        rows=tuple(
            (
                Cell(moment_words(at_s)),
                Cell(one.guard.replace("_", " ")),
                Cell(one.status.value),
                Cell(one.evidence),
            )
            for at_s, one in story.waits
        ),
        numeric=frozenset({0}),
    )


def phases_table(story: Story) -> Table:
    """How long each phase took, and what watching cost in it."""
    return Table(
        caption="What watching cost: processor time of the controller, and how often it woke up",
        heads=("Phase", "Begins", "Lasts", "CPU", "Of a core", "Wake-ups"),
        rows=tuple(
            (
                Cell(one.name),
                Cell(moment_words(one.begin_s)),
                Cell(length_words(one.end_s - one.begin_s)),
                Cell("unknown" if one.cpu_s is None else f"{one.cpu_s:.3f} s"),
                Cell(_core_share(one.cpu_s, one.end_s - one.begin_s)),
                Cell("unknown" if one.wakeups is None else str(one.wakeups)),
            )
            for one in story.stays
        ),
        numeric=frozenset({1, 2, 3, 4, 5}),
    )


def _core_share(cpu_s: float | None, lasted_s: float) -> str:
    return NONE if cpu_s is None or lasted_s < 0.1 else f"{100 * cpu_s / lasted_s:.2f} %"  # noqa: PLR2004 - too short


def workers_table(story: Story) -> Table:
    """The plan, as it was carried out."""
    return Table(
        caption="Who was to run where",
        heads=("Worker", "Role", "Benchmark", "Scenario", "Mode", "Accuracy", "Asked for", "Slice", "Processors"),
        rows=tuple(
            (
                Cell(str(one.index)),
                Cell(one.role.value),
                Cell(one.benchmark),
                Cell(one.scenario),
                Cell(NONE if one.role is Role.BUILD else one.mode),
                Cell(one.accuracy or NONE),
                Cell(length_words(one.duration_s)),
                Cell(one.slice_uuid, code=True),
                Cell(one.cpus),
            )
            for one in story.workers
        ),
        numeric=frozenset({0}),
    )


def marks_table(story: Story) -> Table:
    """What a reader has to know of the way: deaths, signals, faults of devices."""
    by_index = {one.index: one for one in story.workers}
    return Table(
        caption="What went wrong on the way, or was done to the devices",
        heads=("At", "Who", "What", "Its last line"),
        rows=tuple(
            (
                Cell(moment_words(one.at_s)),
                Cell(_who(story, one.worker)),
                Cell(one.what, "bad" if one.bad else ""),
                Cell((by_index[one.worker].last_line if one.worker in by_index else "") or NONE),
            )
            for one in story.marks
            if one.bad or one.worker is None
        ),
        numeric=frozenset({0}),
    )


def _who(story: Story, index: int | None) -> str:
    worker = next((one for one in story.workers if one.index == index), None)
    return "the run" if worker is None else f"{worker.role.value} {worker.index} {worker.benchmark}"


def pairs_table(caption: str, heads: tuple[str, str], pairs: Sequence[tuple[str, str]]) -> Table:
    """Names and values as they are in a log."""
    return Table(
        caption=caption,
        heads=heads,
        rows=tuple((Cell(name, code=True), Cell(value)) for name, value in pairs),
        numeric=frozenset({1}),
    )


def files_table(story: Story) -> Table:
    """What the run consists of."""
    return Table(
        caption="Every file of the run as it is now",
        heads=("File", "Size", "SHA-256"),
        rows=tuple(
            (Cell(one.path, code=True), Cell(format_bytes(one.bytes)), Cell(one.sha256, code=True))
            for one in story.files
        ),
        numeric=frozenset({1}),
    )
