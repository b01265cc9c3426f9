"""What a change means, and whether it keeps the limits that it was given. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from heteromig.core.degradation import (
    Better,
    Estimate,
    Gate,
    GateOutcome,
    GateResult,
    Judgement,
    Metric,
)
from heteromig.core.errors import UsageError
from heteromig.results.metrics import METRICS, OF_THE_DEVICE
from heteromig.results.wording import percent

NO_DIFFERENCE = 0.005
"""What lies within this is called no difference. It is less than the smallest effect that should still be told:
NVIDIA's published Offline result of resnet50 beside neighbours is 0.58 % below the same alone (v2.0, as in
docs/import-results.md)."""
_NO_DIFFERENCE_ABSOLUTE = 1.0
"""Likewise of differences: NVML tells temperatures in whole degrees, and a share of time is known to about a sample."""

_GATE = re.compile(r"\s*(?P<metric>[^\s:]+)\s*:\s*(?P<sign>[+-])\s*(?P<percent>\d{1,9}(?:\.\d{1,9})?)\s*%\s*")


def judge(metric: Metric, estimate: Estimate) -> Judgement:
    """No difference, a difference one way or the other, or that noise hides which.

    With an interval it decides. Without one, what runs of one kind lay apart is taken for noise; where not even that is
    known, the change stands as it was measured.
    """
    least = _NO_DIFFERENCE_ABSOLUTE if metric.absolute else NO_DIFFERENCE
    low, high = _span(estimate, absolute=metric.absolute)
    if -least <= low <= high <= least:
        return Judgement.NO_DIFFERENCE
    if low <= 0 <= high:
        return Judgement.INCONCLUSIVE
    up = estimate.change > 0
    if metric.better is Better.NEITHER:
        return Judgement.MORE if up else Judgement.LESS
    return Judgement.BETTER if up is (metric.better is Better.MORE) else Judgement.WORSE


def _span(estimate: Estimate, *, absolute: bool) -> tuple[float, float]:
    """Between what the change lies, as far as is known: the interval, or noise either way where it hides the change."""
    if estimate.low is not None and estimate.high is not None:
        return estimate.low, estimate.high
    if estimate.noise is None:
        return estimate.change, estimate.change
    if absolute:
        low, high = estimate.change - estimate.noise, estimate.change + estimate.noise
    else:  # a factor either way, so that exchanging the sides changes nothing
        low, high = (1 + estimate.change) / (1 + estimate.noise) - 1, (1 + estimate.change) * (1 + estimate.noise) - 1
    return (low, high) if low <= 0 <= high else (estimate.change, estimate.change)


def parse_gate(text: str, known: Iterable[str]) -> Gate:
    """Read `qps:-2%` or `p99:+10%`; `known` are the metrics of the runs in question, whatever their values.

    Raises:
        UsageError: it is no such limit, or there is no such metric, or not in that scenario.
    """
    names = list(known)
    match = _GATE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--fail-if {text!r} is no limit: write a metric, a sign and a percentage, such as qps:-2% (fail if "
            "throughput is more than 2 % lower) or p99:+10%."
        )
    said = match["metric"]
    name = next((one for one in (*names, *METRICS) if one.lower() == said.lower()), said)
    if name in METRICS and METRICS[name].absolute:
        title = METRICS[name].title
        raise UsageError(f"--fail-if {text!r}: a change of {title} is no percentage; choose another metric.")
    if name not in names:
        raise UsageError(_unknown(text, name, names))
    below = match["sign"] == "-"
    share = float(match["percent"]) / 100
    return Gate(text=text.strip(), metric=name, limit=-share if below else share, below=below)


def _unknown(text: str, name: str, names: list[str]) -> str:
    choice = f"These runs have {', '.join(names)}."
    if name in METRICS:
        return f"--fail-if {text!r}: there is no {name} in these runs' scenario or logs. {choice}"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"--fail-if {text!r}: there is no metric {name!r}{meant} {choice}"


def judge_gate(gate: Gate, estimate: Estimate | None, why: str = "") -> GateResult:
    """Whether the change keeps within the limit. `why` says why there is no estimate.

    It is exceeded where all of the interval lies beyond the limit, or the change where there is no interval, and no
    noise known that hides it.
    """
    if estimate is None:
        return GateResult(gate, GateOutcome.UNDECIDED, f"{gate.text} cannot be decided: {gate.metric} is n/a, {why}.")
    sign = -1 if gate.below else 1
    change, limit = sign * estimate.change, sign * gate.limit
    said = f"{gate.metric} changed by {percent(estimate.change)}"
    span = _span(estimate, absolute=False)
    if estimate.low is not None:
        said += f" ({percent(span[0])} to {percent(span[1])})"
    elif span[0] < span[1]:
        said += f", no more than its baselines lay apart ({percent(estimate.noise or 0.0).lstrip('+')})"
    low, high = sorted(sign * bound for bound in span)
    if low > limit:
        by = 100 * (change - limit)
        return GateResult(gate, GateOutcome.EXCEEDED, f"{gate.text} failed: {said}, {by:.2f} points beyond the limit.")
    if high > limit:
        return GateResult(gate, GateOutcome.UNDECIDED, f"{gate.text} is undecided: {said}, on both sides of the limit.")
    return GateResult(gate, GateOutcome.KEPT, f"{gate.text} is kept: {said}.")


def gateable(names: Iterable[str]) -> list[str]:
    """The metrics that a gate may name, of runs that have `names`, and what devices tell, which may be n/a."""
    return list(dict.fromkeys((*names, *(metric.name for metric in OF_THE_DEVICE if not metric.absolute))))
