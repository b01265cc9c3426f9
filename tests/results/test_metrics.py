"""Figures out of what LoadGen logs, by the names that gates use."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.logs.detail import read_detail
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.results.metrics import METRICS, in_order, metric_of, primary_metric, read_figures
from tests.core.histories import examples

RECORDINGS = Path(__file__).parents[1] / "logs" / "recordings"
LATENCIES = {"mean", "p50", "p90", "p95", "p97", "p99", "p99.9", "max"}


def recorded(name: str, scenario: str) -> dict[str, float]:
    return read_figures(scenario, read_detail(RECORDINGS / name / DETAIL_LOG).metrics)


@pytest.mark.parametrize("version", ["4.0", "4.1.30", "5.1.2", "6.0.17"])
def test_offline_has_throughput_and_no_latencies(version: str) -> None:
    figures = recorded(f"{version}/offline", "offline")
    assert figures.keys() == {"qps"}
    assert figures["qps"] == pytest.approx(987, abs=2)


@pytest.mark.parametrize("version", ["4.1.30", "5.1.2", "6.0.17"])
def test_server_has_what_was_completed_and_every_percentile(version: str) -> None:
    figures = recorded(f"{version}/server", "server")
    assert figures.keys() == {"qps", *LATENCIES}
    assert 0.01 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["p99.9"] <= figures["max"] < 10, "ms"


@pytest.mark.parametrize("version", ["4.1.30", "5.1.2", "6.0.17"])
def test_a_stream_has_the_estimate_of_early_stopping_too(version: str) -> None:
    figures = recorded(f"{version}/single_stream", "singlestream")
    assert figures.keys() == {"qps", "estimate", *LATENCIES}
    assert figures["estimate"] >= figures["p90"]


def test_runs_of_tokens_have_their_times() -> None:
    figures = recorded("4.0/tokens", "server")
    assert {"tokens", "ttft-p99", "tpot-p99.9"} < figures.keys()
    assert figures["tokens"] == pytest.approx(98.8174)


@pytest.mark.parametrize("name", ["killed", "accuracy"])
def test_a_run_without_a_result_has_no_figures(name: str) -> None:
    assert recorded(f"6.0.17/{name}", "offline") == {}


@given(st.dictionaries(st.sampled_from(["result_samples_per_second", "result_mean_latency_ns", "own"]), st.floats()))
@examples(100)
def test_only_figures_that_can_be_compared_are_kept(logged: dict[str, float]) -> None:
    for scenario in ("offline", "server", "whatever"):
        figures = read_figures(scenario, logged)
        assert all(math.isfinite(value) and value > 0 for value in figures.values())


def test_what_a_program_calls_its_figures_stays() -> None:
    assert read_figures("offline", {"qps": 5.0, "images_per_joule": 2.0, "accuracy_percent": 99.0}) == {
        "qps": 5.0,
        "images_per_joule": 2.0,
    }
    assert metric_of("images_per_joule").title == "images_per_joule"


@pytest.mark.parametrize(
    ("scenario", "names", "primary"),
    [
        ("offline", ["qps"], "qps"),
        ("server", ["qps", "p99"], "p99"),
        ("server", ["qps"], "qps"),
        ("singlestream", ["qps", "p90"], "p90"),
        ("offline", ["own", "other"], "own"),
        ("offline", [], "qps"),
    ],
)
def test_what_runs_are_compared_by_first(scenario: str, names: list[str], primary: str) -> None:
    assert primary_metric(scenario, names) == primary


def test_metrics_are_shown_in_one_order() -> None:
    assert in_order(["own", "power", "p99", "p50", "qps", "p99"]) == ["qps", "p50", "p99", "power", "own"]
    assert len(METRICS) == len({metric.title for metric in METRICS.values()})
