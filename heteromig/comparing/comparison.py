"""Two sides against each other: runs, or all runs of a series, or the runs of a series against its baselines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from heteromig.comparing.measured import Measured, measure
from heteromig.comparing.series import Series, is_series, read_series
from heteromig.comparing.settings import differences
from heteromig.core.degradation import (
    Change,
    ComparedRun,
    Comparison,
    Difference,
    GateOutcome,
    GateResult,
    Judgement,
    Metric,
)
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.spec import Goal
from heteromig.core.verdict import ExitCode
from heteromig.results.estimates import CONFIDENCE, paired, unpaired
from heteromig.results.judging import gateable, judge, judge_gate, parse_gate
from heteromig.results.metrics import OF_THE_DEVICE, in_order, metric_of, primary_metric
from heteromig.results.wording import sentence, worded

SCHEMA_VERSION = 1


class Sides(Struct, frozen=True):
    """The runs to compare. `paired`: of one series, in the order of time, with one more on the first side."""

    first: tuple[Path, ...]
    second: tuple[Path, ...]
    paired: bool = False
    remarks: tuple[str, ...] = ()


class Allowed(Struct, frozen=True):
    """What the user lets pass: settings that differ, and runs that are not valid."""

    differences: bool = False
    invalid: bool = False


NOTHING_ALLOWED = Allowed()


def compare(
    first: Path, second: Path | None, *, gates: Sequence[str] = (), allowed: Allowed = NOTHING_ALLOWED
) -> Comparison:
    """Compare two directories of runs or series, or, without a `second`, the runs of a series with its baselines.

    Every verdict is recomputed before. `gates` are limits such as `qps:-2%`.

    Raises:
        UsageError: there is nothing to compare in these directories, a gate names nothing that they have, or their
            settings differ.
        EvidenceError: a run cannot be read, or is not valid.
    """
    sides = choose_sides(first, second)
    known: dict[Path, Measured] = {}
    for path in (*sides.first, *sides.second):
        if path not in known:
            known[path] = measure(path, allow_invalid=allowed.invalid)
    a, b = ([known[path] for path in side] for side in (sides.first, sides.second))
    return compare_measured(a, b, paired_up=sides.paired, remarks=sides.remarks, gates=gates, allowed=allowed)


def choose_sides(first: Path, second: Path | None) -> Sides:
    """Which runs stand on which side.

    Raises:
        UsageError: one directory was named, and it is that of one run.
        EvidenceError: a series cannot be read, or has nothing to compare yet.
    """
    if second is not None:
        return Sides(_runs_of(first), _runs_of(second))
    if not is_series(first):
        raise UsageError(
            f"{first} is not a series, which could be compared alone: name a second run, or measure one with "
            "heteromig run --repeat."
        )
    return _within(first, read_series(first))


def compare_measured(
    first: Sequence[Measured],
    second: Sequence[Measured],
    *,
    paired_up: bool = False,
    remarks: Sequence[str] = (),
    gates: Sequence[str] = (),
    allowed: Allowed = NOTHING_ALLOWED,
) -> Comparison:
    """The comparison of runs that have been read; as `compare` otherwise."""
    differing = _require_comparable(first, second, allowed=allowed)
    everything = (*first, *second)
    logged = in_order(name for one in everything for name in one.figures)
    names = in_order((*logged, *(metric.name for metric in OF_THE_DEVICE)))
    limits = [parse_gate(text, gateable(logged)) for text in gates]
    same = {one.run_dir.resolve() for one in first} == {one.run_dir.resolve() for one in second}
    changes = tuple(_change(metric_of(name), first, second, paired_up=paired_up, same=same) for name in names)
    by_name = {change.metric.name: change for change in changes}
    primary = primary_metric(first[0].scenario, logged)
    results = tuple(judge_gate(limit, by_name[limit.metric].estimate, by_name[limit.metric].words) for limit in limits)
    status, exit_code, words = _conclude(by_name.get(primary), results, same=same)
    return Comparison(
        schema_version=SCHEMA_VERSION,
        simulated=first[0].simulated,
        benchmark=first[0].benchmark,
        scenario=first[0].scenario,
        primary=primary,
        paired=paired_up,
        confidence=CONFIDENCE,
        first=tuple(map(_compared, first)),
        second=tuple(map(_compared, second)),
        changes=changes,
        gates=results,
        differences=differing,
        remarks=(*remarks, *_remarks(first, second)),
        status=status,
        exit_code=exit_code,
        sentence=words,
    )


def _runs_of(directory: Path) -> tuple[Path, ...]:
    """The directory itself, or the runs beside neighbours of a series."""
    if not is_series(directory):
        return (directory,)
    series = read_series(directory)
    found = tuple(
        directory / entry.run_dir
        for entry in series.entries
        if entry.goal is Goal.RUN and entry.run_dir is not None and entry.exit_code == ExitCode.VALID
    )
    if not found:
        raise EvidenceError(f"The series {directory} has no valid run beside neighbours{_stopped(series)}")
    return found


def _within(directory: Path, series: Series) -> Sides:
    """Baselines against runs, as far as each run lies between two baselines."""
    done = [
        directory / entry.run_dir
        for entry in series.entries
        if entry.run_dir is not None and entry.exit_code == ExitCode.VALID
    ]
    pairs = (len(done) - 1) // 2
    if pairs < 1:
        raise EvidenceError(f"The series {directory} has no run between two baselines{_stopped(series)}")
    used = done[: 2 * pairs + 1]
    cut = (
        ()
        if series.is_complete
        else (f"The series has {len(done)} of {len(series.planned)} runs, of which {len(used)} were compared.",)
    )
    return Sides(tuple(used[::2]), tuple(used[1::2]), paired=True, remarks=cut)


def _stopped(series: Series) -> str:
    return f": {series.sentence}" if series.sentence else " yet: is it still going on, or was it killed?"


def _require_comparable(
    first: Sequence[Measured], second: Sequence[Measured], *, allowed: Allowed
) -> tuple[Difference, ...]:
    everything = (*first, *second)
    simulated = next((one for one in everything if one.simulated), None)
    real = next((one for one in everything if not one.simulated), None)
    if simulated is not None and real is not None:
        raise UsageError(
            f"{simulated.run_dir} is simulated and {real.run_dir} is not: a simulation says nothing about a GPU, and "
            "is compared with simulations only."
        )
    found = differences([one.settings for one in first], [one.settings for one in second])
    if found and not allowed.differences:
        listed = "; ".join(f"{one.setting}: {one.first} against {one.second}" for one in found)
        raise UsageError(
            f"These runs differ in more than their neighbours. {listed}. To compare all the same, add "
            "--allow-differences."
        )
    return found


def _change(
    metric: Metric, first: Sequence[Measured], second: Sequence[Measured], *, paired_up: bool, same: bool
) -> Change:
    sides = [[one.figures.get(metric.name) for one in side] for side in (first, second)]
    a, b = ([figure for figure in side if figure is not None] for side in sides)
    lacking = next((one for one in (*first, *second) if metric.name not in one.figures), None)
    means = [statistics.fmean(side) if side else None for side in (a, b)]
    if lacking is not None:
        why = lacking.missing.get(metric.name, f"{lacking.run_id} does not have it")
        return Change(metric, means[0], means[1], None, Judgement.UNKNOWN, why)
    if same:
        a, b = a[:1], a[:1]  # which lies as far from itself as it does
    estimate = paired(a, b, absolute=metric.absolute) if paired_up else unpaired(a, b, absolute=metric.absolute)
    assert estimate is not None  # noqa: S101 - there is a run on each side
    judgement = judge(metric, estimate)
    return Change(metric, means[0], means[1], estimate, judgement, worded(metric, estimate, judgement))


def _conclude(primary: Change | None, gates: Sequence[GateResult], *, same: bool) -> tuple[str, int, str]:
    """Status, exit code and sentence: the gates decide where there are any, else whether the main metric is known."""
    outcomes = {result.outcome for result in gates}
    if gates:
        weightiest = next(
            one for one in (GateOutcome.EXCEEDED, GateOutcome.UNDECIDED, GateOutcome.KEPT) if one in outcomes
        )
        said = " ".join(result.sentence for result in gates if result.outcome is weightiest)
        match weightiest:
            case GateOutcome.EXCEEDED:
                return "gate failed", ExitCode.GATE, said
            case GateOutcome.UNDECIDED:
                return "inconclusive", ExitCode.INCONCLUSIVE, said
            case GateOutcome.KEPT:
                return "gates kept", ExitCode.VALID, said
    if primary is None or primary.estimate is None:
        return "inconclusive", ExitCode.INCONCLUSIVE, "there is no figure that both sides have."
    if same:
        return primary.judgement.value, ExitCode.VALID, "both sides are the same."
    said = f"{sentence(primary.metric, primary.estimate, primary.judgement)}."
    code = ExitCode.INCONCLUSIVE if primary.judgement is Judgement.INCONCLUSIVE else ExitCode.VALID
    return primary.judgement.value, code, said


def _compared(one: Measured) -> ComparedRun:
    return ComparedRun(
        run_dir=str(one.run_dir),
        run_id=one.run_id,
        goal=one.goal.value,
        status=one.verdict.status,
        backgrounds=one.backgrounds,
    )


def _remarks(first: Sequence[Measured], second: Sequence[Measured]) -> list[str]:
    """What whoever reads the comparison has to know besides."""
    everything = (*first, *second)
    found = [
        f"{one.run_id} is {one.verdict.status} (exit {one.verdict.exit_code}), and was compared all the same."
        for one in everything
        if one.verdict.status != "valid"
    ]
    found += [f"{one.run_id} was measured while others used GPUs of its host." for one in everything if one.host_busy]
    if all(one.is_baseline for one in second) and not any(one.is_baseline for one in first):
        found.append("The second is the baseline: exchange them to read what neighbours cost.")
    for which, side in (("first", first), ("second", second)):
        beside = dict.fromkeys(", ".join(one.backgrounds) or "nothing" for one in side)
        if len(beside) > 1:
            found.append(f"Runs of the {which} side had different neighbours: {'; '.join(beside)}.")
    for what in dict.fromkeys(name for one in everything for name, _ in one.place):
        values = dict.fromkeys(dict(one.place).get(what, "unknown") for one in everything)
        if len(values) > 1 and not (first[0].simulated and what == "GPU"):
            found.append(f"They were measured on different {what}s: {', '.join(values)}.")
    return list(dict.fromkeys(found))
