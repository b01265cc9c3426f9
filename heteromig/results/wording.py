"""Changes in words: "4.1 % slower" rather than a sign that has to be interpreted. Pure."""

from __future__ import annotations

from heteromig.core.degradation import Estimate, Judgement, Metric


def percent(share: float) -> str:
    """`-4.1 %` or `+0.03 %`: one decimal, two where there is little."""
    text = f"{100 * share:+.{_decimals(100 * share)}f} %"
    return "0 %" if float(text[:-2]) == 0 else text


def worded(metric: Metric, estimate: Estimate, judgement: Judgement) -> str:
    """`4.1 % slower`, `3.0 °C higher`, `no difference`, `inconclusive`."""
    if judgement in {Judgement.NO_DIFFERENCE, Judgement.INCONCLUSIVE}:
        return str(judgement.value)
    return _directed(metric, estimate.change)


def sentence(metric: Metric, estimate: Estimate, judgement: Judgement) -> str:
    """`throughput: 4.1 % slower (95 % interval from 5.0 % slower to 3.2 % slower, n = 3)`, without a full stop."""
    words = worded(metric, estimate, judgement)
    measured = _directed(metric, estimate.change)
    if estimate.low is not None and estimate.high is not None:
        span = f"from {_directed(metric, estimate.low)} to {_directed(metric, estimate.high)}"
        return f"{metric.title}: {words} (95 % interval {span}, n = {estimate.n})"
    said = "" if words == measured else f"measured {measured}; "
    if estimate.noise is not None:
        apart = _size(metric, estimate.noise)
        return f"{metric.title}: {words} ({said}no interval with one run, and its two baselines lay {apart} apart)"
    return f"{metric.title}: {words} ({said}no interval with one run on each side)"


def _directed(metric: Metric, change: float) -> str:
    if change == 0:
        return "the same"
    return f"{_size(metric, change)} {metric.more if change > 0 else metric.less}"


def _size(metric: Metric, change: float) -> str:
    value = abs(change) if metric.absolute else abs(100 * change)
    unit = metric.unit if metric.absolute else "%"
    return f"{value:.{_decimals(value)}f} {unit}"


def _decimals(value: float) -> int:
    return 1 if abs(value) >= 1 else 2
