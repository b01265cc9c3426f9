"""How others find the highest rate, written down as fairly as possible, beside the planner itself in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from msgspec import Struct

from heteromig.campaign.probes import SERVER, Confirm, Done, Outcome, Probe, RunProbe, Side, TuneSettings
from heteromig.campaign.tuning import next_step
from tests.bench.batching import Machine, Run, serve

FULL_S = 600.0
PERCENTILE = 0.99
COLD_S = 60.0
"""From the start of six backgrounds to the timed section of main, when all of them are started: engines are loaded,
buffers filled."""
WARM_S = 20.0
"""The same for main alone while backgrounds go on; an assumption, as the one above."""

PEAK_RUNS = 41
PEAK_WITHIN = 0.001


class Site(Struct, frozen=True):
    """Where to search: a machine, its latency limit, and what strategies are told: an Offline rate, measured alone."""

    machine: Machine
    limit_s: float
    offline_qps: float

    def run(self, rng: np.random.Generator, rate_qps: float, duration_s: float = FULL_S) -> Run:
        """One whole run, of which the verdict counts."""
        return serve(
            self.machine,
            rng,
            rate_qps=rate_qps,
            duration_s=duration_s,
            limit_s=self.limit_s,
            percentile=PERCENTILE,
            verdict_only=True,
        )


class Found(Struct, frozen=True):
    """The rate found, None where none was, and how long each run took."""

    rate_qps: float | None
    took_s: tuple[float, ...]

    def minutes(self, start_s: float) -> float:
        """With a cold start of the first run, and `start_s` for each of the others."""
        return (sum(self.took_s) + COLD_S + start_s * (len(self.took_s) - 1)) / 60


Strategy = Callable[[Site, np.random.Generator], Found]

SERVER_OVER_OFFLINE = 0.72
"""Where the planner, and whoever needs a passing start, begins: below the mean of 0.75 in NVIDIA's v2.0 results."""


@lru_cache
def true_peak_qps(machine: Machine, limit_s: float, runs: int) -> float:
    """The rate at which half of `runs` full-length runs are VALID, by bisection, with the same seeds at every rate.

    `runs` is odd; runs that can no longer change the majority are left out.
    """
    low, high = 0.5 * machine.capacity_qps, machine.capacity_qps
    site = Site(machine=machine, limit_s=limit_s, offline_qps=machine.capacity_qps)
    while high / low > 1 + PEAK_WITHIN:
        middle = (low * high) ** 0.5
        passed = failed = 0
        for seed in range(runs):
            valid = site.run(np.random.default_rng([2**31, seed]), middle).valid
            passed, failed = passed + valid, failed + (not valid)
            if max(passed, failed) > runs // 2:
                break
        low, high = (middle, high) if passed > failed else (low, middle)
    return low


# --- the planner ------------------------------------------------------------------------------------------------------


def heteromig(site: Site, rng: np.random.Generator) -> Found:
    """The planner, with a harness that streams its late queries."""
    return _plan(site, rng, aborts=True, misses=True, spells=True)


def without_spells(site: Site, rng: np.random.Generator) -> Found:
    """The planner, with a harness whose number of late queries is known when a run has ended, and no more."""
    return _plan(site, rng, aborts=False, misses=True, spells=False)


def without_aborts(site: Site, rng: np.random.Generator) -> Found:
    """The planner, every run to its end."""
    return _plan(site, rng, aborts=False, misses=True, spells=True)


def verdicts_only(site: Site, rng: np.random.Generator) -> Found:
    """The planner, with a harness that says VALID or INVALID and no more."""
    return _plan(site, rng, aborts=False, misses=False, spells=False)


def _plan(site: Site, rng: np.random.Generator, *, aborts: bool, misses: bool, spells: bool) -> Found:
    settings = TuneSettings(
        scenario=SERVER,
        start_qps=SERVER_OVER_OFFLINE * site.offline_qps,
        ceiling_qps=site.offline_qps,
        latency_limit_ms=1000 * site.limit_s,
        percentile=PERCENTILE,
        full_s=FULL_S,
        sides=(Side.BESIDE,),
    )
    probes: list[Probe] = []
    took_s: list[float] = []
    while isinstance(step := next_step(settings, probes), RunProbe | Confirm):
        assert step.rate_qps is not None  # Server always has one
        run = serve(
            site.machine,
            rng,
            rate_qps=step.rate_qps,
            duration_s=step.duration_s,
            limit_s=site.limit_s,
            percentile=PERCENTILE,
            end_above_misses=step.abort_above_misses if aborts else None,
        )
        took_s.append(run.took_s)
        ended = Outcome.ABORTED if run.aborted else Outcome.VALID if run.valid else Outcome.INVALID
        probes.append(
            Probe(
                side=step.side,
                rate_qps=step.rate_qps,
                duration_s=step.duration_s,
                outcome=ended,
                confirms=isinstance(step, Confirm),
                queries=run.queries,
                misses=run.misses if misses else None,
                spells=run.spells if spells else None,
                achieved_qps=run.queries / run.took_s,
            )
        )
    return Found(rate_qps=step.answers[0].rate_qps if isinstance(step, Done) else None, took_s=tuple(took_s))


# --- the others -------------------------------------------------------------------------------------------------------


def find_peak(site: Site, rng: np.random.Generator) -> Found:
    """LoadGen's FindPeakPerformance (loadgen/loadgen.cc, FindBoundaries and FindPeakPerformanceBinarySearch).

    It needs a start that passes, and gives up otherwise: whoever uses it starts again at half of it. The rate is
    doubled until a run fails, then the bracket is halved down to a tenth of a query per second. Every run has full
    length. It asks for the percentile alone; here a run passes when LoadGen's whole verdict is VALID.
    """
    took_s: list[float] = []

    def passes(rate: float) -> bool:
        run = site.run(rng, rate)
        took_s.append(run.took_s)
        return run.valid

    low = SERVER_OVER_OFFLINE * site.offline_qps
    while not passes(low):
        low /= 2
    high = 2 * low
    while passes(high):
        low, high = high, 2 * high
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return Found(rate_qps=low, took_s=tuple(took_s))


def grid_bisection(site: Site, rng: np.random.Generator) -> Found:
    """Bisect of NVIDIA's autotune (closed/NVIDIA, scripts/autotune/library.py): a grid, full-length runs.

    Its example goes from 3000 to 4650 in steps of 50, 1.3 % of the middle. Which range holds the answer has to be
    known: here it is 0.6 to 0.95 of Offline, which all of NVIDIA's v2.0 results would be in.
    """
    low, high, step = 0.6 * site.offline_qps, 0.95 * site.offline_qps, 50 / 3825
    grid = np.arange(low, high, step * (low + high) / 2).tolist()
    took_s: list[float] = []
    passed, failed = -1, len(grid)
    while failed - passed > 1:
        middle = (passed + failed) // 2
        run = site.run(rng, grid[middle])
        took_s.append(run.took_s)
        passed, failed = (middle, failed) if run.valid else (passed, middle)
    return Found(rate_qps=grid[passed] if passed >= 0 else None, took_s=tuple(took_s))


def halving(site: Site, rng: np.random.Generator) -> Found:
    """server_tuning_bs.py of NVIDIA's v3.0 tree: 3-minute runs, halved from Offline until one passes, five bisections.

    It leaves its answer unconfirmed. To be fair a full-length run is added, and another one 1 % lower while that fails.
    """
    took_s: list[float] = []

    def passes(rate: float, duration_s: float) -> bool:
        run = site.run(rng, rate, duration_s)
        took_s.append(run.took_s)
        return run.valid

    low = high = site.offline_qps
    while not passes(low, 180):
        low, high = low / 2, low
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle, 180) else (low, middle)
    while not passes(low, FULL_S):
        low *= 0.99
    return Found(rate_qps=low, took_s=tuple(took_s))


def lowering(site: Site, rng: np.random.Generator) -> Found:
    """What NVIDIA's document on heterogeneous MIG says: the best rate alone, gradually lowered until not INVALID.

    The best rate alone is given here, and costs nothing; it is lowered by 1 %.
    """
    alone = Machine(
        fixed_s=site.machine.fixed_s, per_query_s=site.machine.per_query_s, largest_batch=site.machine.largest_batch
    )
    rate = true_peak_qps(alone, site.limit_s, PEAK_RUNS)
    took_s: list[float] = []
    while True:
        run = site.run(rng, rate)
        took_s.append(run.took_s)
        if run.valid:
            return Found(rate_qps=rate, took_s=tuple(took_s))
        rate *= 0.99
