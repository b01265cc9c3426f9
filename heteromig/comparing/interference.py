"""What neighbours cost each main, cell by cell of a matrix: the value that views and pages show, and how it is made.

A cell whose runs did not all come out well has no figures at all, only its reason: nothing of it is averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from heteromig.campaign.matrix import (
    BackgroundSet,
    Cell,
    CellRun,
    CellState,
    Ending,
    MatrixSettings,
    Status,
    expected_s,
    order,
    states,
)
from heteromig.campaign.probes import Side
from heteromig.comparing.comparison import compare_measured
from heteromig.comparing.measured import Measured
from heteromig.comparing.settings import differences
from heteromig.core.degradation import Better, Change, Judgement, Metric
from heteromig.core.record import Tool
from heteromig.core.spec import Isolation
from heteromig.core.verdict import ExitCode
from heteromig.results.estimates import CONFIDENCE
from heteromig.results.metrics import LATENCIES, METRICS, QPS, metric_of, primary_metric
from heteromig.results.wording import sentence

SCHEMA_VERSION = 1
P99 = "p99"
_SEVERAL = 2


class Origin(Struct, frozen=True):
    """Where the runs come from. Times are UTC; `ended_at` is None while there is more to come."""

    campaign_id: str
    tool: Tool
    harness: str
    slices: str
    simulated: bool
    isolation: Isolation
    began_at: str
    ended_at: str | None = None


class Stop(Struct, frozen=True):
    """Why nothing more was run although something is left."""

    exit_code: int
    sentence: str


class RunInCell(Struct, frozen=True):
    """One run of a cell, and what it measured by the cell's main metric; None where it measured nothing.

    `run_dir` is relative to the directory of the matrix.
    """

    run_id: str
    run_dir: str
    position: int
    side: Side
    attempt: int
    ending: Ending
    reason: str
    took_s: float | None
    value: float | None


class Cost(Struct, frozen=True):
    """How much worse main became, as a share: 0.2 is 20 % less throughput, or 20 % more latency. Below 0 is better.

    Between `low` and `high` it lies with the confidence of the matrix; None where there are too few runs to say.
    """

    share: float
    low: float | None
    high: float | None


class CellResult(Struct, frozen=True):
    """One main in one scenario beside one set of backgrounds.

    `changes` are those of all metrics, from isolated (`first`) to beside (`second`), power, clocks and throttling among
    them; empty unless the cell is complete. `primary` is the name of the metric that its scenario is judged by.
    `reason` says why a cell is failed or pending, `sentence` what its neighbours cost.
    """

    main: str
    scenario: str
    backgrounds: BackgroundSet
    status: Status
    reason: str
    runs: tuple[RunInCell, ...]
    primary: str
    changes: tuple[Change, ...] = ()
    cost: Cost | None = None
    judgement: Judgement = Judgement.UNKNOWN
    sentence: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether there is one neighbour only, whose cost this is."""
        return len(self.backgrounds.benchmarks) == 1

    def change(self, name: str) -> Change | None:
        """How the metric of that name changed; None where the cell has no such figure."""
        return next((one for one in self.changes if one.metric.name == name), None)

    @property
    def throughput(self) -> Change | None:
        """Of samples per second."""
        return self.change(QPS.name)

    @property
    def latency(self) -> Change | None:
        """What the scenario is judged by where that is a latency, else the 99th percentile; Offline has none."""
        named = self.primary in METRICS and self.primary != QPS.name
        return self.change(self.primary if named else P99)

    @property
    def own(self) -> Change | None:
        """What it is judged by where that is a figure of a program, under a name of its own."""
        return None if self.primary in METRICS else self.change(self.primary)


class WorstNeighbour(Struct, frozen=True):
    """Which single neighbour costs a main most; `benchmark` is None where the intervals do not allow to say."""

    main: str
    scenario: str
    metric: str
    benchmark: str | None
    sentence: str


class Interference(Struct, frozen=True):
    """All of a matrix. `conditions` are (name, value) of the settings that all measured runs have in common.

    `runs_left` and `left_s` count what is still to be run if nothing fails; `took_s` is what all runs took so far.
    `exit_code` is None while the campaign goes on, and where its controller was killed.
    """

    schema_version: int
    origin: Origin
    settings: MatrixSettings
    confidence: float
    cells: tuple[CellResult, ...]
    worst: tuple[WorstNeighbour, ...]
    conditions: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    runs_done: int
    runs_left: int
    took_s: float
    left_s: float
    status: str
    exit_code: int | None
    sentence: str

    @property
    def can_go_on(self) -> bool:
        """Whether there is something to run when it is continued: what is left, or what failed."""
        holes = (one for one in self.cells if one.status is Status.FAILED)
        return self.runs_left > 0 or any(one.runs[-1:] and one.runs[-1].ending is not Ending.MEASURED for one in holes)


def interference(
    settings: MatrixSettings,
    runs: Sequence[CellRun],
    read: Mapping[str, Measured],
    origin: Origin,
    stop: Stop | None = None,
) -> Interference:
    """The matrix as far as it is known.

    `read` has what each measured run said, by its id.

    Raises:
        UsageError: a run belongs to no cell of the matrix.
    """
    known = states(settings, runs)
    found = tuple(_cell(settings, state, runs, read) for state in known)
    left = sum(one.measured.count(None) for one in known if one.status is Status.PENDING)
    status, exit_code, words = _conclude(found, stop)
    return Interference(
        schema_version=SCHEMA_VERSION,
        origin=origin,
        settings=settings,
        confidence=CONFIDENCE,
        cells=found,
        worst=_worst_neighbours(settings, found),
        conditions=_conditions(tuple(read.values())),
        remarks=tuple(dict.fromkeys(remark for one in found for remark in one.remarks)),
        runs_done=len(runs),
        runs_left=left,
        took_s=sum(run.took_s or 0.0 for run in runs),
        left_s=expected_s(settings, runs),
        status=status,
        exit_code=exit_code,
        sentence=words,
    )


def cost_of(change: Change) -> Cost | None:
    """The same as a share that is above 0 where it is bad; None of a metric that is neither, and of an unknown one."""
    metric, estimate = change.metric, change.estimate
    if estimate is None or metric.absolute or metric.better is Better.NEITHER:
        return None
    if metric.better is Better.LESS:
        return Cost(estimate.change, estimate.low, estimate.high)
    low, high = (None if bound is None else -bound + 0.0 for bound in (estimate.high, estimate.low))
    return Cost(-estimate.change + 0.0, low, high)


def _cell(
    settings: MatrixSettings, state: CellState, runs: Sequence[CellRun], read: Mapping[str, Measured]
) -> CellResult:
    cell = state.cell
    logged = dict.fromkeys(
        name for run in runs if run.cell == cell and run.run_id in read for name in read[run.run_id].figures
    )
    primary = primary_metric(cell.scenario, logged)
    result = CellResult(
        main=cell.main,
        scenario=cell.scenario,
        backgrounds=cell.backgrounds,
        status=state.status,
        reason=state.reason,
        runs=_runs(settings, cell, runs, read, primary),
        primary=primary,
    )
    if state.status is not Status.COMPLETE:
        there = len(state.measured) - state.measured.count(None)
        return result if state.reason else replace(result, reason=f"{there} of {len(state.measured)} runs are there")
    measured = [read[run.run_id] for run in state.measured if run is not None]
    alone, beside = measured[::2], measured[1::2]
    differing = differences([one.settings for one in alone], [one.settings for one in beside])
    if differing:
        listed = "; ".join(f"{one.setting}: {one.first} against {one.second}" for one in differing)
        return replace(result, status=Status.FAILED, reason=f"its runs differ in more than their neighbours, {listed}")
    found = compare_measured(alone, beside, paired_up=True)
    result = replace(result, primary=found.primary, changes=found.changes, remarks=found.remarks)
    change = result.change(found.primary)
    if change is not None and change.judgement is not Judgement.WORSE:
        result = replace(result, remarks=(*result.remarks, *_worse_otherwise(result)))
    if change is None or change.estimate is None:
        why = "no figure is in all of its runs" if change is None else change.words
        return replace(result, status=Status.FAILED, reason=f"{found.primary} is not known: {why}")
    return replace(
        result,
        cost=cost_of(change),
        judgement=change.judgement,
        sentence=sentence(change.metric, change.estimate, change.judgement),
    )


def _worse_otherwise(cell: CellResult) -> Iterator[str]:
    """What is worse although the scenario is not judged by it, such as a latency that a program has in Offline."""
    where = f"{cell.main} {cell.scenario} beside {cell.backgrounds.name}"
    for change in cell.changes:
        is_other = change.metric in {QPS, *LATENCIES} and change.metric.name != cell.primary
        if is_other and change.judgement is Judgement.WORSE and change.estimate is not None:
            said = sentence(change.metric, change.estimate, change.judgement)
            yield f"{where} is not judged by it, and still: {said}"


def _runs(
    settings: MatrixSettings,
    cell: Cell,
    runs: Sequence[CellRun],
    read: Mapping[str, Measured],
    primary: str,
) -> tuple[RunInCell, ...]:
    sides = order(settings.repetitions)
    tries: Counter[int] = Counter()
    found = []
    for run in runs:
        if run.cell != cell:
            continue
        tries[run.position] += 1
        found.append(
            RunInCell(
                run_id=run.run_id,
                run_dir=run.run_id,
                position=run.position,
                side=sides[run.position],
                attempt=tries[run.position],
                ending=run.ending,
                reason=run.reason,
                took_s=run.took_s,
                value=read[run.run_id].figures.get(primary) if run.run_id in read else None,
            )
        )
    return tuple(found)


def _worst_neighbours(settings: MatrixSettings, found: Sequence[CellResult]) -> tuple[WorstNeighbour, ...]:
    """One for each main and scenario that has several single neighbours."""
    rows = [
        [one for one in found if (one.main, one.scenario) == (main, scenario) and one.is_single]
        for scenario in settings.scenarios
        for main in settings.mains
    ]
    return tuple(
        _worst(row)
        for row in rows
        if len(row) >= _SEVERAL and metric_of(row[0].primary).better is not Better.NEITHER  # which has no worst
    )


def _worst(row: Sequence[CellResult]) -> WorstNeighbour:
    """The one whose interval lies above those of all others, if there is one.

    Intervals that do not touch ask for more than a test of the difference would, which makes up for asking of several
    neighbours at once.
    """
    first = row[0]
    costs = {one.backgrounds.benchmarks[0]: one.cost for one in row if one.cost is not None}
    where = f"{first.main} {first.scenario}"
    missing = [one.backgrounds.benchmarks[0] for one in row if one.cost is None]
    but = f" {_listed(missing)} {'was' if len(missing) == 1 else 'were'} not measured." if missing else ""
    answer = WorstNeighbour(first.main, first.scenario, first.primary, None, "")
    if any(one.status is Status.PENDING for one in row):
        return replace(answer, sentence=f"{where}: the worst neighbour is told once all of them are measured.")
    if len(costs) < _SEVERAL:
        return replace(answer, sentence=f"{where}: the worst neighbour cannot be told.{but}")
    metric = metric_of(first.primary)
    worst = max(costs, key=lambda name: costs[name].share)
    rival = _rivals(worst, costs)
    said = f"{worst}, {_worse(metric, costs[worst])}"
    hurts = next(one.judgement for one in row if one.backgrounds.benchmarks[0] == worst) is Judgement.WORSE
    if not hurts:
        words = f"no neighbour is known to cost anything; the most was measured beside {said}."
    elif costs[worst].low is None:
        words = f"the worst neighbour cannot be told: it was {said}, and with one repetition there is no interval."
    elif rival:
        overlap = "overlaps that of" if len(rival) == 1 else "overlaps those of"
        words = f"the worst neighbour cannot be told: it was {said}, but its interval {overlap} {_listed(rival)}."
    else:
        answer = replace(answer, benchmark=worst)
        others = ", ".join(f"{name} {_worse(metric, cost)}" for name, cost in costs.items() if name != worst)
        words = f"the worst neighbour is {said}; {others}."
    return replace(answer, sentence=f"{where}: {words}{but}")


def _rivals(worst: str, costs: Mapping[str, Cost]) -> list[str]:
    """Those that may cost as much as the one that cost most."""
    least = costs[worst].low
    return [
        name
        for name, cost in costs.items()
        if name != worst and (least is None or cost.high is None or cost.high >= least)
    ]


def _worse(metric: Metric, cost: Cost) -> str:
    """`12.3 % slower (10.1 % slower to 14.5 % slower)`."""
    span = (
        "" if cost.low is None or cost.high is None else f" ({_sized(metric, cost.low)} to {_sized(metric, cost.high)})"
    )
    return f"{_sized(metric, cost.share)}{span}"


def _sized(metric: Metric, share: float) -> str:
    worse, better = (metric.more, metric.less) if metric.better is Better.LESS else (metric.less, metric.more)
    return f"{100 * abs(share):.1f} % {worse if share > 0 else better}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _conditions(measured: Sequence[Measured]) -> tuple[tuple[str, str], ...]:
    first, *others = [dict((*one.settings, *one.place)) for one in measured] or [{}]
    return tuple((name, value) for name, value in first.items() if all(one.get(name) == value for one in others))


def _conclude(found: Sequence[CellResult], stop: Stop | None) -> tuple[str, int | None, str]:
    """Status, exit code and sentence: answered where each cell is measured and noise does not hide all of them."""
    counts = Counter(one.status for one in found)
    told = Counter(one.judgement for one in found if one.status is Status.COMPLETE)
    parts = [
        (told[Judgement.WORSE], "worse beside its neighbours"),
        (told[Judgement.NO_DIFFERENCE], "no difference"),
        (told[Judgement.BETTER], "better beside them"),
        (told[Judgement.MORE] + told[Judgement.LESS], "different beside them"),
        (told[Judgement.INCONCLUSIVE], "hidden by noise"),
        (counts[Status.FAILED], "failed"),
        (counts[Status.PENDING], "still to be measured"),
    ]
    words = f"{counts[Status.COMPLETE]} of {len(found)} cells are measured: " + (
        ", ".join(f"{number} {what}" for number, what in parts if number)
    )
    if stop is not None:
        return "stopped", stop.exit_code, f"{stop.sentence.rstrip('.')}; {words}."
    if counts[Status.PENDING]:
        return "not ended", None, f"it still goes on, or its controller was killed; {words}."
    hidden = told[Judgement.INCONCLUSIVE] == counts[Status.COMPLETE]
    if counts[Status.FAILED] or hidden:
        return "inconclusive", ExitCode.INCONCLUSIVE, f"{words}."
    return "answered", ExitCode.VALID, f"{words}."
