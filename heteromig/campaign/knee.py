"""Where the share of late queries crosses what is allowed: a line through its logarithm over that of the rate.

Near the knee the logarithm is nearly linear. The line is fitted by least squares; each run weighs as much as its late
queries tell, less the farther it is from the knee, where the curve bends. The slope is drawn towards what is usual
until the runs say otherwise, so that one run near the knee is enough to say where to look next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct

FAR = 20.0
"""A share that is so many times too low or, half of it, too high says nothing about the knee."""
USUAL_SLOPE, SLOPE_DEVIATION = 40.0, 25.0
"""One percent more of the rate makes 1.5 times as many late queries; from 1.25 to 3 times was seen in the model
of a batching server, for latency limits from 1.4 to 2.8 times the time of its largest batch."""
LEAST_SLOPE = 8.0
SPELL_VARIANCE = 3.0
"""Late queries come in spells. The variance of the logarithm of their share is so much over the number of spells: 1.5
to 4 in the model, 8 to 10 where the limit is so long that the knee is a few percent below capacity."""
MISSES_PER_SPELL = 8.0
"""Where nobody counted spells. In the model 10 at a rate of 400 qps; more make the planner look once more."""
BEND = 0.05
"""What the curve departs from a line at a distance of e, in its logarithm."""


class Reading(Struct, frozen=True):
    """One run: the rate, how many queries were answered, how many late, in how many spells if known."""

    rate_qps: float
    queries: int
    misses: int
    spells: int | None


class Knee(Struct, frozen=True):
    """Where the line crosses the allowed share, which is `share`.

    `error` is the standard error of `rate_qps`, as a share of it; `slope` is that of the logarithms. `noise` is how far
    runs scatter about the line, as a share of the rate; None while there are no more runs than the line takes.
    `spell_queries` is after how many queries a new spell of late ones begins at the knee.
    """

    rate_qps: float
    share: float
    error: float
    slope: float
    noise: float | None
    spell_queries: float

    def share_at(self, rate_qps: float) -> float:
        """What share of the queries is late at that rate, by the line."""
        return self.share * math.exp(self.slope * math.log(rate_qps / self.rate_qps))

    def scatter(self, queries: float) -> float:
        """By how much the crossing that one run shows is off, as a share of the rate, for a run of so many queries."""
        return math.sqrt(SPELL_VARIANCE * self.spell_queries / queries) / self.slope


def fit(readings: Iterable[Reading], allowed_share: float, run_noise: float) -> Knee | None:
    """The knee; None where no run is near enough to it.

    No run tells the crossing better than to `run_noise`, a share of the rate.
    """
    points = []
    spells = queries = 0.0
    for reading in readings:
        distance = math.log((reading.misses + 0.5) / (reading.queries + 1) / allowed_share)
        if reading.misses and -math.log(FAR) < distance < math.log(FAR / 2):
            seen = max(1.0, reading.misses / MISSES_PER_SPELL) if reading.spells is None else max(1.0, reading.spells)
            variance = SPELL_VARIANCE / seen + (USUAL_SLOPE * run_noise) ** 2 + (BEND * distance * distance) ** 2
            points.append((math.log(reading.rate_qps), distance, 1 / variance))
            # Fewer queries are late farther down, and about as many times fewer spells of them.
            spells += seen
            queries += reading.queries * math.exp(distance)
    if not points:
        return None
    weight = sum(w for _, _, w in points)
    mean_x = sum(x * w for x, _, w in points) / weight
    mean_y = sum(y * w for _, y, w in points) / weight
    prior = SLOPE_DEVIATION**-2
    spread = sum(w * (x - mean_x) ** 2 for x, _, w in points) + prior
    joint = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in points) + prior * USUAL_SLOPE
    slope = max(LEAST_SLOPE, joint / spread)
    shift = -mean_y / slope
    error = math.sqrt(1 / weight + shift * shift / spread) / slope
    noise = None
    spare = len(points) - 2
    if spare > 0:
        squares = sum(w * (y - mean_y - slope * (x - mean_x)) ** 2 for x, y, w in points)
        noise = math.sqrt(squares / weight * len(points) / spare) / slope
        error *= max(1.0, math.sqrt(squares / spare))
    return Knee(
        rate_qps=math.exp(mean_x + shift),
        share=allowed_share,
        error=error,
        slope=slope,
        noise=noise,
        spell_queries=queries / spells,
    )
