"""Answers to the steps of a tuning: a smooth server, and whoever answers at random."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from heteromig.campaign.early_stopping import most_misses
from heteromig.campaign.probes import Confirm, Outcome, Probe, RunProbe, Side, Step, TuneSettings
from heteromig.campaign.tuning import next_step

Answerer = Callable[[RunProbe | Confirm], Probe]


class SmoothServer(Struct, frozen=True):
    """A server without noise: at `knee_qps` one percent of the queries is late, and e times as many `1/slope` higher.

    Beyond `capacity_qps` nearly all are. No latency is below `floor_ms`. `sees`: its harness tells misses.
    """

    knee_qps: float = 400.0
    slope: float = 50.0
    capacity_qps: float = 440.0
    floor_ms: float = 20.0
    limit_ms: float = 100.0
    sees: bool = True

    def __call__(self, step: RunProbe | Confirm) -> Probe:
        assert step.rate_qps is not None
        rate = step.rate_qps
        queries = max(1, round(rate * step.duration_s))
        if self.floor_ms > self.limit_ms or rate > self.capacity_qps:
            misses = queries
        else:
            misses = min(queries, math.floor(0.01 * queries * (rate / self.knee_qps) ** self.slope))
        aborted = self.sees and step.abort_above_misses is not None and misses > step.abort_above_misses
        if aborted:
            assert step.abort_above_misses is not None
            share = (step.abort_above_misses + 1) / misses
            queries, misses = max(step.abort_above_misses + 1, round(queries * share)), step.abort_above_misses + 1
        valid = misses <= most_misses(queries, 0.01)
        return Probe(
            side=step.side,
            rate_qps=rate,
            duration_s=step.duration_s,
            outcome=Outcome.ABORTED if aborted else Outcome.VALID if valid else Outcome.INVALID,
            confirms=isinstance(step, Confirm),
            queries=queries,
            misses=misses if self.sees else None,
            achieved_qps=min(rate, self.capacity_qps),
            percentile_latency_ms=self.floor_ms * (1 + rate / self.capacity_qps / 10),
            reason="" if valid else "too many late",
        )


class CliffServer(Struct, frozen=True):
    """A server as a GPU was seen to be (docs/hardware.md): nothing is late up to the knee, and 5 % just above it."""

    knee_qps: float = 1280.0
    capacity_qps: float = 1285.0

    def __call__(self, step: RunProbe | Confirm) -> Probe:
        assert step.rate_qps is not None
        assert step.abort_above_misses is not None
        rate = step.rate_qps
        queries = round(rate * step.duration_s)
        share = 0.0 if rate <= self.knee_qps else min(0.8, 0.035 + 3 * (rate / self.knee_qps - 1))
        misses = round(share * queries)
        return Probe(
            side=step.side,
            rate_qps=rate,
            duration_s=step.duration_s,
            outcome=Outcome.ABORTED if misses > step.abort_above_misses else Outcome.VALID,
            confirms=isinstance(step, Confirm),
            queries=queries,
            misses=misses,
            achieved_qps=min(rate, self.capacity_qps),
        )


class NoisyServer:
    """A server on a machine that others use too: what it can do wanders, and late queries come in spells.

    As seen of ResNet-50 on two busy processors, in runs of ten seconds: beside backgrounds it can do about six tenths.
    """

    KEEPS, SLOPE, SPELL = 0.5, 8.0, 6.0

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._wander = self._random.normal()

    def __call__(self, step: RunProbe | Confirm) -> Probe:
        assert step.rate_qps is not None
        assert step.abort_above_misses is not None
        rate, drawn = step.rate_qps, self._random
        self._wander = self.KEEPS * self._wander + math.sqrt(1 - self.KEEPS**2) * drawn.normal()
        usual_qps, wanders = (340.0, 0.07) if step.side is Side.ISOLATED else (210.0, 0.15)
        knee_qps = usual_qps * math.exp(wanders * self._wander)
        queries = max(1000, round(rate * step.duration_s))
        late = min(1.0, 0.01 * (rate / knee_qps) ** self.SLOPE) * queries
        misses, next_spell = 0.0, drawn.exponential()
        while next_spell < late / self.SPELL and misses < queries:
            misses += drawn.exponential(self.SPELL)
            next_spell += drawn.exponential()
        count = min(queries, math.ceil(misses))
        aborted = count > step.abort_above_misses
        valid = count <= most_misses(queries, 0.01)
        return Probe(
            side=step.side,
            rate_qps=rate,
            duration_s=step.duration_s,
            outcome=Outcome.ABORTED if aborted else Outcome.VALID if valid else Outcome.INVALID,
            confirms=isinstance(step, Confirm),
            queries=queries,
            misses=count,
            achieved_qps=min(rate, 1.1 * knee_qps),
        )


def drive(settings: TuneSettings, world: Answerer, most: int = 200) -> tuple[Step, list[Probe]]:
    """Runs until the planner says that there is nothing to run; `most` are enough."""
    probes: list[Probe] = []
    while isinstance(step := next_step(settings, probes), RunProbe | Confirm):
        assert len(probes) < most, f"still not done: {step}"
        probes.append(world(step))
    return step, probes


def server(
    *, start_qps: float = 300.0, sides: tuple[Side, ...] = (Side.BESIDE,), confirmations: int = 1
) -> TuneSettings:
    return TuneSettings(
        scenario="server", start_qps=start_qps, latency_limit_ms=100.0, sides=sides, confirmations=confirmations
    )
