"""One result beside busy neighbours against the same alone: which figures, and the arithmetic. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from heteromig.core.units import NS_PER_MS

P99 = "result_99.00_percentile_latency_ns"

METRICS: Mapping[str, tuple[str, ...]] = {
    "offline": ("result_samples_per_second",),
    "server": ("result_scheduled_samples_per_sec", "result_completed_samples_per_sec"),
    "singlestream": ("early_stopping_latency_ss", "result_90.00_percentile_latency_ns"),
    "multistream": ("early_stopping_latency_ms", P99),
}
"""LoadGen's names of the figure that counts in a scenario, the best first.

Later rounds of Server count completed samples and those of the streams an estimate that earlier logs lack; the first
that both sides have is compared.
"""


class Reading(Struct, frozen=True):
    """What the logs of one performance run say. `metrics` are under LoadGen's names, finite and above 0, times in ns.

    `scenario` is a key of `METRICS`. `valid` is None where the logs say neither. `samples_per_query` is that of the
    test's settings.
    """

    scenario: str
    metrics: dict[str, float]
    valid: bool | None
    samples_per_query: int | None


class Comparison(Struct, frozen=True):
    """One benchmark and scenario of `system`, in one results directory `results`, against `baseline`.

    `value` and `baseline_value` are in `unit`: "samples/s", more is better, or "ms", less is better. `ratio` is
    value over baseline's, to four decimals; changes are in percent of the baseline's, to two. What is not known is
    None, and then `remark` says why; it also says what is to be kept in mind.
    """

    results: str
    system: str
    baseline: str | None
    match: str
    benchmark: str
    scenario: str
    metric: str
    unit: str
    value: float
    baseline_value: float | None
    ratio: float | None
    change_percent: float | None
    p99_ms: float | None
    baseline_p99_ms: float | None
    p99_change_percent: float | None
    valid: bool | None
    baseline_valid: bool | None
    remark: str


class Place(Struct, frozen=True):
    """What is compared, as `Comparison` names it."""

    results: str
    system: str
    baseline: str | None
    match: str
    benchmark: str
    scenario: str


def compare(place: Place, hetero: Reading, plain: Reading | None, missing: str = "") -> Comparison:
    """`hetero` against `plain`; `missing` says why that is None.

    `hetero` has at least one metric of its scenario.
    """
    remark = missing if plain is None else _incomparable(hetero, plain)
    if plain is not None and not remark:
        metric = next(name for name in METRICS[hetero.scenario] if name in hetero.metrics and name in plain.metrics)
        value, baseline_value = _shown(metric, hetero.metrics[metric]), _shown(metric, plain.metrics[metric])
        remark = _caution(hetero, plain)
    else:
        metric = next(name for name in METRICS[hetero.scenario] if name in hetero.metrics)
        value, baseline_value = _shown(metric, hetero.metrics[metric]), None
    p99, plain_p99 = _p99_ms(hetero), _p99_ms(plain) if baseline_value is not None else None
    return Comparison(
        results=place.results,
        system=place.system,
        baseline=place.baseline,
        match=place.match,
        benchmark=place.benchmark,
        scenario=place.scenario,
        metric=metric,
        unit="ms" if _is_time(metric) else "samples/s",
        value=value,
        baseline_value=baseline_value,
        ratio=ratio(value, baseline_value),
        change_percent=change_percent(value, baseline_value),
        p99_ms=p99,
        baseline_p99_ms=plain_p99,
        p99_change_percent=change_percent(p99, plain_p99),
        valid=hetero.valid,
        baseline_valid=None if plain is None else plain.valid,
        remark=remark,
    )


def ratio(value: float | None, baseline: float | None) -> float | None:
    """`value / baseline` to four decimals; None where there is none, or it is not finite."""
    if value is None or not baseline:
        return None
    quotient = value / baseline
    return round(quotient, 4) if math.isfinite(quotient) else None


def change_percent(value: float | None, baseline: float | None) -> float | None:
    """By how many percent of `baseline` `value` is above it, to two decimals; never -0.0. None as in `ratio`."""
    if value is None or not baseline:
        return None
    percent = (value / baseline - 1) * 100
    return round(percent, 2) + 0.0 if math.isfinite(percent) else None


def _incomparable(hetero: Reading, plain: Reading) -> str:
    if not any(name in hetero.metrics and name in plain.metrics for name in METRICS[hetero.scenario]):
        return "the two logs have no figure in common"
    if hetero.scenario == "multistream" and _differ(hetero, plain):
        return f"{hetero.samples_per_query} samples per query against {plain.samples_per_query}"
    return ""


def _caution(hetero: Reading, plain: Reading) -> str:
    if hetero.scenario == "offline" and _differ(hetero, plain):
        return f"p99 is of {hetero.samples_per_query} samples against {plain.samples_per_query}"
    return ""


def _differ(hetero: Reading, plain: Reading) -> bool:
    sizes = (hetero.samples_per_query, plain.samples_per_query)
    return None not in sizes and sizes[0] != sizes[1]


def _p99_ms(reading: Reading | None) -> float | None:
    if reading is None or P99 not in reading.metrics:
        return None
    return _shown(P99, reading.metrics[P99])


def _shown(metric: str, value: float) -> float:
    return value / NS_PER_MS if _is_time(metric) else value


def _is_time(metric: str) -> bool:
    return "latency" in metric
