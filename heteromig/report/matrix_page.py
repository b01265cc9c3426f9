"""The page of a matrix: what each set of neighbours costs each main, as a heat map and in full, and every run.

The heat map is a table, so that it has heads, can be read aloud and copied, and becomes a list on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from heteromig.campaign.matrix import Ending, Status, order
from heteromig.campaign.probes import OFFLINE, Side
from heteromig.comparing.interference import CellResult, Interference, RunInCell, cost_of
from heteromig.core.degradation import Change, Judgement
from heteromig.report.links import links
from heteromig.report.page import Fact, fill
from heteromig.report.tables import Cell, Table
from heteromig.report.words import length_words
from heteromig.results.metrics import BRAKE, HEAT, POWER, POWER_CAP, QPS, SM_CLOCK, metric_of
from heteromig.results.wording import percent
from heteromig.views.text import crop, printable, sentence
from heteromig.views.verdict_text import warnings

_UNKNOWN = "n/a"
_TONES = {"answered": "good", "inconclusive": "warn", "not ended": "warn"}
_JUDGEMENT_TONES = {Judgement.WORSE: "bad", Judgement.BETTER: "good", Judgement.INCONCLUSIVE: "warn"}
_ENDING_TONES = {Ending.MEASURED: "good", Ending.INVALID: "bad", Ending.FAILED: "bad"}
_SIDES = {Side.ISOLATED: "alone", Side.BESIDE: "beside"}
_FULL_SHARE, _DEEPEST = 0.5, 50
"""A cost of so much and more has the deepest colour, which is so many percent of the colour for what is bad."""
_REASON_CELLS = 90
"""So much of a reason stands in the heat map; all of it is in a table below."""
_THROTTLES = ((HEAT.name, "heat"), (BRAKE.name, "brake"), (POWER_CAP.name, "cap"))


class Heat(Struct, frozen=True):
    """One cell of a heat map. `kind` is its look: known, unsure, failed, pending, none; `percent` how deep its colour.

    `bad` says which colour. `words` are the number, `span` its interval or why there is none, `said` what it means.
    """

    kind: str
    words: str
    span: str = ""
    said: str = ""
    bad: bool = True
    percent: int = 0


class HeatRow(Struct, frozen=True):
    """One main in one scenario, beside each of the sets; `figures` names what changed, where it is a percentile."""

    name: str
    figures: str
    cells: tuple[Heat, ...]


class HeatMap(Struct, frozen=True):
    """Mains in their scenarios by sets of backgrounds."""

    name: str
    title: str
    says: str
    sets: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def render(found: Interference, directory: Path) -> str:
    """All that there is to see of it; its runs are led to where they lie in `directory`."""
    maps = tuple(_maps(found))
    return fill(
        "matrix.html.jinja",
        matrix_id=printable(found.origin.campaign_id),
        directory=printable(str(directory)),
        tool=printable(f"{found.origin.tool.name} {found.origin.tool.version}"),
        mains=", ".join(printable(name) for name in found.settings.mains),
        slices=printable(found.origin.slices),
        harness=printable(found.origin.harness),
        began=printable(found.origin.began_at),
        ended=printable(found.origin.ended_at or ""),
        status=found.status,
        exit_code=found.exit_code,
        tone=_TONES.get(found.status, "bad"),
        sentence=sentence(found.sentence),
        banners=warnings(found.origin.isolation),
        facts=tuple(_facts(found)),
        worst=tuple(sentence(one.sentence) for one in found.worst),
        maps=maps,
        kinds={cell.kind for one in maps for row in one.rows for cell in row.cells},
        better=any(not cell.bad for one in maps for row in one.rows for cell in row.cells),
        scale=tuple((f"{share:.0%}".replace("%", " %"), _depth(share)) for share in (0.05, 0.2, 0.35, _FULL_SHARE)),
        cells=_cells_table(found),
        holes=_holes_table(found),
        notes=tuple(_device_notes(found)),
        runs=_runs_table(found, directory),
        remarks=tuple(map(sentence, found.remarks)),
        settings=_settings_table(found),
        conditions=_pairs("The same in all runs", found.conditions),
        can_go_on=found.can_go_on or found.status == "stopped",
        left=f"{found.runs_left} runs are left, about {length_words(round(found.left_s))}" if found.runs_left else "",
        run=next((printable(run.run_dir) for cell in found.cells for run in cell.runs), "RUN_DIR"),
    )


# --- at a glance ------------------------------------------------------------------------------------------------------


def _facts(found: Interference) -> Iterator[Fact]:
    complete = [cell for cell in found.cells if cell.status is Status.COMPLETE]
    failed = sum(cell.status is Status.FAILED for cell in found.cells)
    pending = len(found.cells) - len(complete) - failed
    details = [f"{count} {what}" for count, what in ((failed, "failed"), (pending, "still to come")) if count]
    tone = "bad" if failed else "" if pending else "good"
    yield Fact("Cells measured", f"{len(complete)} of {len(found.cells)}", ", ".join(details) or "all of them", tone)
    known = [cell for cell in complete if cell.cost is not None and cell.judgement is Judgement.WORSE]
    if known:
        most = max(known, key=lambda cell: 0.0 if cell.cost is None else cell.cost.share)
        change = most.change(most.primary)
        yield Fact("The most that was lost", "" if change is None else printable(change.words), _name(most), "bad")
    elif complete:
        yield Fact("The most that was lost", "nothing known", "no cell is known to be worse beside its neighbours")
    left = f"; about {length_words(round(found.left_s))} left for {found.runs_left}" if found.runs_left else ""
    repeated = f"{found.settings.repetitions + 1} alone and {found.settings.repetitions} beside in each cell"
    yield Fact("Runs", f"{found.runs_done} in {length_words(found.took_s)}", repeated + left)
    if complete:
        sure = sum(cell.cost is not None and cell.cost.low is not None for cell in complete)
        words = f"{found.confidence:.0%}".replace("%", "\N{NO-BREAK SPACE}%")
        said = f"of {sure} cells, in which a change lies with that confidence"
        yield Fact("Intervals", words if sure else "none", said if sure else "they take two repetitions at least")


# --- heat maps --------------------------------------------------------------------------------------------------------


def _maps(found: Interference) -> Iterator[HeatMap]:
    yield _map(
        found.cells,
        "throughput",
        "Throughput",
        "How much less main did beside its neighbours than alone. In Server its rate is given, so that what neighbours "
        "cost shows in its latency.",
        lambda cell: cell.throughput,
    )
    timed = [cell for cell in found.cells if _has_latency(_row(found, cell.main, cell.scenario))]
    if any(cell.latency is not None for cell in timed):
        yield _map(
            timed,
            "latency",
            "Latency",
            "How much longer main's queries took beside its neighbours, at the percentile that the scenario is judged "
            "by. Offline has none.",
            lambda cell: cell.latency,
        )


def _has_latency(row: Sequence[CellResult]) -> bool:
    """Whether a main in a scenario has latencies, as far as one can tell while nothing of it is measured."""
    measured = [cell for cell in row if cell.changes]
    return any(cell.latency is not None for cell in measured) or not (measured or row[0].scenario == OFFLINE)


def _row(found: Interference, main: str, scenario: str) -> list[CellResult]:
    return [cell for cell in found.cells if (cell.main, cell.scenario) == (main, scenario)]


def _map(
    found: Sequence[CellResult], name: str, title: str, says: str, of: Callable[[CellResult], Change | None]
) -> HeatMap:
    sets = list(dict.fromkeys(cell.backgrounds.name for cell in found))
    rows = dict.fromkeys((cell.main, cell.scenario) for cell in found)
    there = {(cell.main, cell.scenario, cell.backgrounds.name): cell for cell in found}
    return HeatMap(
        name=name,
        title=title,
        says=says,
        sets=tuple(map(printable, sets)),
        rows=tuple(
            HeatRow(
                name=f"{printable(main)} {printable(scenario)}",
                figures=", ".join(_figures([there.get((main, scenario, one)) for one in sets], of)),
                cells=tuple(_heat(there.get((main, scenario, one)), of) for one in sets),
            )
            for main, scenario in rows
        ),
    )


def _figures(row: Sequence[CellResult | None], of: Callable[[CellResult], Change | None]) -> dict[str, None]:
    changes = [of(cell) for cell in row if cell is not None]
    return dict.fromkeys(one.metric.name for one in changes if one is not None and one.metric != QPS)


def _heat(cell: CellResult | None, of: Callable[[CellResult], Change | None]) -> Heat:
    if cell is None:
        return Heat("none", _UNKNOWN, said="not in this matrix")
    if cell.status is not Status.COMPLETE:
        return Heat(cell.status.value, cell.status.value, said=crop(sentence(cell.reason), _REASON_CELLS))
    change = of(cell)
    cost = None if change is None else cost_of(change)
    if change is None or change.estimate is None or cost is None:
        return Heat("none", _UNKNOWN, said="" if change is None else sentence(change.words))
    words = percent(change.estimate.change)
    unsure = change.judgement in {Judgement.INCONCLUSIVE, Judgement.NO_DIFFERENCE}
    said = {Judgement.INCONCLUSIVE: "cannot be told", Judgement.NO_DIFFERENCE: "no difference"}
    return Heat(
        "unsure" if unsure else "known",
        words,
        span=_span(change) or "no interval",
        said=said.get(change.judgement, ""),
        bad=cost.share >= 0,
        percent=0 if unsure else _depth(cost.share),
    )


def _depth(share: float) -> int:
    return round(_DEEPEST * min(1.0, abs(share) / _FULL_SHARE))


def _span(change: Change) -> str:
    known = change.estimate
    if known is None or known.low is None or known.high is None:
        return ""
    return f"{percent(known.low).removesuffix(' %')} to {percent(known.high)}"


# --- tables -----------------------------------------------------------------------------------------------------------


def _cells_table(found: Interference) -> Table:
    """Every cell; columns of which no cell knows anything are left out."""
    heads = (
        "Cell",
        "Finding",
        "Throughput",
        "Latency",
        "Own figure",
        "Power, W",
        "SM clock, MHz",
        "Time throttled",
        "Pairs",
    )
    rows = [_cell(cell) for cell in found.cells]
    kept = [place for place in range(len(heads)) if any(row[place].text != _UNKNOWN for row in rows)]
    return Table(
        caption="Each cell: the change from alone to beside its neighbours, with its interval, and both means",
        heads=tuple(heads[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in rows),
        numeric=frozenset(number for number, place in enumerate(kept) if place >= 2),  # noqa: PLR2004 - after words
    )


def _cell(cell: CellResult) -> tuple[Cell, ...]:
    unknown = Cell(_UNKNOWN, "faint")
    name = Cell(_where(cell), detail=f"beside {_neighbours(cell)}")
    if cell.status is not Status.COMPLETE:
        tone = "bad" if cell.status is Status.FAILED else "warn"
        return (name, Cell(cell.status.value, tone), *[unknown] * 7)
    pairs = next((change.estimate.n for change in cell.changes if change.estimate is not None), None)
    return (
        name,
        Cell(_finding(cell), _JUDGEMENT_TONES.get(cell.judgement, "")),
        _changed(cell.throughput),
        _changed(cell.latency),
        _changed(cell.own),
        _from_to(cell.change(POWER.name)),
        _from_to(cell.change(SM_CLOCK.name)),
        _throttled(cell),
        unknown if pairs is None else Cell(str(pairs)),
    )


def _finding(cell: CellResult) -> str:
    change = cell.change(cell.primary)
    if change is None:
        return cell.judgement.value
    return f"{change.metric.title}: {'cannot be told' if cell.judgement is Judgement.INCONCLUSIVE else change.words}"


def _changed(change: Change | None) -> Cell:
    if change is None or change.estimate is None:
        return Cell(_UNKNOWN, "faint")
    own = "" if change.metric == QPS else f"{change.metric.name} "
    span = _span(change)
    both = f"{change.first:.5g} to {change.second:.5g} {change.metric.unit}" if _has_both(change) else ""
    return Cell(f"{own}{percent(change.estimate.change)}", detail="\n".join(filter(None, (span, both))))


def _from_to(change: Change | None) -> Cell:
    if change is None or not _has_both(change):
        return Cell(_UNKNOWN, "faint")
    return Cell(f"{change.first:.0f} to {change.second:.0f}")


def _has_both(change: Change) -> bool:
    return change.first is not None and change.second is not None


def _throttled(cell: CellResult) -> Cell:
    said = [
        f"{words} {change.first:.0f} % to {change.second:.0f} %"
        for name, words in _THROTTLES
        if (change := cell.change(name)) is not None and change.first is not None and change.second is not None
    ]
    return Cell(", ".join(said)) if said else Cell(_UNKNOWN, "faint")


def _holes_table(found: Interference) -> Table:
    """What was not measured, and why: nothing of it is averaged."""
    return Table(
        caption="Cells without figures, of which nothing is averaged",
        heads=("Cell", "Is", "Because"),
        rows=tuple(
            (
                Cell(_name(cell)),
                Cell(cell.status.value, "bad" if cell.status is Status.FAILED else "warn"),
                Cell(sentence(cell.reason)),
            )
            for cell in found.cells
            if cell.status is not Status.COMPLETE
        ),
    )


def _device_notes(found: Interference) -> Iterator[str]:
    """Whose figures those of the device are, and why one is in no cell."""
    every = [change for cell in found.cells for change in cell.changes]
    if any(_has_both(change) for change in every if change.metric in {POWER, SM_CLOCK}):
        yield "Power and clock are those of the whole GPU, neighbours included."
    reasons: dict[str, dict[str, None]] = {}
    for change in every:
        if change.estimate is None and change.metric.name in {POWER.name, SM_CLOCK.name, *dict(_THROTTLES)}:
            reasons.setdefault(sentence(change.words), {})[change.metric.title] = None
    for why, names in reasons.items():
        yield f"Not known: {', '.join(names)}; {why}."


def _runs_table(found: Interference, directory: Path) -> Table:
    """In the order in which they were begun, which their names tell."""
    every = sorted(((run, cell) for cell in found.cells for run in cell.runs), key=lambda one: one[0].run_id)
    return Table(
        caption="Every run that says something of a cell; its number leads to its page, its name to its files",
        heads=("Run", "Cell", "Side", "In the cell", "Came out", "Measured", "Took"),
        rows=tuple(_run(number, run, cell, directory) for number, (run, cell) in enumerate(every, start=1)),
        numeric=frozenset({0, 3, 5, 6}),
    )


def _run(number: int, run: RunInCell, cell: CellResult, directory: Path) -> tuple[Cell, ...]:
    files, page = links(directory, run.run_dir)
    metric = metric_of(cell.primary)
    value = "" if run.value is None else f"{run.value:.5g} {metric.unit}".rstrip()
    return (
        Cell(str(number), href=page),
        Cell(_name(cell), detail=printable(run.run_dir), detail_href=files),
        Cell(_SIDES[run.side]),
        Cell(f"{run.position + 1}", detail=f"try {run.attempt}" if run.attempt > 1 else ""),
        Cell(run.ending.value, _ENDING_TONES[run.ending], detail=sentence(run.reason)),
        Cell(value) if value else Cell(_UNKNOWN, "faint"),
        Cell(_UNKNOWN, "faint") if run.took_s is None else Cell(length_words(run.took_s)),
    )


def _settings_table(found: Interference) -> Table:
    settings = found.settings
    letters = " ".join("A" if side is Side.ISOLATED else "B" for side in order(settings.repetitions))
    rows = [
        ("Mains", ", ".join(settings.mains)),
        ("Scenarios", ", ".join(settings.scenarios)),
        *((f"Set {one.name}", ", ".join(one.benchmarks)) for one in settings.background_sets),
        ("Each neighbour alone", "yes" if settings.one_at_a_time else "no"),
        ("Order in a cell", f"{letters}: A is main alone, B is beside, so that what drifts evenly cancels"),
        ("Tries of a run", str(settings.most_retries + 1)),
        ("Slices", found.origin.slices),
        ("Harness", found.origin.harness),
    ]
    return _pairs("What was asked", rows)


def _pairs(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(
        caption=caption,
        heads=("Setting", "Value"),
        rows=tuple((Cell(printable(name)), Cell(sentence(value))) for name, value in rows),
    )


def _where(cell: CellResult) -> str:
    return f"{printable(cell.main)} {printable(cell.scenario)}"


def _neighbours(cell: CellResult) -> str:
    name, names = printable(cell.backgrounds.name), ", ".join(map(printable, cell.backgrounds.benchmarks))
    return name if name in {names, f"only {names}"} else f"{name} ({names})"


def _name(cell: CellResult) -> str:
    return f"{_where(cell)} beside {printable(cell.backgrounds.name)}"
