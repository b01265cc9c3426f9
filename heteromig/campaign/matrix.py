"""The interference matrix: mains x background sets x scenarios. What is known -> what to run next.

A cell is measured isolated (A) and beside its backgrounds (B) in the order A B A B ... A: the mean time of the As is
that of the Bs, so that whatever drifts linearly meanwhile, the temperature of the room say, is the same for both.
A function of the settings and of all runs so far, and of nothing else: continuing is asking again.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from heteromig.campaign.probes import MOST_RUNS, Side
from heteromig.core.errors import UsageError


class BackgroundSet(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What runs beside main, under a name of its own."""

    name: str
    benchmarks: tuple[str, ...]


class MatrixSettings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What is asked.

    With `one_at_a_time`, each benchmark of the sets is a set of its own as well, which names the worst neighbour.
    `repetitions` is how often main is measured beside its backgrounds; isolated, once more. A run that fails or is not
    VALID is tried again up to `most_retries` times. `isolated_s` and `beside_s` are what a run is expected to take with
    everything around it, until runs have said.
    """

    mains: tuple[str, ...]
    background_sets: tuple[BackgroundSet, ...]
    scenarios: tuple[str, ...]
    isolated_s: float
    beside_s: float
    one_at_a_time: bool = False
    repetitions: int = 2
    most_retries: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: nothing is to be measured, a name is there twice, or a number is out of its range.
        """
        names = [one.name for one in self.background_sets]
        for wrong, sentence in (
            (not (self.mains and names and self.scenarios), "name at least one main, one background set, one scenario"),
            (
                any(not one.benchmarks for one in self.background_sets),
                "a background set without benchmarks is isolated",
            ),
            (
                any(len(set(group)) < len(group) for group in (self.mains, names, self.scenarios)),
                "a main, background set or scenario is named twice",
            ),
            (self.repetitions < 1, "each cell is measured at least once: raise the repetitions"),
            (self.repetitions > MOST_RUNS, f"no cell is measured more than {MOST_RUNS} times: lower the repetitions"),
            (not 0 <= self.most_retries <= MOST_RUNS, f"the number of retries is from 0 to {MOST_RUNS}"),
            (not (0 < self.isolated_s < float("inf") and 0 < self.beside_s < float("inf")), "runs take more than 0 s"),
        ):
            if wrong:
                raise UsageError(f"No matrix can be measured: {sentence}.")


class Cell(Struct, frozen=True):
    """One main in one scenario, and what runs beside it."""

    main: str
    scenario: str
    backgrounds: BackgroundSet


class Ending(Enum):
    """How a run of a cell came out."""

    MEASURED = "measured"
    """It is VALID, and the overlap is proven where there is one."""
    INVALID = "invalid"
    FAILED = "failed"


class CellRun(Struct, frozen=True, forbid_unknown_fields=True):
    """One run of a cell, at a `position` of its order. `run_id` names its directory; `reason` is for people."""

    cell: Cell
    position: int
    ending: Ending
    run_id: str
    took_s: float | None = None
    reason: str = ""


class Status(Enum):
    """Of a cell."""

    PENDING = "pending"
    COMPLETE = "complete"
    FAILED = "failed"
    """A run was tried as often as it may be. The cell is shown as failed, and none of its runs is averaged."""


class CellState(Struct, frozen=True):
    """What is known of a cell: the measured runs in its order, None where one is missing, and why it failed."""

    cell: Cell
    status: Status
    measured: tuple[CellRun | None, ...]
    reason: str = ""


class RunCell(Struct, frozen=True, tag="cell"):
    """Measure a cell at a position of its order, isolated or beside its backgrounds.

    `remaining_s` is what all runs that are left are expected to take, this one included.
    """

    cell: Cell
    position: int
    side: Side
    attempt: int
    remaining_s: float
    why: str


class Finished(Struct, frozen=True, tag="finished"):
    """Nothing is left to run."""

    cells: tuple[CellState, ...]


def cells(settings: MatrixSettings) -> tuple[Cell, ...]:
    """All cells in the order in which they are measured."""
    sets = list(settings.background_sets)
    if settings.one_at_a_time:
        alone = {one.benchmarks for one in sets}
        every = dict.fromkeys(name for one in settings.background_sets for name in one.benchmarks)
        sets += [BackgroundSet(name=f"only {name}", benchmarks=(name,)) for name in every if (name,) not in alone]
    return tuple(
        Cell(main=main, scenario=scenario, backgrounds=one)
        for scenario in settings.scenarios
        for main in settings.mains
        for one in sets
    )


def order(repetitions: int) -> tuple[Side, ...]:
    """A B A B ... A, with so many Bs."""
    return (*(Side.ISOLATED, Side.BESIDE) * repetitions, Side.ISOLATED)


def states(settings: MatrixSettings, runs: Sequence[CellRun]) -> tuple[CellState, ...]:
    """What is known of each cell.

    Raises:
        UsageError: a run belongs to none of them.
    """
    every = cells(settings)
    tries: dict[tuple[Cell, int], list[CellRun]] = {
        (cell, position): [] for cell in every for position in range(len(order(settings.repetitions)))
    }
    for run in runs:
        if (run.cell, run.position) not in tries:
            raise UsageError(
                f"The run {run.run_id} belongs to no cell of this matrix: resume it with the settings it was begun "
                "with."
            )
        tries[run.cell, run.position].append(run)
    return tuple(_state(settings, cell, tries) for cell in every)


def next_run(settings: MatrixSettings, runs: Sequence[CellRun]) -> RunCell | Finished:
    """What to run next.

    Raises:
        UsageError: a run belongs to no cell of the matrix.
    """
    known = states(settings, runs)
    sides = order(settings.repetitions)
    for number, state in enumerate(known, 1):
        if state.status is not Status.PENDING:
            continue
        position = state.measured.index(None)
        attempt = 1 + sum(run.cell == state.cell and run.position == position for run in runs)
        why = f"cell {number} of {len(known)}, run {position + 1} of {len(sides)}, {sides[position].value}"
        if attempt > 1:
            last = [run for run in runs if run.cell == state.cell and run.position == position][-1]
            why += f", again because it was {last.ending.value}: {last.reason}"
        return RunCell(
            cell=state.cell,
            position=position,
            side=sides[position],
            attempt=attempt,
            remaining_s=expected_s(settings, runs),
            why=why,
        )
    return Finished(cells=known)


def expected_s(settings: MatrixSettings, runs: Sequence[CellRun] = ()) -> float:
    """What all runs that are left are expected to take, none of them twice.

    As long as the same main took in the same scenario, isolated or not; where it has not run, what the settings say.
    """
    sides = order(settings.repetitions)
    took: dict[tuple[str, str, Side], list[float]] = {}
    for run in runs:
        if run.ending is Ending.MEASURED and run.took_s is not None:
            took.setdefault((run.cell.main, run.cell.scenario, sides[run.position]), []).append(run.took_s)
    said_s = {Side.ISOLATED: settings.isolated_s, Side.BESIDE: settings.beside_s}
    return sum(
        statistics.median(took.get((state.cell.main, state.cell.scenario, side), [said_s[side]]))
        for state in states(settings, runs)
        if state.status is Status.PENDING
        for side, run in zip(sides, state.measured, strict=True)
        if run is None
    )


def _state(settings: MatrixSettings, cell: Cell, tries: dict[tuple[Cell, int], list[CellRun]]) -> CellState:
    measured: list[CellRun | None] = []
    failed: CellRun | None = None
    for position in range(len(order(settings.repetitions))):
        attempts = tries[cell, position]
        good = [run for run in attempts if run.ending is Ending.MEASURED]
        measured.append(good[0] if good else None)
        if not good and len(attempts) > settings.most_retries:
            failed = failed or attempts[-1]
    status = Status.FAILED if failed else Status.PENDING if None in measured else Status.COMPLETE
    return CellState(
        cell=cell,
        status=status,
        measured=tuple(measured),
        reason=f"{failed.ending.value} {settings.most_retries + 1} times: {failed.reason}" if failed else "",
    )
