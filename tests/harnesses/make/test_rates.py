"""How a rate gets into NVIDIA's tree, which rules it tells, and what LoadGen makes of a limit on its queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.campaign.outstanding import most_outstanding
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.spec import MainSpec
from heteromig.harnesses.make.rates import CONF, ServerRules, limited_conf, rate_arguments, server_rules
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.detail import read_detail
from heteromig.runner.config import MainConfig
from tests.harnesses.make.plans import Planned
from tests.nvidia_tree.tree import make, plant, workload


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path, with_engines=True)


def main_of(tree: Path, *, most_late: int | None = None, **more: object) -> MainSpec:
    config = MainConfig(**{"benchmark": "bert", "scenario": "server", **more})  # type: ignore[arg-type]
    return replace(Planned(tree, config).spec.main, most_over_latency=most_late)


def conf(tree: Path, text: str) -> None:
    (tree / CONF).write_text(text)


# --- the rate ---------------------------------------------------------------------------------------------------------


def test_the_rate_is_an_argument_of_the_driver(tree: Path) -> None:
    assert rate_arguments(main_of(tree)) == ()
    assert rate_arguments(main_of(tree, target_qps=1_234_567.0)) == ("--server_target_qps=1234567",)
    assert rate_arguments(main_of(tree, scenario="offline", target_qps=7.0)) == ("--offline_expected_qps=7",)


def test_main_is_told_its_rate_and_its_backgrounds_are_not(tree: Path) -> None:
    planned = Planned(tree, MainConfig(scenario="server", target_qps=300.0))
    planned.spec = replace(planned.spec, main=replace(planned.spec.main, most_over_latency=9))
    planned.make_directory(planned.main)
    planned.harness.prepare(planned.main, planned.spec, planned.run_dir)
    most = most_outstanding(9, 300.0, 1000.0)
    path = planned.run_dir / planned.main.directory / f"mlperf-{most}-outstanding.conf"
    said = planned.harness.command(planned.main, planned.spec, planned.run_dir).argv[-1]
    assert said.endswith(f"--min_duration=600000 --server_target_qps=300 --mlperf_conf_path={path}")
    assert path.read_text().endswith(f"\n*.Server.max_async_queries = {most}\n")
    background = planned.harness.command(planned.plan.backgrounds[0], planned.spec, planned.run_dir)
    assert "qps" not in background.argv[-1]
    assert ".conf" not in background.argv[-1]


# --- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("*.Server.target_latency = 10\nbert.Server.target_latency = 130\n", ServerRules(130.0, 0.99, 1)),
        ("*.Server.target_latency = 10\nbert.*.target_latency = 130\n", ServerRules(10.0, 0.99, 1)),
        ("bert.*.target_latency = 130\n*.*.target_latency = 9\n", ServerRules(130.0, 0.99, 1)),
        ("*.*.target_latency = 9\n*.Server.target_latency_percentile = 97\n", ServerRules(9.0, 0.97, 1)),
        ("*.Server.target_latency = 10 # ms\n*.Server.min_query_count = 270336\n", ServerRules(10.0, 0.99, 270_336)),
        ("# *.Server.target_latency = 1\n*.Server.target_latency = 2\nx=1\ny = z\n", ServerRules(2.0, 0.99, 1)),
    ],
)
def test_rules_are_looked_up_as_loadgen_does(tree: Path, text: str, rules: ServerRules) -> None:
    conf(tree, text)
    assert server_rules(tree, main_of(tree)) == rules


def test_a_limit_of_the_users_own_is_the_one_that_counts(tree: Path) -> None:
    own = main_of(tree, runargs="--server_target_latency_ns 20000000")
    assert server_rules(tree, own).latency_limit_ms == 20.0
    with pytest.raises(UsageError, match="which is no number above 0"):
        server_rules(tree, main_of(tree, runargs="--server_target_latency_ns=soon"))


def test_a_tree_that_does_not_say_its_rules(tree: Path) -> None:
    conf(tree, "*.Offline.target_latency = 1\n")
    with pytest.raises(PreflightError, match=r"no target_latency of bert in Server.*--server_target_latency_ns"):
        server_rules(tree, main_of(tree))
    (tree / CONF).unlink()
    with pytest.raises(PreflightError, match=r"No such file.*clone_loadgen"):
        server_rules(tree, main_of(tree))
    planned = Planned(tree, MainConfig(scenario="server", target_qps=300.0))
    planned.harness.preflight(planned.spec)
    hopeless = replace(planned.spec, main=replace(planned.spec.main, most_over_latency=9))
    with pytest.raises(PreflightError, match="cannot be read"):
        planned.harness.preflight(hopeless)


def test_the_rules_of_a_search(tree: Path) -> None:
    planned = Planned(tree, MainConfig(scenario="server"))
    assert planned.harness.rate_rules(planned.spec) == RateRules(
        scenario="server", latency_limit_ms=1000.0, whole_rates=True
    )
    offline = Planned(tree)
    assert offline.harness.rate_rules(offline.spec) == RateRules(scenario="offline", whole_rates=True)


@pytest.mark.parametrize("name", ["--server_target_qps=3", "--offline_expected_qps 3", "--user_conf_path=mine.conf"])
def test_a_search_says_the_rate_itself(tree: Path, name: str) -> None:
    planned = Planned(tree, MainConfig(scenario="server", runargs=name))
    with pytest.raises(UsageError, match="the best rate by the tree's own rules is looked for"):
        planned.harness.rate_rules(planned.spec)


# --- a hopeless run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "most_late"),
    [({"target_qps": 300.0}, None), ({}, 9), ({"target_qps": 300.0, "scenario": "offline"}, 9)],
)
def test_a_run_that_is_not_to_be_ended_has_the_trees_own_conf(
    tree: Path, main: dict[str, object], most_late: int | None
) -> None:
    assert limited_conf(tree, main_of(tree, most_late=most_late, **main)) is None


@pytest.mark.parametrize(("answered_qps", "ended"), [(100, True), (2000, False)])
def test_loadgen_ends_a_run_whose_queue_is_too_long(
    tree: Path, tmp_path: Path, answered_qps: int, *, ended: bool
) -> None:
    most_late, rate_qps, limit_ms = 20, 600, 200.0
    main = main_of(
        tree,
        benchmark="resnet50",
        target_qps=float(rate_qps),
        most_late=most_late,
        runargs=f"--server_target_latency_ns={limit_ms * 1e6:.0f}",
    )
    limited = limited_conf(tree, main)
    assert limited is not None
    path = tmp_path / limited[0]
    path.write_text(limited[1])
    said = ("--benchmarks=resnet50 --scenarios=server --config_ver=hetero --min_duration=2000", *main.run_args)
    told = (*said, *rate_arguments(main), f"--mlperf_conf_path={path}")
    finished = make(tree, "run_harness", " ".join(told), LOG_DIR="build/logs/x", STANDIN_SERVER_QPS=str(answered_qps))
    assert finished.returncode == 0, finished.stdout
    facts = read_detail(tree / "build/logs/x" / workload("resnet50", "Server").directory / "mlperf_log_detail.txt")
    assert facts.ended_by_queue is ended
    assert facts.latency_percentile == pytest.approx(0.99)
    if ended:
        assert facts.valid is False
        assert "Too many outstanding queries" in " ".join(facts.errors)
        assert facts.metrics["result_overlatency_query_count"] > most_late
        assert facts.metrics["result_query_count"] < rate_qps * 2
    else:
        assert facts.metrics["result_query_count"] > rate_qps
