"""`heteromig tune` with the other harnesses: main in NVIDIA's tree, and main as any program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.campaign.outstanding import most_outstanding
from heteromig.campaign.probes import Done, Outcome, Side
from heteromig.campaigns.directory import CAMPAIGN_JSON, Campaign, read_campaign
from heteromig.core import events as ev
from heteromig.core.record import WorkerRecord
from heteromig.harnesses.make.rates import CONF
from heteromig.logs.detail import read_detail, read_parameters
from heteromig.runner.journal import read_journal
from heteromig.runner.recording import read_record
from heteromig.runner.verification import verify_run
from tests.e2e.nvidia import StartInTree, TreeCommand, of_role
from tests.e2e.ordinary import SERVED_QPS
from tests.e2e.product import BOARD, DEADLINE_S, RunCommand, processes_with, until
from tests.e2e.test_command import ORDINARY, TIMING
from tests.nvidia_tree.tree import plant, workload

HOPELESS_QPS, ANSWERED_QPS, LIMIT_MS = 1200, 400, 1000
SERVER = (
    *("--main_scenario=server", "--main_benchmark_duration=2000", "--start_time_buffer=0"),
    *("--background_benchmarks=bert", f"--start-qps={HOPELESS_QPS}", "--precision=0.2"),
)


def campaign_of(command: RunCommand) -> tuple[Path, Campaign]:
    until(lambda: list(command.runs.glob(f"2*/{CAMPAIGN_JSON}")), "a campaign")
    (index,) = command.runs.glob(f"2*/{CAMPAIGN_JSON}")
    return index.parent, read_campaign(index.parent)


def main_of(run_dir: Path) -> WorkerRecord:
    (main,) = of_role(read_record(run_dir), "main")
    return main


def background_pid(run_dir: Path) -> int:
    (spawned,) = (
        event for event in read_journal(run_dir).events if isinstance(event, ev.WorkerSpawned) and event.worker == 1
    )
    return spawned.pid


def unchanging(tree: Path) -> dict[str, bytes]:
    """All of the tree but what any run of main's rewrites there."""
    theirs = ("measurements", "build/logs", "build/data", "build/models", "build/preprocessed_data")
    names = {path: str(path.relative_to(tree)) for path in tree.rglob("*")}
    return {
        name: path.read_bytes()
        for path, name in names.items()
        if path.is_file() and not name.startswith(theirs) and "__pycache__" not in name
    }


# --- NVIDIA's tree ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned(in_tree: StartInTree, tmp_path: Path) -> TreeCommand:
    """A tuning of main in Server beside one background."""
    tree = plant(tmp_path, with_engines=True)
    flags = (*SERVER, "--runs-dir", str(tmp_path / "runs"))
    return in_tree(*flags, tree=tree, home=tmp_path, command="tune", STANDIN_SERVER_QPS=str(ANSWERED_QPS))


def test_nvidias_tree_is_tuned_alone_and_beside_backgrounds(tuned: TreeCommand) -> None:
    before = unchanging(tuned.tree)
    tuned.process.wait(4 * DEADLINE_S)  # some fifteen runs, each of which starts a few processes one after the other
    finished = tuned.finish()
    campaign_dir, campaign = campaign_of(tuned)
    assert finished.exit_code == 0, finished.stderr
    assert isinstance(campaign.answer, Done)
    assert [answer.side for answer in campaign.answer.answers] == [Side.ISOLATED, Side.BESIDE]
    settings = campaign.asked.tune
    assert (settings.latency_limit_ms, settings.percentile, settings.whole_rates) == (LIMIT_MS, 0.99, True)
    for entry in campaign.entries:
        assert entry.step.rate_qps == round(entry.step.rate_qps or 0), "the tree takes no others"
        assert verify_run(campaign_dir / entry.run_dir).verdict.exit_code == entry.exit_code
        assert f"--server_target_qps={entry.step.rate_qps:.0f}" in " ".join(
            main_of(campaign_dir / entry.run_dir).command
        )

    # The first rate is hopeless: LoadGen itself ended the run, by the limit that it was given.
    first = campaign.entries[0]
    assert first.probe is not None
    assert (first.step.rate_qps, first.probe.outcome) == (HOPELESS_QPS, Outcome.ABORTED)
    assert first.step.abort_above_misses is not None
    assert first.probe.misses is not None
    assert first.probe.misses > first.step.abort_above_misses
    run_dir = campaign_dir / first.run_dir
    main = main_of(run_dir)
    most = most_outstanding(first.step.abort_above_misses, HOPELESS_QPS, LIMIT_MS)
    conf = run_dir / main.directory / f"mlperf-{most}-outstanding.conf"
    assert conf.read_text() == f"{before[CONF].decode()}\n*.Server.max_async_queries = {most}\n"
    (log,) = (run_dir / main.directory).rglob("mlperf_log_detail.txt")
    facts = read_detail(log)
    assert (facts.valid, facts.ended_by_queue) == (False, True)
    assert dict(read_parameters(log))["max_async_queries"] == str(most)
    assert facts.metrics["result_query_count"] < HOPELESS_QPS * 2

    # Backgrounds are real children of make that stay from run to run, and leave nothing in the tree, nor anywhere else.
    beside = [campaign_dir / entry.run_dir for entry in campaign.entries if entry.step.side is Side.BESIDE]
    assert len({background_pid(one) for one in beside}) == 1
    assert [one.goal for one in tuned.launched if "bert" in (one.run_args or "")] == ["run_harness"]
    assert processes_with(str(tuned.home)) == {}
    assert [path for path in campaign_dir.rglob("*") if path.is_symlink()] == []
    assert unchanging(tuned.tree) == before
    user_conf = tuned.tree / "measurements" / workload("resnet50", "Server").directory / "user.conf"
    assert f"*.Server.target_qps = {campaign.entries[-1].step.rate_qps:.0f}\n" in user_conf.read_text()
    assert "max_async_queries" not in user_conf.read_text()


def test_the_plan_of_a_tuning_in_the_tree_shows_its_knobs(in_tree: StartInTree) -> None:
    finished = in_tree(*SERVER, "--dry-run", command="tune").finish()
    assert finished.exit_code == 0, finished.stderr
    text = " ".join(finished.stdout.split())
    assert f"of the queries later than {LIMIT_MS} ms" in text
    assert text.count(f"--server_target_qps={HOPELESS_QPS} ") == 2, "alone, and beside"
    assert text.count("--mlperf_conf_path=") == text.count("-outstanding.conf") == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--main_benchmark_runargs=--server_target_qps=7",), "holds --server_target_qps, and the best rate"),
        (("--main_benchmark_runargs=--server_target_qps_adj_factor 0.9",), "holds --server_target_qps_adj_factor"),
        (("--main_benchmark_runargs=--test_mode=SubmissionRun",), "leave --main-action and --test_mode out"),
        (("--main_action=run_audit_test01",), "leave --main-action and --test_mode out"),
        (("--main_mode=accuracy",), "--main-mode is accuracy"),
        (("--start-qps=7.5",), "main takes whole rates only"),
    ],
)
def test_what_cannot_be_tuned_in_the_tree_is_refused(
    in_tree: StartInTree, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    finished = in_tree(*SERVER, *more, command="tune").finish()
    assert finished.exit_code == 2, finished.stderr
    assert words in " ".join(finished.stderr.split())
    assert not list((tmp_path / "runs").glob("2*"))


# --- any program ------------------------------------------------------------------------------------------------------


PROGRAMS = {
    "served": {
        "argv": ["{python}", ORDINARY, "serving", "{duration_s}", "{target_qps}"],
        "start": "^start$",
        "end": "^end$",
        "result": r"^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)",
        "valid-when": "p99_ms < 100",
    },
    "beside": {"argv": ["{python}", ORDINARY, "steady"], "start": "^start$"},
}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[RunCommand]:
    """A tuning of an ordinary program beside another one."""
    config = tmp_path / "programs.toml"
    config.write_text(
        "\n".join(
            f"[command.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
            for name, table in PROGRAMS.items()
        )
    )
    argv = (
        *("tune", "--config", str(config), "--slices", BOARD, "--runs-dir", "runs", *TIMING),
        *("--main-benchmark-duration", "700ms", "--background-benchmarks", "beside"),
        *("--start-qps", "300", "--precision", "0.2"),
    )
    command = RunCommand(tmp_path, argv, environ={}, module="heteromig")
    yield command
    command.close()


def test_an_ordinary_program_is_tuned_by_its_verdicts(programs: RunCommand) -> None:
    programs.process.wait(4 * DEADLINE_S)
    finished = programs.finish()
    campaign_dir, campaign = campaign_of(programs)
    assert finished.exit_code == 0, finished.stderr
    assert isinstance(campaign.answer, Done)
    rates = [answer.rate_qps for answer in campaign.answer.answers]
    assert all(rate is not None and 0.8 * SERVED_QPS < rate <= SERVED_QPS for rate in rates), rates
    assert campaign.asked.tune.verdicts_only
    for entry in campaign.entries:
        assert verify_run(campaign_dir / entry.run_dir).verdict.exit_code == entry.exit_code
        probe = entry.probe
        assert probe is not None
        assert (probe.misses, probe.percentile_latency_ms) == (None, None)
        assert probe.outcome is (Outcome.VALID if (probe.rate_qps or 0) <= SERVED_QPS else Outcome.INVALID)
        assert main_of(campaign_dir / entry.run_dir).command[-1] == f"{probe.rate_qps:.10g}"
    assert processes_with(str(programs.home)) == {}
