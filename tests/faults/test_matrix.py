"""Every cell of the matrix; those that are not marked `matrix` are the fast subset."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tests.faults.cells import Cell, Kind, Need
from tests.faults.matrix import CELLS
from tests.faults.stage import Result, Stage, agrees
from tests.nvml_library.build import compiler

RESULTS = "FAULT_RESULTS"
"""Names the file to which each cell appends its line."""


def _lacks(cell: Cell) -> Need | None:
    """What this machine does not have for a cell."""
    if Need.ROOT in cell.needs and os.geteuid() != 0:
        return Need.ROOT
    if (Need.COMPILER in cell.needs or cell.kind in {Kind.MIG, Kind.MPS}) and compiler() is None:
        return Need.COMPILER
    return None


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=cell.name, marks=() if cell.fast else pytest.mark.matrix) for cell in CELLS],
)
def test_cell(cell: Cell, request: pytest.FixtureRequest) -> None:
    lacking = _lacks(cell)
    if lacking is not None:
        pytest.skip(f"this machine has not {lacking.value}")

    def made(fixture: str) -> Path:
        path = request.getfixturevalue(fixture)
        assert isinstance(path, Path)
        return path

    stage = Stage(cell, library=lambda: made("library_dir"), engines=lambda: made("engines"))
    try:
        seen = stage.play()
        passed = any(agrees(expected, seen) for expected in cell.expected)
        if RESULTS in os.environ:
            with Path(os.environ[RESULTS]).open("ab") as results:
                results.write(msgspec.json.encode(Result(cell.name, seen, passed)) + b"\n")
        assert passed, f"{seen}\nwhere one of these is right: {cell.expected}\n{stage.run.said}"
    finally:
        stage.close()


def test_cells_have_names_of_their_own() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS) >= 90


def test_every_topic_is_in_the_fast_subset() -> None:
    assert {cell.topic for cell in CELLS if cell.fast} == {cell.topic for cell in CELLS}
