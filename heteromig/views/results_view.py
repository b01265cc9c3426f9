"""Imported results for people: a table for each system, headed by what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.text import Text

from heteromig.views.text import cells, fit, printable

_TITLES = ("BENCHMARK", "SCENARIO", "UNIT", "BESIDE", "ALONE", "RATIO", "CHANGE %", "P99 MS", "P99 CHANGE %", "RESULT")
_WORDS = frozenset({"BENCHMARK", "SCENARIO", "UNIT", "RESULT"})
"""Columns that are aligned to the left; the others are figures."""
_UNKNOWN = "n/a"


class Compared(Protocol):
    """One benchmark and scenario of a system against another's; what is not known is None."""

    @property
    def results(self) -> str:
        """The results directory."""
        ...

    @property
    def system(self) -> str:
        """Whose."""
        ...

    @property
    def baseline(self) -> str | None:
        """Against which."""
        ...

    @property
    def match(self) -> str:
        """How that was found, or why not."""
        ...

    @property
    def benchmark(self) -> str:
        """Its directory's name."""
        ...

    @property
    def scenario(self) -> str:
        """Its directory's name."""
        ...

    @property
    def unit(self) -> str:
        """Of the values: "samples/s" or "ms"."""
        ...

    @property
    def value(self) -> float:
        """Beside neighbours."""
        ...

    @property
    def baseline_value(self) -> float | None:
        """Alone."""
        ...

    @property
    def ratio(self) -> float | None:
        """The one over the other."""
        ...

    @property
    def change_percent(self) -> float | None:
        """In percent of the value alone."""
        ...

    @property
    def p99_ms(self) -> float | None:
        """The 99th percentile of the latency."""
        ...

    @property
    def p99_change_percent(self) -> float | None:
        """In percent of that alone."""
        ...

    @property
    def valid(self) -> bool | None:
        """LoadGen's verdict."""
        ...

    @property
    def baseline_valid(self) -> bool | None:
        """LoadGen's verdict on the result alone."""
        ...

    @property
    def remark(self) -> str:
        """Why something is not known, or what is to be kept in mind."""
        ...


def results_table(comparisons: Sequence[Compared]) -> Text:
    """A table for each system and results directory, in the order of `comparisons`."""
    text = Text()
    systems = list(dict.fromkeys((row.results, row.system, row.baseline, row.match) for row in comparisons))
    lines = [_cells(row) for row in comparisons]
    widths = [max(map(cells, column)) for column in zip(_TITLES, *lines, strict=True)]
    for results, system, baseline, match in systems:
        text.append(printable(system), "bold")
        text.append(f"  in {printable(results)}\n")
        if baseline is None:
            text.append(f"no baseline: {printable(match)}\n", "yellow")
        else:
            text.append(f"against {printable(baseline)} ({printable(match)})\n")
        _append_line(text, _TITLES, widths, "dim")
        for row, line in zip(comparisons, lines, strict=True):
            if (row.results, row.system) == (results, system):
                _append_line(text, line, widths, "red" if False in (row.valid, row.baseline_valid) else "")
                if row.remark and baseline is not None:
                    text.append(f"    {printable(row.remark)}\n", "yellow")
        text.append("\n")
    text.rstrip()
    return text


def _cells(row: Compared) -> tuple[str, ...]:
    return (
        printable(row.benchmark),
        printable(row.scenario),
        row.unit,
        _figure(row.value, ".3f" if row.unit == "ms" else ".2f"),
        _figure(row.baseline_value, ".3f" if row.unit == "ms" else ".2f"),
        _figure(row.ratio, ".4f"),
        _figure(row.change_percent, "+.2f"),
        _figure(row.p99_ms, ".3f"),
        _figure(row.p99_change_percent, "+.2f"),
        _verdicts(row),
    )


def _figure(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _verdicts(row: Compared) -> str:
    own = _verdict(valid=row.valid)
    if row.baseline_value is None or row.baseline_valid is row.valid:
        return own
    return f"{own}, alone {_verdict(valid=row.baseline_valid)}"


def _verdict(*, valid: bool | None) -> str:
    return _UNKNOWN if valid is None else "VALID" if valid else "INVALID"


def _append_line(text: Text, line: Sequence[str], widths: Sequence[int], style: str) -> None:
    aligned = (
        fit(cell, width, right=title not in _WORDS) for cell, width, title in zip(line, widths, _TITLES, strict=True)
    )
    text.append("  " + "  ".join(aligned).rstrip() + "\n", style)
