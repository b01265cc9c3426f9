"""A model of a server that answers in batches, under LoadGen's Server and Offline scenarios, in simulated time.

A batch of n queries takes (a + b n), times jitter, times what the neighbours cost at that moment, times the noise of
the run. The server takes what waits, up to its largest batch, as soon as it is free. Queries arrive as LoadGen's do:
at random, independent of each other, until the scheduled time reaches the minimum duration; a run ends when the last
one is answered, so that one beyond capacity takes longer than asked for.

The simulation steps from batch to batch. Of a run whose verdict is all that is asked, what follows after it can no
longer pass is not simulated: it ends when the last query was scheduled, or when full batches have answered all.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from heteromig.campaign.early_stopping import most_misses
from heteromig.campaign.probes import SPELL_ENDS_AFTER

BLOCK = 4096
NEIGHBOUR_TURN_S = 0.5
"""A neighbour is busy or idle for so long at a time: a batch of its own and the pause after it."""


class Machine(Struct, frozen=True):
    """A slice and the program on it. `jitter` and `run_noise` are standard deviations of logarithms.

    `neighbour_cost` is what one busy neighbour adds to the time of a batch, as a share of it; each is busy for
    `neighbour_duty` of the time.
    """

    fixed_s: float = 0.008
    per_query_s: float = 0.002
    largest_batch: int = 32
    jitter: float = 0.05
    run_noise: float = 0.002
    neighbours: int = 0
    neighbour_cost: float = 0.01
    neighbour_duty: float = 0.9

    @property
    def capacity_qps(self) -> float:
        """What it answers when there is always a full batch waiting: its Offline rate."""
        busy = 1 + self.neighbours * self.neighbour_cost * self.neighbour_duty
        return self.largest_batch / (self.fixed_s + self.per_query_s * self.largest_batch) / busy


class Run(Struct, frozen=True):
    """What came of a run of `took_s`: `queries` were answered, `misses` of them too late, in `spells`.

    `valid` is LoadGen's verdict; `aborted`: it was ended when it had more misses than it was given.
    """

    took_s: float
    queries: int
    misses: int
    spells: int
    valid: bool
    aborted: bool


def serve(
    machine: Machine,
    rng: np.random.Generator,
    *,
    rate_qps: float,
    duration_s: float,
    limit_s: float,
    percentile: float,
    end_above_misses: int | None = None,
    verdict_only: bool = False,
) -> Run:
    """One Server run; it is ended above so many misses, if any number is given."""
    arrivals = _arrivals(rng, rate_qps, duration_s)
    total = len(arrivals)
    allowed = most_misses(total, 1 - percentile)
    end_above = total if end_above_misses is None else end_above_misses
    if verdict_only:
        end_above = allowed
    factor = math.exp(rng.normal(0, machine.run_noise))
    fixed_s, per_query_s, largest = machine.fixed_s * factor, machine.per_query_s * factor, machine.largest_batch
    jitter = _jitter(rng, machine.jitter)
    turns = _turns(machine, rng)
    slowed: list[float] = []
    answered, misses, spells, now_s = 0, 0, 0, 0.0
    spell_over_s, quiet_s = 0.0, SPELL_ENDS_AFTER * limit_s
    while answered < total and misses <= end_above:
        now_s = max(now_s, arrivals[answered])
        last = bisect_right(arrivals, now_s, answered, min(answered + largest, total))
        service_s = (fixed_s + per_query_s * (last - answered)) * next(jitter)
        if machine.neighbours:
            while len(slowed) * NEIGHBOUR_TURN_S <= now_s:
                slowed.append(next(turns))
            service_s *= slowed[-1]
        now_s += service_s
        late = bisect_left(arrivals, now_s - limit_s, answered, last) - answered
        if late:
            misses += late
            spells += now_s > spell_over_s
            spell_over_s = now_s + quiet_s
        answered = last
    aborted = answered < total
    if verdict_only and aborted:
        now_s = max(arrivals[-1], now_s + (total - answered) / machine.capacity_qps * factor)
        answered, aborted = total, False
    return Run(took_s=now_s, queries=answered, misses=misses, spells=spells, valid=misses <= allowed, aborted=aborted)


def _arrivals(rng: np.random.Generator, rate_qps: float, duration_s: float) -> list[float]:
    """Scheduled times, the first at or after the end of the duration included, as LoadGen's loop leaves them."""
    expected = rate_qps * duration_s
    times = np.cumsum(rng.exponential(1 / rate_qps, int(expected + 6 * math.sqrt(expected) + 10)))
    until = int(np.searchsorted(times, duration_s)) + 1
    schedule: list[float] = times[:until].tolist()
    return schedule


def _jitter(rng: np.random.Generator, deviation: float) -> Iterator[float]:
    while True:
        yield from rng.lognormal(0, deviation, BLOCK).tolist()


def _turns(machine: Machine, rng: np.random.Generator) -> Iterator[float]:
    while True:
        busy = rng.binomial(machine.neighbours, machine.neighbour_duty, BLOCK)
        yield from (1 + machine.neighbour_cost * busy).tolist()
