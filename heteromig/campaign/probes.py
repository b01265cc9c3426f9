"""What a tuning is asked, what its runs said, and what it may say next. Values only.

Rates are target rates of LoadGen in queries per second (Server) or samples per second (Offline).
"""

from __future__ import annotations

import math
from enum import Enum

from msgspec import Struct

from heteromig.core.errors import UsageError

SERVER, OFFLINE = "server", "offline"

SPELL_ENDS_AFTER = 10.0
"""Latency limits without a late query, after which the next one begins a new spell: what made those late is over."""
LEAST_PERCENTILE = 0.5
PRECISIONS = (0.001, 0.2)
"""Rates are told apart to six digits, and a precision worse than a fifth needs no tuning."""
MOST_QPS = 1e9
"""LoadGen schedules queries in nanoseconds."""
MOST_RUNS = 1000
"""Of a kind: more would take days."""


class Side(Enum):
    """Where main runs."""

    ISOLATED = "isolated"
    """Alone: nothing runs on the other slices."""
    BESIDE = "beside"
    """Beside the backgrounds."""


class Outcome(Enum):
    """How a run of main came out."""

    VALID = "valid"
    INVALID = "invalid"
    ABORTED = "aborted"
    """It was ended because it could no longer pass, or took too long."""
    SPOILED = "spoiled"
    """It says nothing about the rate: a background left its timed section, a worker failed."""


class TuneSettings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What is asked.

    Server is tuned so that at most a share 1 - `percentile` of the queries takes longer than `latency_limit_ms`, None
    where only main itself knows it. `verdicts_only`: its runs tell nothing but whether they are VALID, by a rule of
    their own. `whole_rates`: main takes no others.

    `full_s` is LoadGen's minimum duration of a result that counts and `min_queries` its minimum count; `probe_s` is the
    duration of a short run, longer where `misses_wanted` misses could not be seen in it. `start_qps` is the first rate
    tried, `ceiling_qps` a rate known to be too high (what Offline does), None where there is none. `confirmations`
    runs at full length must pass at the answer, which should be within `precision`, a share, of the highest rate that
    would. `most_probes` bounds the short runs of a side; after `most_confirmations` at full length no other rate is
    begun. `most_spoiled` bounds the spoiled ones in a row.
    """

    scenario: str
    start_qps: float = 1.0
    latency_limit_ms: float | None = 0.0
    percentile: float = 0.99
    full_s: float = 600.0
    probe_s: float = 60.0
    misses_wanted: int = 10
    min_queries: int = 1
    ceiling_qps: float | None = None
    confirmations: int = 1
    precision: float = 0.01
    sides: tuple[Side, ...] = (Side.ISOLATED, Side.BESIDE)
    most_probes: int = 16
    most_confirmations: int = 8
    most_spoiled: int = 3
    verdicts_only: bool = False
    whole_rates: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a number is out of its range.
        """
        for wrong, sentence in (
            (
                not 0 < self.start_qps <= MOST_QPS,
                "the first rate must be above 0, and at most one a nanosecond: give a start in queries per second",
            ),
            (
                self.ceiling_qps is not None and self.ceiling_qps <= self.start_qps,
                "the rate known to be too high must be above the start: lower the start, or leave the ceiling out",
            ),
            (
                self.scenario == SERVER and self.latency_limit_ms is not None and self.latency_limit_ms <= 0,
                "Server is tuned against a latency limit: give one in milliseconds",
            ),
            (
                not LEAST_PERCENTILE <= self.percentile < 1,
                "the percentile must be at least 0.5 and below 1: 0.99 is the usual one",
            ),
            (not 0 < self.probe_s <= self.full_s, "a probe lasts longer than 0 s and at most as long as a full run"),
            (
                not PRECISIONS[0] <= self.precision <= PRECISIONS[1],
                "the precision must be from 0.001 to 0.2: 0.01 is one percent",
            ),
            (
                self.whole_rates and self.start_qps != round(self.start_qps),
                "main takes whole rates only: give a start without a fraction",
            ),
            (not self.sides, "nothing is to be tuned: ask for isolated, beside, or both"),
            (
                min(self.confirmations, self.most_probes, self.most_spoiled, self.misses_wanted, self.min_queries) < 1,
                "counts of runs, misses and queries must be at least 1",
            ),
            (
                max(self.confirmations, self.most_probes, self.most_spoiled) > MOST_RUNS,
                f"no campaign has more than {MOST_RUNS} runs of a kind: lower the number of confirmations",
            ),
            (
                self.most_confirmations < self.confirmations,
                "fewer full-length runs are allowed than must pass: raise their limit",
            ),
        ):
            if wrong:
                raise UsageError(f"Cannot tune: {sentence}.")

    @property
    def allowed_share(self) -> float:
        """Of all queries, the share that may take longer than the limit."""
        return 1 - self.percentile

    @property
    def most_full_runs(self) -> int:
        """How many full-length runs a side has at most: a rate that passes so far is not left when no other begins."""
        return self.most_confirmations + self.confirmations - 1

    def takes_s(self, duration_s: float, rate_qps: float | None) -> float:
        """How long main is timed at least: for all queries that it must have, where they take longer than was asked."""
        if self.scenario != SERVER or self.verdicts_only or not rate_qps:
            return duration_s
        return max(duration_s, self.min_queries / rate_qps)

    def rounded(self, rate_qps: float) -> float:
        """The rate that is run: to six digits, so that what people read is what was run; or a whole one, not higher."""
        return float(max(1, math.floor(rate_qps))) if self.whole_rates else float(f"{rate_qps:.6g}")


class Probe(Struct, frozen=True, forbid_unknown_fields=True):
    """One run of main, short or at full length.

    `duration_s` is the minimum duration that was asked for; `confirms`: by `Confirm`. `queries` were answered, `misses`
    of them later than the limit, in so many `spells`; None where the harness does not say. A spell ends when none was
    late for `SPELL_ENDS_AFTER` latency limits. `achieved_qps` is how many were answered in a second,
    `percentile_latency_ms` the latency that counts in the scenario; None where unknown. `reason` says why it was not
    VALID, for people.
    """

    side: Side
    rate_qps: float | None
    duration_s: float
    outcome: Outcome
    confirms: bool = False
    queries: int = 0
    misses: int | None = None
    spells: int | None = None
    achieved_qps: float | None = None
    percentile_latency_ms: float | None = None
    reason: str = ""


class RunProbe(Struct, frozen=True, tag="probe"):
    """Run main for `duration_s` at `rate_qps`; `why` is a sentence for people.

    It is to be ended above so many misses, or after so long; None: never. No run that could have passed at full length
    is ended so.
    """

    side: Side
    rate_qps: float
    duration_s: float
    why: str
    abort_above_misses: int | None = None
    abort_after_s: float | None = None


class Confirm(Struct, frozen=True, tag="confirm"):
    """The same at full length, for the `number`th of `of` results. `rate_qps` is None where there is none to choose."""

    side: Side
    rate_qps: float | None
    duration_s: float
    why: str
    number: int
    of: int
    abort_above_misses: int | None = None
    abort_after_s: float | None = None


class Bracket(Struct, frozen=True):
    """The highest rate that passed below all that failed, and the lowest that failed above all that passed."""

    low_qps: float | None
    high_qps: float | None

    def holds(self, rate_qps: float) -> bool:
        """Whether the rate is strictly inside."""
        return (self.low_qps is None or rate_qps > self.low_qps) and (self.high_qps is None or rate_qps < self.high_qps)

    @property
    def width(self) -> float:
        """As a share of its lower end; infinite where an end is missing."""
        if self.low_qps is None or self.high_qps is None:
            return float("inf")
        return self.high_qps / self.low_qps - 1


class Answer(Struct, frozen=True):
    """What one side came to: the highest rate tried that passed all its confirmations; None where none is chosen.

    `achieved_qps` and `percentile_latency_ms` are those of the confirmations. `noise` is how far runs scatter about the
    fitted curve, as a share of the rate; None where that was not to be seen.
    """

    side: Side
    rate_qps: float | None
    achieved_qps: tuple[float | None, ...]
    percentile_latency_ms: tuple[float | None, ...]
    bracket: Bracket
    noise: float | None
    runs: int
    why: str


class Done(Struct, frozen=True, tag="done"):
    """Every side has its answer."""

    answers: tuple[Answer, ...]


class Inconclusive(Struct, frozen=True, tag="inconclusive"):
    """The runs of a side contradict each other by more than what was asked for."""

    side: Side
    why: str
    bracket: Bracket
    noise: float | None
    answers: tuple[Answer, ...] = ()


class NotPossible(Struct, frozen=True, tag="not-possible"):
    """No rate passes. `floor_ms` is the lowest latency measured; None where none was."""

    side: Side
    why: str
    floor_ms: float | None
    answers: tuple[Answer, ...] = ()


class Stopped(Struct, frozen=True, tag="stopped"):
    """Something other than the rate stands in the way, with its reason."""

    side: Side
    why: str
    answers: tuple[Answer, ...] = ()


Step = RunProbe | Confirm | Done | Inconclusive | NotPossible | Stopped
