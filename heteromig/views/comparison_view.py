"""A comparison for people: the answer in a sentence, the sides, a table of all metrics, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.text import Text

from heteromig.core.degradation import Change, ComparedRun, Comparison, Judgement
from heteromig.core.spec import Goal
from heteromig.views.text import cells, fit, printable
from heteromig.views.verdict_text import SIMULATED_NOTE, append_block

_TITLES = ("METRIC", "A", "B", "CHANGE", "95 % INTERVAL")
_UNKNOWN = "n/a"
_RUNS_MAX = 3
_STATUS_STYLES = {0: "bold green", 8: "bold red", 9: "bold yellow"}
_JUDGEMENT_STYLES = {
    Judgement.WORSE: "red",
    Judgement.BETTER: "green",
    Judgement.INCONCLUSIVE: "yellow",
    Judgement.NO_DIFFERENCE: "dim",
}
_OF_THE_GPU = frozenset({"power", "energy", "sm-clock", "temperature"})
_WHOLE_GPU = "Power, energy, clock and temperature are those of the whole GPU, neighbours included."


def comparison(found: Comparison, width: int) -> Text:
    """All of it, in lines of `width`."""
    text = Text()
    head = f"{found.status.upper()} (exit {found.exit_code}): "
    append_block(text, "", head + printable(found.sentence), width, indent=0)
    text.stylize(_STATUS_STYLES.get(found.exit_code, ""), 0, len(head))
    if found.simulated:
        append_block(text, "", SIMULATED_NOTE, width, indent=0)
    text.append("\n")
    append_block(text, "Main", printable(f"{found.benchmark} {found.scenario}"), width)
    for label, side in (("A", found.first), ("B", found.second)):
        append_block(text, label, printable(_side(side)), width)
        for run in side[:_RUNS_MAX]:
            name = _directory(run)
            append_block(text, "", name, len(name) + width)
        if len(side) > _RUNS_MAX:
            append_block(text, "", f"... and {len(side) - _RUNS_MAX} more", width)
    text.append("\n")
    _append_table(text, found)
    text.append("\n")
    for label, words in _footnotes(found):
        append_block(text, label, printable(words), width)
    text.rstrip()
    return text


def comparison_markdown(found: Comparison) -> str:
    """The same for a pull request."""
    head = f"**{found.status.capitalize()}** (exit {found.exit_code}): {_escaped(found.sentence)}"
    lines = [head, ""]
    if found.simulated:
        lines += [f"> {SIMULATED_NOTE}", ""]
    sides = f"A: {_side(found.first)}; B: {_side(found.second)}"
    lines += [f"{_escaped(f'{found.benchmark} {found.scenario}')}; {_escaped(sides)}", ""]
    lines += ["| metric | A | B | change | 95 % interval |", "|---|---:|---:|---|---|"]
    lines += [f"| {' | '.join(_escaped(cell) for cell in _row(change))} |" for change in _known(found)]
    lines.append("")
    lines += [f"- {f'{label}: ' if label else ''}{_escaped(words)}" for label, words in _footnotes(found)]
    return "\n".join(lines).rstrip()


def _side(side: Sequence[ComparedRun]) -> str:
    """`3 baselines`, `2 runs beside 6 backgrounds`."""
    goals = {run.goal for run in side}
    if goals == {Goal.BASELINE.value}:
        return "a baseline" if len(side) == 1 else f"{len(side)} baselines"
    counts = sorted({len(run.backgrounds) for run in side})
    beside = " or ".join(str(count) for count in counts)
    backgrounds = f"beside {beside} background{'' if counts == [1] else 's'}"
    neighbours = [name for run in side[:1] for name in run.backgrounds]  # if others had others, a remark says so
    often = {name: neighbours.count(name) for name in neighbours}
    words = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in often.items())
    named = f" ({words})" if words else ""
    return f"{'a run' if len(side) == 1 else f'{len(side)} runs'} {backgrounds}{named}"


def _directory(run: ComparedRun) -> str:
    """Relative to where the user is, if it is below."""
    path = Path(run.run_dir)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _known(found: Comparison) -> list[Change]:
    return [change for change in found.changes if change.judgement is not Judgement.UNKNOWN]


def _append_table(text: Text, found: Comparison) -> None:
    changes = _known(found)
    rows = [_row(change) for change in changes]
    widths = [max(map(cells, column)) for column in zip(_TITLES, *rows, strict=True)]
    for change, row in zip((None, *changes), (_TITLES, *rows), strict=True):
        style = "dim" if change is None else _JUDGEMENT_STYLES.get(change.judgement, "")
        numbers = range(1, 3)
        aligned = (
            fit(cell, width, right=place in numbers)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        line = "  " + "  ".join(aligned).rstrip() + "\n"
        text.append(
            line, f"bold {style}".strip() if change is not None and change.metric.name == found.primary else style
        )


def _row(change: Change) -> tuple[str, ...]:
    metric, estimate = change.metric, change.estimate
    interval = "-"
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        scale, unit = (1.0, metric.unit) if metric.absolute else (100.0, "%")
        low, high = (
            f"{scale * bound + 0.0:+.{1 if abs(scale * bound) >= 1 else 2}f}" for bound in (estimate.low, estimate.high)
        )
        interval = f"{low} to {high} {unit}"
    name = printable(f"{metric.name} {metric.unit}".rstrip())
    return name, _figure(change.first), _figure(change.second), change.words, interval


def _figure(value: float | None) -> str:
    """Six digits, and no exponent for what people have figures of."""
    if value is None:
        return _UNKNOWN
    return f"{value:.0f}" if abs(value) >= 1e6 else f"{value:.6g}"  # noqa: PLR2004 - a million


def _footnotes(found: Comparison) -> Iterator[tuple[str, str]]:
    """(label, words); a label once for all that follows it."""
    untold = [result for result in found.gates if result.sentence not in found.sentence]
    for number, result in enumerate(untold):
        yield "Gates" if number == 0 else "", result.sentence
    for number, difference in enumerate(found.differences):
        yield (
            "Differing" if number == 0 else "",
            f"{difference.setting}: {difference.first} against {difference.second}",
        )
    for number, remark in enumerate(_remarks(found)):
        yield "Noted" if number == 0 else "", remark
    for number, (names, why) in enumerate(_missing(found.changes)):
        yield "Not there" if number == 0 else "", f"{names}: {why}"


def _remarks(found: Comparison) -> Iterator[str]:
    yield from found.remarks
    known = {change.metric.name for change in _known(found)}
    if known & _OF_THE_GPU:
        yield _WHOLE_GPU


def _missing(changes: Iterable[Change]) -> Iterator[tuple[str, str]]:
    """Metrics that a side lacks, by the reason."""
    reasons: dict[str, list[str]] = {}
    for change in changes:
        if change.judgement is Judgement.UNKNOWN:
            reasons.setdefault(change.words, []).append(change.metric.name)
    for why, names in reasons.items():
        yield ", ".join(names), why


def _escaped(words: str) -> str:
    """What Markdown would take for something else."""
    return (
        printable(words)
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )
