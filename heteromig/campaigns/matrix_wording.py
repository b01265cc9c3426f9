"""A matrix in words: its plan, a line for each run while it goes on, and what it came to as text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence

from heteromig.campaign.matrix import Cell, CellRun, Ending, RunCell, Status, cells, expected_s, order, states
from heteromig.campaign.probes import SERVER, Side
from heteromig.campaigns.directory import MATRIX
from heteromig.campaigns.matrix_asking import Asking
from heteromig.campaigns.matrix_index import MatrixIndex
from heteromig.campaigns.rows import aligned, markdown_table
from heteromig.comparing.interference import P99, CellResult, Interference
from heteromig.core.degradation import Change
from heteromig.core.units import format_duration_s
from heteromig.results.metrics import BRAKE, HEAT, POWER, POWER_CAP, QPS, SM_CLOCK, metric_of
from heteromig.results.wording import percent
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.text import markdown_text, printable, sentence
from heteromig.views.verdict_text import warnings

_UNKNOWN = "n/a"
_BESIDE_THEM = (POWER, SM_CLOCK, HEAT, BRAKE, POWER_CAP)
"""What is told of the GPU, alone and beside."""
_WHOLE_GPU = "Power and clock are those of the whole GPU, neighbours included."
_TO_CSV = (QPS.name, "p90", P99, POWER.name, SM_CLOCK.name, HEAT.name, BRAKE.name, POWER_CAP.name)
_OF_A_CHANGE = ("alone", "beside", "change", "low", "high", "judgement")


def plan_text(asked: Asking, width: int) -> str:
    """What would be done, before anything is."""
    settings = asked.settings
    every, sides = cells(settings), order(settings.repetitions)
    letters = "".join("A" if side is Side.ISOLATED else "B" for side in sides)
    count = len(every) * len(sides)
    head = (
        f"{_count(len(every), 'cell')} of {_count(len(sides), 'run')}, {count} in all, about "
        f"{format_duration_s(round(expected_s(settings)))}{_builds(asked)}. Each cell is {letters}: "
        "A is main alone, everything else idle, B is beside its backgrounds. A run that fails or is not VALID is tried "
        f"again {_times(settings.most_retries)}."
    )
    if asked.target_qps and SERVER not in settings.scenarios:
        head += " No cell is Server, so that [matrix.target-qps] is not used."
    return "\n".join(
        [*textwrap.wrap(head, width), "", *aligned(("CELL", "MAIN", "SCENARIO", "BESIDE"), _planned(every))]
    )


def progress_of(index: MatrixIndex, step: RunCell) -> CampaignProgress:
    """How far it is, for the picture of the run in hand."""
    settings = index.asked.matrix
    done = CellRun(step.cell, step.position, Ending.MEASURED, run_id="in hand")
    return CampaignProgress(
        campaign=MATRIX,
        number=len(index.entries) + 1,
        of=len(index.entries) + _left(index),
        what=_what(step),
        took_s=sum(entry.took_s for entry in index.entries),
        left_s=step.remaining_s,
        after_s=expected_s(settings, (*index.runs, done)),
    )


def begun_line(index: MatrixIndex, step: RunCell) -> str:
    """What is run next, and how long all of it takes."""
    left = format_duration_s(round(step.remaining_s))
    number = len(index.entries) + 1
    again = f" ({step.why})" if step.attempt > 1 else ""
    return sentence(f"{number} of {len(index.entries) + _left(index)}: {_what(step)}{again}; about {left} left")


def _what(step: RunCell) -> str:
    place = "alone" if step.side is Side.ISOLATED else f"beside {step.cell.backgrounds.name}"
    return f"{step.cell.main} {step.cell.scenario} {place}"


def _left(index: MatrixIndex) -> int:
    """How many runs are left if none fails, the next one included."""
    known = states(index.asked.matrix, index.runs)
    return sum(one.measured.count(None) for one in known if one.status is Status.PENDING)


def ended_lines(index: MatrixIndex, found: Interference) -> Iterator[str]:
    """How the last run came out, and its cell, if that was the last of it."""
    entry = index.entries[-1]
    if entry.run is None:
        yield sentence(f"exit {entry.exit_code}: {index.sentence}")
        return
    cell = next(one for one in found.cells if _is_of(one, entry.step.cell))
    run = next(one for one in cell.runs if one.run_id == entry.run.run_id)
    value = "" if run.value is None else f", {_figure(cell, run.value)}"
    said = f": {run.reason}" if run.reason else ""
    yield sentence(f"{run.ending.value}{value}{said}")
    if cell.status is not Status.PENDING:
        yield sentence(f"{name_of(cell)}: {cell.sentence or f'failed, {cell.reason}'}")


def name_of(cell: CellResult) -> str:
    """Of a cell, for people."""
    return f"{cell.main} {cell.scenario} beside {cell.backgrounds.name}"


def answer_text(found: Interference, campaign_dir: str, width: int) -> str:
    """What it came to, for a person."""
    lines = textwrap.wrap(sentence(_head(found)), width)
    for warning in warnings(found.origin.isolation):
        lines += textwrap.wrap(warning, width)
    lines += ["", *aligned(*_results(found))]
    for note in _notes(found):
        lines += textwrap.wrap(sentence(note), width, subsequent_indent="  ")
    lines += ["", f"Runs         {found.runs_done} in {campaign_dir}, matrix.md, .csv and .json"]
    return "\n".join(lines)


def answer_markdown(found: Interference) -> str:
    """The same for a ticket, with every run."""
    titles, rows = _results(found)
    lines = [markdown_text(sentence(_head(found))), ""]
    for warning in warnings(found.origin.isolation):
        lines += [f"> {warning}", ""]
    lines += [*markdown_table([title.lower() for title in titles], rows), ""]
    lines += [*(f"- {markdown_text(sentence(note))}" for note in _notes(found)), ""]
    lines += markdown_table(("run", "cell", "side", "came out", "measured", "took"), _runs(found))
    if found.conditions:
        lines += [
            "",
            *markdown_table(
                ("the same in all runs", ""), [(name, printable(value)) for name, value in found.conditions]
            ),
        ]
    return "\n".join(lines)


def answer_csv(found: Interference) -> str:
    """One line a cell: shares and figures as numbers, empty where something is not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ("main", "scenario", "background_set", "backgrounds", "status", "reason", "repetitions", "primary")
    writer.writerow([*head, *(f"{name}_{part}" for name in _TO_CSV for part in _OF_A_CHANGE)])
    for cell in found.cells:
        names = "+".join(cell.backgrounds.benchmarks)
        row = [cell.main, cell.scenario, cell.backgrounds.name, names, cell.status.value, printable(cell.reason)]
        figures = [part for name in _TO_CSV for part in _parts(cell.change(name))]
        writer.writerow([*row, found.settings.repetitions, cell.primary, *figures])
    return out.getvalue()


def _parts(change: Change | None) -> tuple[object, ...]:
    if change is None or change.estimate is None:
        return (None,) * len(_OF_A_CHANGE)
    known = change.estimate
    return change.first, change.second, known.change, known.low, known.high, change.judgement.value


def _head(found: Interference) -> str:
    code = "" if found.exit_code is None else f" (exit {int(found.exit_code)})"
    return f"{found.status.upper()}{code}: {found.sentence}"


def _results(found: Interference) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and a row a cell; columns of which no cell knows anything are left out."""
    titles = [
        "MAIN",
        "SCENARIO",
        "BESIDE",
        "FINDING",
        "THROUGHPUT",
        "LATENCY",
        "OWN FIGURE",
        "POWER W",
        "CLOCK MHZ",
        "THROTTLED",
    ]
    rows = [_result(cell) for cell in found.cells]
    kept = [place for place in range(len(titles)) if place < 4 or any(row[place] != _UNKNOWN for row in rows)]  # noqa: PLR2004 - those that are always there
    return tuple(titles[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _result(cell: CellResult) -> tuple[str, ...]:
    first = (cell.main, cell.scenario, printable(cell.backgrounds.name))
    if cell.status is not Status.COMPLETE:
        return (*first, cell.status.value.upper(), *((_UNKNOWN,) * 6))
    return (
        *first,
        cell.judgement.value,
        _changed(cell.throughput),
        _changed(cell.latency),
        _changed(cell.own),
        _from_to(cell.change(POWER.name)),
        _from_to(cell.change(SM_CLOCK.name)),
        _throttled(cell),
    )


def _changed(change: Change | None) -> str:
    """`-12.3 % (-14.5 % to -10.1 %)`, with the name of the metric where that is not its column's."""
    if change is None or change.estimate is None:
        return _UNKNOWN
    known = change.estimate
    own = "" if change.metric == QPS else f"{change.metric.name} "
    if known.low is None or known.high is None:
        return f"{own}{percent(known.change)}"
    return f"{own}{percent(known.change)} ({percent(known.low)} to {percent(known.high)})"


def _from_to(change: Change | None) -> str:
    if change is None or change.first is None or change.second is None:
        return _UNKNOWN
    return f"{change.first:.0f} to {change.second:.0f}"


def _throttled(cell: CellResult) -> str:
    """Beside the backgrounds, by heat, brake or power cap, as shares of main's timed section."""
    said = [
        f"{name} {change.second:.0f} %"
        for name, change in (
            ("heat", cell.change(HEAT.name)),
            ("brake", cell.change(BRAKE.name)),
            ("cap", cell.change(POWER_CAP.name)),
        )
        if change is not None and change.second is not None
    ]
    return ", ".join(said) or _UNKNOWN


def _notes(found: Interference) -> Iterator[str]:
    """What is to be known besides the table."""
    yield from (one.sentence for one in found.worst)
    for cell in found.cells:
        if cell.status is not Status.COMPLETE:
            yield f"{name_of(cell)}: {cell.status.value}, {cell.reason}."
    yield from found.remarks
    every = [change for cell in found.cells for change in cell.changes]
    if any(change.estimate is not None for change in every if change.metric in (POWER, SM_CLOCK)):
        yield _WHOLE_GPU
    reasons: dict[str, dict[str, None]] = {}
    for change in every:
        if change.estimate is None and change.metric in _BESIDE_THEM:
            reasons.setdefault(change.words, {})[change.metric.title] = None
    for why, names in reasons.items():
        yield f"Not known: {', '.join(names)}; {why}."


def _runs(found: Interference) -> Iterator[tuple[str, ...]]:
    for cell in found.cells:
        for run in cell.runs:
            value = _UNKNOWN if run.value is None else _figure(cell, run.value)
            took = _UNKNOWN if run.took_s is None else format_duration_s(run.took_s)
            came_out = f"{run.ending.value}: {printable(run.reason)}" if run.reason else run.ending.value
            yield run.run_dir, name_of(cell), run.side.value, came_out, value, took


def _figure(cell: CellResult, value: float) -> str:
    """`1003.6 samples/s`, `p99 12.345 ms`."""
    metric = metric_of(cell.primary)
    return f"{'' if metric == QPS else f'{metric.name} '}{value:.5g} {metric.unit}".rstrip()


def _planned(every: Sequence[Cell]) -> list[tuple[str, ...]]:
    return [
        (str(number), cell.main, cell.scenario, _neighbours(cell.backgrounds.name, cell.backgrounds.benchmarks))
        for number, cell in enumerate(every, 1)
    ]


def _neighbours(name: str, benchmarks: Sequence[str]) -> str:
    names = ", ".join(benchmarks)
    return printable(name) if name in {names, f"only {names}"} else f"{printable(name)} ({names})"


def _is_of(result: CellResult, cell: Cell) -> bool:
    return (result.main, result.scenario, result.backgrounds) == (cell.main, cell.scenario, cell.backgrounds)


def _builds(asked: Asking) -> str:
    missing = len(asked.missing_engines)
    return f", and the time to build {_count(missing, 'engine')} first" if missing else "; every engine is there"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")
