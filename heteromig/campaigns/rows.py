"""Rows of words as text with aligned columns, and as a table of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from heteromig.views.text import cells, fit, markdown_text


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for the titles and each row."""
    widths = [max(map(cells, column)) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(fit(word, width) for word, width in zip(row, widths, strict=True)).rstrip() for row in (titles, *rows)
    ]


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The same for a ticket; no word means anything to Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(markdown_text(word) for word in row)} |" for row in lines]
