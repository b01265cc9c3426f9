"""How many benchmark minutes a tuning takes, and how near it comes, on a model of a batching server."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from tests.bench import searching
from tests.bench.batching import Machine
from tests.bench.searching import COLD_S, FULL_S, PEAK_RUNS, WARM_S, Found, Site, Strategy, true_peak_qps
from tests.bench.table import MISSED, Row

NORMAL = NormalDist()
SEEDS = 50
OFFLINE_DEVIATION = 0.005
"""By how much the Offline rate that a strategy is told is off."""
NEIGHBOURS = 6

LARGE = Machine(fixed_s=0.001, per_query_s=0.0002, largest_batch=64, neighbours=NEIGHBOURS)
"""About what an A100's smallest slice does with ResNet-50: 4000 qps at MLPerf's limit of 15 ms."""
SMALL = Machine(fixed_s=0.008, per_query_s=0.002, largest_batch=32, neighbours=NEIGHBOURS)
"""About BERT there: 360 qps at MLPerf's limit of 130 ms. With a tenth of the queries everything scatters more."""

STRATEGIES: Mapping[str, tuple[Strategy, float]] = {
    "heteromig": (searching.heteromig, WARM_S),
    "heteromig, all starts cold": (searching.heteromig, COLD_S),
    "heteromig without aborts": (searching.without_aborts, WARM_S),
    "heteromig, misses at the end": (searching.without_spells, WARM_S),
    "heteromig, verdicts only": (searching.verdicts_only, WARM_S),
    "FindPeakPerformance": (searching.find_peak, COLD_S),
    "bisection over a grid": (searching.grid_bisection, COLD_S),
    "bisection, all starts warm": (searching.grid_bisection, WARM_S),
    "halving, bisection, confirmed": (searching.halving, COLD_S),
    "lowering by 1 %": (searching.lowering, COLD_S),
}
"""Each with the start-up of its runs but the first."""
FEW = ("heteromig", "heteromig, all starts cold", "bisection over a grid", "halving, bisection, confirmed")
"""Where a run has millions of queries, those that are over in a minute or two of simulating."""


class Place(Struct, frozen=True):
    """A machine, the latency limits that it is tuned for, the strategies, and of how many runs its true peak is.

    `bound`: what is possible at all is computed as well.
    """

    name: str
    machine: Machine
    limits_s: tuple[float, ...]
    strategies: tuple[str, ...]
    peak_runs: int
    bound: bool


PLACES = (
    Place(name="4000 qps", machine=LARGE, limits_s=(0.015, 0.020), strategies=FEW, peak_runs=15, bound=False),
    Place(
        name="400 qps",
        machine=SMALL,
        limits_s=(0.100, 0.130, 0.200),
        strategies=tuple(STRATEGIES),
        peak_runs=PEAK_RUNS,
        bound=True,
    ),
)

MINUTES, MEDIAN_SHARE, WORST_SHARE = 18.0, 0.99, 0.98

SPREAD_RUNS = 100
NEAR = 0.007
"""Where the spread of verdicts is looked at, below and above the true peak."""
SEARCHES, SEARCH_S = 2, 60.0
"""Runs that only say where the knee is: one on either side, at least."""


def measure() -> list[Row]:
    """Every strategy at every place, with the same seeds."""
    return [row for place in PLACES for limit_s in place.limits_s for row in _rows(place, limit_s)]


def _rows(place: Place, limit_s: float) -> list[Row]:
    machine = place.machine
    peak_qps = true_peak_qps(machine, limit_s, place.peak_runs)
    rows = [
        Row(
            what=f"tuning at {place.name}, {1000 * limit_s:.0f} ms",
            measured=f"true peak {peak_qps:.4g} qps, n={SEEDS}",
            budget="",
            verdict="",
        )
    ]
    if place.bound:
        rows.append(_bound_row(machine, limit_s, peak_qps))
    found: dict[Strategy, list[Found]] = {}
    for label in place.strategies:
        strategy, start_s = STRATEGIES[label]
        if strategy not in found:
            found[strategy] = [_search(strategy, machine, limit_s, seed) for seed in range(SEEDS)]
        rows.append(_row(f"  {label}", found[strategy], start_s, peak_qps, judged=label == "heteromig"))
    return rows


def _spread(machine: Machine, limit_s: float, peak_qps: float) -> float:
    """How far the highest rate at which one full-length run is VALID scatters: a standard deviation, a share of it.

    The share of VALID runs falls with the rate as the tail of a normal distribution does; two rates give its width.
    """
    site = Site(machine=machine, limit_s=limit_s, offline_qps=machine.capacity_qps)
    at = []
    for rate_qps in (peak_qps * (1 - NEAR), peak_qps * (1 + NEAR)):
        passed = sum(site.run(np.random.default_rng([2**30, seed]), rate_qps).valid for seed in range(SPREAD_RUNS))
        at.append(NORMAL.inv_cdf((passed + 0.5) / (SPREAD_RUNS + 1)))
    return 2 * NEAR / (at[0] - at[1])


def _bound_row(machine: Machine, limit_s: float, peak_qps: float) -> Row:
    """What nobody can do better in the minutes that are aimed at, whoever measures misses.

    There is a start, and a run at full length that is to pass every other time, so at the peak as it was measured. What
    is left measures the peak, as well as a part of a full-length run can; the worst of all seeds is off by as much as
    the lowest of as many normal numbers.
    """
    spread = _spread(machine, limit_s, peak_qps)
    left_s = 60 * MINUTES - COLD_S - FULL_S - WARM_S
    lowest = NORMAL.inv_cdf(0.5 ** (1 / SEEDS))
    best = [
        1 - lowest * spread * (FULL_S / (left_s - searches * (SEARCH_S + WARM_S) - WARM_S)) ** 0.5
        for searches in (0, SEARCHES)
    ]
    return Row(
        what="  a bound: all else at the peak",
        measured=f"a full run tells it to {spread:.2%}; in {MINUTES:.0f} min worst {best[0]:.1%} of the peak, "
        f"{best[1]:.1%} after {SEARCHES} runs that find it",
        budget="",
        verdict="",
    )


def _search(strategy: Strategy, machine: Machine, limit_s: float, seed: int) -> Found:
    rng = np.random.default_rng([seed, round(1e6 * limit_s)])
    # Measured alone, where neighbours cost nothing.
    alone_qps = machine.largest_batch / (machine.fixed_s + machine.per_query_s * machine.largest_batch)
    offline_qps = alone_qps * float(rng.normal(1, OFFLINE_DEVIATION))
    return strategy(Site(machine=machine, limit_s=limit_s, offline_qps=offline_qps), rng)


def _row(what: str, found: list[Found], start_s: float, peak_qps: float, *, judged: bool) -> Row:
    shares = [one.rate_qps / peak_qps for one in found if one.rate_qps is not None]
    minutes = [one.minutes(start_s) for one in found]
    median_minutes = statistics.median(minutes)
    median, worst = statistics.median(shares), min(shares)
    measured = (
        f"{statistics.mean(len(one.took_s) for one in found):4.1f} runs, {median_minutes:5.1f} min (mean "
        f"{statistics.mean(minutes):.1f}, worst {max(minutes):.1f}), {median:.1%} of the peak (worst {worst:.1%})"
    )
    if len(shares) < len(found):
        measured += f", {len(found) - len(shares)} without an answer"
    if not judged:
        return Row(what=what, measured=measured, budget="", verdict="")
    kept = median_minutes <= MINUTES and median >= MEDIAN_SHARE and worst >= WORST_SHARE and len(shares) == len(found)
    return Row(
        what=what,
        measured=measured,
        budget=f"<= {MINUTES:.0f} min, >= {MEDIAN_SHARE:.0%}, worst >= {WORST_SHARE:.0%}",
        verdict="kept" if kept else MISSED,
    )
