"""The figures that two runs are compared by: their names, and where LoadGen's log has them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from heteromig.core.degradation import Better, Metric
from heteromig.core.units import NS_PER_MS

QPS = Metric("qps", "throughput", "samples/s", Better.MORE, "slower", "faster")
TOKENS = Metric("tokens", "token throughput", "tokens/s", Better.MORE, "slower", "faster")
ESTIMATE = Metric("estimate", "early-stopping estimate", "ms", Better.LESS, "shorter", "longer")
POWER = Metric("power", "power of the GPU", "W", Better.NEITHER)
ENERGY = Metric("energy", "energy of the GPU", "J/sample", Better.NEITHER)
SM_CLOCK = Metric("sm-clock", "SM clock", "MHz", Better.MORE)
TEMPERATURE = Metric("temperature", "temperature", "°C", Better.NEITHER, absolute=True)
HEAT = Metric("heat-slowdown", "time slowed by heat", "%", Better.LESS, absolute=True)
BRAKE = Metric("brake-slowdown", "time slowed by brake", "%", Better.LESS, absolute=True)
POWER_CAP = Metric("power-capped", "time at power cap", "%", Better.LESS, absolute=True)

OF_THE_DEVICE = (POWER, ENERGY, SM_CLOCK, TEMPERATURE, HEAT, BRAKE, POWER_CAP)
PERCENTILES = ("50", "90", "95", "97", "99", "99.9")
"""Those that LoadGen logs (loadgen 6.0.17, results.cc)."""

_PRIMARY = {"offline": QPS.name, "server": "p99", "singlestream": "p90", "multistream": "p99"}
"""What a scenario is judged by. Server's rate is given, so that neighbours show in its latency; MLPerf judges the
streams by these percentiles, of which the observed one varies less between runs than the early-stopping estimate."""
_THROUGHPUTS = (
    "result_samples_per_second",
    "result_completed_samples_per_sec",
    "result_scheduled_samples_per_sec",
    "result_qps_without_loadgen_overhead",
    "result_qps_with_loadgen_overhead",
)
"""The first that is there counts; those of a scenario are all there or none (LoadGen 4.0 to 6.0)."""
_TOKEN_RATES = ("result_completed_tokens_per_second", "result_tokens_per_second")
_ESTIMATES = {"singlestream": "early_stopping_latency_ss", "multistream": "early_stopping_latency_ms"}
_PERCENTILE = re.compile(
    r"result_(?P<of>first_token_|time_per_output_token_|)(?P<percent>\d+\.\d\d)_percentile(?:_latency)?_ns"
)
_PREFIXES = {"": "", "first_token_": "ttft-", "time_per_output_token_": "tpot-"}
_TITLES = {"": "latency", "ttft-": "time to first token", "tpot-": "time per output token"}
_LOADGENS = ("result_", "early_stopping_", "accuracy")
"""How the names of LoadGen's figures, and of those of accuracy, begin; others are a program's own."""


def _latency(prefix: str, kind: str) -> Metric:
    return Metric(f"{prefix}{kind}", f"{_TITLES[prefix]} {kind}", "ms", Better.LESS, "shorter", "longer")


LATENCIES = (
    *(_latency("", kind) for kind in ("mean", *(f"p{percent}" for percent in PERCENTILES), "max")),
    *(_latency(prefix, f"p{percent}") for prefix in ("ttft-", "tpot-") for percent in PERCENTILES),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (QPS, TOKENS, *LATENCIES, ESTIMATE, *OF_THE_DEVICE)}
"""Every metric that has a name of ours, in the order in which they are shown."""


def metric_of(name: str) -> Metric:
    """The metric of that name; one that a program gave a name of its own may be better either way."""
    return METRICS.get(name) or Metric(name, name, "", Better.NEITHER)


def primary_metric(scenario: str, names: Iterable[str]) -> str:
    """What runs of a scenario are compared by first, among the `names` of metrics that they have, in order."""
    there = list(names)
    wanted = _PRIMARY.get(scenario, QPS.name)
    return next((name for name in (wanted, QPS.name, *there) if name in there), wanted)


def read_figures(scenario: str, logged: Mapping[str, float]) -> dict[str, float]:
    """The figures of a run by the names of their metrics, finite and above 0, out of those under LoadGen's names.

    Latencies are in ms. Offline has none: its one query holds all samples, so that its percentiles are points of the
    run's length. A figure that is not LoadGen's keeps its name.
    """
    found: dict[str, float] = {}
    for name, keys in ((QPS.name, _THROUGHPUTS), (TOKENS.name, _TOKEN_RATES)):
        rate = next((logged[key] for key in keys if key in logged), math.nan)
        found[name] = rate
    if scenario != "offline":
        found["mean"] = logged.get("result_mean_latency_ns", math.nan) / NS_PER_MS
        found["max"] = logged.get("result_max_latency_ns", math.nan) / NS_PER_MS
        found[ESTIMATE.name] = logged.get(_ESTIMATES.get(scenario, ""), math.nan) / NS_PER_MS
        for key, value in logged.items():
            percentile = _PERCENTILE.fullmatch(key)
            if percentile is not None:
                percent = percentile["percent"].rstrip("0").rstrip(".")
                found[f"{_PREFIXES[percentile['of']]}p{percent}"] = value / NS_PER_MS
    found.update((name, value) for name, value in logged.items() if not name.startswith(_LOADGENS))
    return {name: value for name, value in found.items() if math.isfinite(value) and value > 0}


def in_order(names: Iterable[str]) -> list[str]:
    """Ours in the order of `METRICS`, then a program's own as they come."""
    order = {name: place for place, name in enumerate(METRICS)}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))
