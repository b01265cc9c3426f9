"""The document lists exactly the cells that there are, with what is expected of them."""

from __future__ import annotations

from tests.faults.document import DOCUMENT, HEADS, document, row_start
from tests.faults.matrix import CELLS


def test_document_is_of_these_cells() -> None:
    rows = [
        line
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(f"| {HEADS[0]} |")
    ]
    starts = [f"{'|'.join(row.split('|')[:4])}|" for row in rows]
    assert starts == [row_start(cell) for cell in CELLS], "it is stale: make faults"


def test_document_says_what_was_not_played() -> None:
    assert document({}).count("not played") == len(CELLS)
