"""All cells, table by table."""

from __future__ import annotations

from tests.faults.cells import Cell
from tests.faults.tables import (
    background,
    clock,
    controller,
    devices,
    disk,
    engines,
    guardians,
    keepers,
    limits,
    locks,
    logs,
    main,
    output,
    signals,
)

CELLS: tuple[Cell, ...] = (
    *background.CELLS,
    *main.CELLS,
    *output.CELLS,
    *logs.CELLS,
    *disk.CELLS,
    *clock.CELLS,
    *devices.CELLS,
    *signals.CELLS,
    *controller.CELLS,
    *guardians.CELLS,
    *keepers.CELLS,
    *locks.CELLS,
    *limits.CELLS,
    *engines.CELLS,
)
