"""What neighbours cost, as values: metrics, how each changed, what a comparison came to. Elsewhere is the arithmetic.

Changes are of the second side against the first. A relative one is a share, -0.041 for 4.1 % less.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Better(Enum):
    """Which way is good."""

    MORE = "more"
    LESS = "less"
    NEITHER = "neither"


class Metric(Struct, frozen=True):
    """One figure of a run. `name` is what gates call it; `less` and `more` are how messages call a change.

    `absolute`: its change is a difference in `unit`, because its ratio means nothing (degrees) or its value may be 0.
    """

    name: str
    title: str
    unit: str
    better: Better
    less: str = "lower"
    more: str = "higher"
    absolute: bool = False


class Estimate(Struct, frozen=True):
    """A change, and between what it lies with 95 % confidence: None where there are too few runs to say.

    `n` is the number of pairs, or of runs on the smaller side. `noise` is how far runs of one kind lay apart, where
    that is all there is to go by.
    """

    change: float
    low: float | None
    high: float | None
    n: int
    noise: float | None = None


class Judgement(Enum):
    """What a change means."""

    NO_DIFFERENCE = "no difference"
    WORSE = "worse"
    BETTER = "better"
    LESS = "less"
    MORE = "more"
    INCONCLUSIVE = "inconclusive"
    UNKNOWN = "n/a"


class Change(Struct, frozen=True):
    """One metric on both sides, each the mean of its runs. `words` are such as "4.1 % slower".

    What is not known is None, and `words` then say why, as the end of a sentence.
    """

    metric: Metric
    first: float | None
    second: float | None
    estimate: Estimate | None
    judgement: Judgement
    words: str


class GateOutcome(Enum):
    """Whether a limit was kept."""

    KEPT = "kept"
    EXCEEDED = "exceeded"
    UNDECIDED = "undecided"


class Gate(Struct, frozen=True):
    """A limit: `metric` may change by `limit` at most, downwards where that is `below`; `text` is how it was said."""

    text: str
    metric: str
    limit: float
    below: bool


class GateResult(Struct, frozen=True):
    """What became of a gate, in a sentence."""

    gate: Gate
    outcome: GateOutcome
    sentence: str


class ComparedRun(Struct, frozen=True):
    """One run of a side. `status` is that of its verdict, `backgrounds` are the benchmarks beside main."""

    run_dir: str
    run_id: str
    goal: str
    status: str
    backgrounds: tuple[str, ...]


class Difference(Struct, frozen=True):
    """A setting that is not the same on both sides."""

    setting: str
    first: str
    second: str


class Comparison(Struct, frozen=True):
    """All that `compare` says. `paired`: each run of the second side goes with its two neighbours in time of the first.

    `primary` is the name of the metric that a scenario is measured by. `confidence` is that of the intervals.
    """

    schema_version: int
    simulated: bool
    benchmark: str
    scenario: str
    primary: str
    paired: bool
    confidence: float
    first: tuple[ComparedRun, ...]
    second: tuple[ComparedRun, ...]
    changes: tuple[Change, ...]
    gates: tuple[GateResult, ...]
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]
    status: str
    exit_code: int
    sentence: str


class Degradation(Struct, frozen=True):
    """What a run's neighbours cost by its main metric, against `baselines`, which are run directories."""

    change: Change
    baselines: tuple[str, ...]
    sentence: str
    remarks: tuple[str, ...] = ()
