"""The index of a campaign, its settings, and its words, with a planner that is told of runs that never were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from heteromig.campaign.probes import (
    Answer,
    Bracket,
    Confirm,
    Done,
    Inconclusive,
    NotPossible,
    Outcome,
    Probe,
    RunProbe,
    Side,
    Stopped,
)
from heteromig.campaign.tuning import next_step
from heteromig.campaigns.asking import tune_settings
from heteromig.campaigns.directory import (
    CAMPAIGN_JSON,
    ask,
    begin,
    held,
    is_campaign,
    read_campaign,
    resume,
    write_campaign,
)
from heteromig.campaigns.wording import (
    answer_markdown,
    answer_text,
    begun_line,
    ended_line,
    least_left_s,
    plan_text,
    progress_of,
)
from heteromig.cli.main import app
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.spec import CommandSpec, RunSpec
from heteromig.runner.config import CommandConfig, Config, MainConfig, TimingConfig, TuneConfig
from tests.campaign.worlds import SmoothServer
from tests.campaigns.stories import SIM, begun, driven, entry, specs

PLAIN = CommandConfig(argv="true", start="^on$", result="^ok$")
SERVER = SmoothServer(limit_ms=15.0, floor_ms=8.0)


def spec() -> RunSpec:
    return specs()[Side.BESIDE]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a campaign, where runs go by default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    return tmp_path / "runs" / "begun"


# --- the index --------------------------------------------------------------------------------------------------------


def test_an_index_is_read_back_as_it_was_written(home: Path) -> None:
    campaign = driven(begun(home), SERVER)
    assert isinstance(campaign.answer, Done)
    assert (campaign.exit_code, len(campaign.answer.answers)) == (0, 2)
    write_campaign(home, campaign)
    assert is_campaign(home)
    assert read_campaign(home) == campaign


def test_continuing_after_any_run_comes_to_the_same(home: Path) -> None:
    whole = driven(begun(home), SERVER)
    for runs in range(len(whole.entries)):
        half = driven(begun(home), SERVER, most=runs)
        write_campaign(home, half)
        assert driven(resume(home, half.asked), SERVER).entries == whole.entries


def test_a_run_that_was_interrupted_is_done_again(home: Path) -> None:
    campaign = driven(begun(home), SERVER, most=2)
    step = next_step(campaign.asked.tune, campaign.probes)
    assert isinstance(step, RunProbe | Confirm)
    stopped = campaign.after(entry(step, None, 130)).stopped(130, "Tuning ended with run 3: SIGINT was received.")
    write_campaign(home, stopped)
    again = resume(home, stopped.asked)
    assert again.exit_code is None
    assert next_step(again.asked.tune, again.probes) == step
    assert "exit 130: Tuning ended with run 3" in ended_line(stopped)


def test_what_kept_dying_is_given_another_chance(home: Path) -> None:
    def dying(step: RunProbe | Confirm) -> Probe:
        return Probe(step.side, step.rate_qps, step.duration_s, Outcome.SPOILED, reason="bert died")

    campaign = driven(begun(home), dying)
    assert isinstance(campaign.answer, Stopped)
    assert (campaign.exit_code, len(campaign.entries)) == (3, 3), "the code of the run that stopped it"
    assert "bert died" in campaign.sentence
    write_campaign(home, campaign)
    again = resume(home, campaign.asked)
    assert again.probes == ()
    assert isinstance(driven(again, SERVER).answer, Done)


def test_what_was_invalid_for_no_reason_of_the_rate_is_given_another_chance(home: Path) -> None:
    def few_late(step: RunProbe | Confirm) -> Probe:
        return Probe(step.side, step.rate_qps, step.duration_s, Outcome.INVALID, queries=6000, misses=0, reason="why")

    campaign = driven(begun(home), few_late)
    assert isinstance(campaign.answer, Stopped)
    assert campaign.can_go_on
    write_campaign(home, campaign)
    assert isinstance(driven(resume(home, campaign.asked), SERVER).answer, Done)


def test_a_stream_that_failed_is_measured_again(home: Path) -> None:
    def answered(step: RunProbe | Confirm, outcome: Outcome) -> Probe:
        return Probe(step.side, None, step.duration_s, outcome, isinstance(step, Confirm), percentile_latency_ms=9.0)

    spec = specs(replace(SIM, main=MainConfig(scenario="singlestream")))[Side.BESIDE]
    campaign = begin(home, ask(tune_settings(spec, TuneConfig()), spec))
    stopped = driven(campaign, lambda step: answered(step, Outcome.INVALID))
    assert isinstance(stopped.answer, Stopped)
    write_campaign(home, stopped)
    again = driven(resume(home, stopped.asked), lambda step: answered(step, Outcome.VALID))
    assert isinstance(again.answer, Done)
    text = answer_text(again, "runs/x", 100)
    assert "ANSWERED (exit 0): resnet50 singlestream: 9 ms alone; 9 ms beside its backgrounds, 100.0% of that." in text
    assert "no rate" not in text
    assert ended_line(again).endswith("beside, VALID, latency 9 ms")


@pytest.mark.parametrize(
    ("config", "tune", "words"),
    [
        (SIM, TuneConfig(start_qps=300.0, confirm=3), "confirmations was 1 and is 3"),
        (SIM, TuneConfig(start_qps=300.0, isolated=True), "sides was"),
        (replace(SIM, main=MainConfig(scenario="server", slice="2")), TuneConfig(start_qps=300.0), "slice was None"),
        (replace(SIM, seed=4), TuneConfig(start_qps=300.0), "seed was 0 and is 4"),
    ],
)
def test_other_settings_are_refused(home: Path, config: Config, tune: TuneConfig, words: str) -> None:
    begun(home)
    other = specs(config)[Side.BESIDE]
    with pytest.raises(UsageError, match=words):
        resume(home, ask(tune_settings(other, tune), other))


def test_limits_on_waiting_and_spellings_of_directories_may_change(home: Path) -> None:
    begun(home)
    timing = TimingConfig(background_start_timeout="20m", main_timeout="3h")
    spec = specs(replace(SIM, timing=timing, runs_dir=str(home.parent)))[Side.BESIDE]
    assert resume(home, ask(tune_settings(spec, TuneConfig(start_qps=300.0)), spec)).entries == ()


def test_what_is_no_campaign_is_refused(home: Path) -> None:
    campaign = begun(home)
    with pytest.raises(UsageError, match="is not the directory of a campaign"):
        resume(home / "nowhere", campaign.asked)
    path = home / CAMPAIGN_JSON
    whole = json.loads(path.read_bytes())
    for changed, words in (
        ({**whole, "schema_version": 99}, "its schema is 99"),
        ({**whole, "fingerprint": "0"}, "was altered"),
        ({**whole, "entries": 3}, "is not the index of a campaign"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(EvidenceError, match=words):
            read_campaign(home)
    path.unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_campaign(home)


def test_a_campaign_is_continued_where_its_runs_belong(home: Path, tmp_path: Path) -> None:
    campaign = begun(home)
    (tmp_path / "elsewhere").mkdir()
    home.rename(tmp_path / "elsewhere" / "begun")
    with pytest.raises(UsageError, match="resume it where it was begun"):
        resume(tmp_path / "elsewhere" / "begun", campaign.asked)


def test_a_campaign_is_not_verified_as_a_run(home: Path) -> None:
    begun(home)
    with pytest.raises(UsageError, match="is the directory of a tune: name one of its runs, or read its"):
        CliRunner().invoke(app, ("verify", str(home)), catch_exceptions=False)


def test_secrets_are_not_in_the_index(home: Path) -> None:
    command = CommandSpec(name="x", argv=("x", "--token=hunter2hunter2"), model="x", scenarios=("server",))
    secret = replace(spec(), commands=(command,))
    campaign = begun(home)
    write_campaign(home, replace(campaign, asked=ask(campaign.asked.tune, secret)))
    assert "hunter2" not in (home / CAMPAIGN_JSON).read_text()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_come_from_the_run_and_the_catalog() -> None:
    tune = tune_settings(spec(), TuneConfig())
    assert (tune.latency_limit_ms, tune.percentile, tune.min_queries) == (15.0, 0.99, 1000)
    assert (tune.full_s, tune.probe_s, tune.start_qps) == (600.0, 60.0, 100.0)
    own = specs(replace(SIM, main=MainConfig(scenario="server", target_qps=250.0, duration="5s")))[Side.BESIDE]
    tune = tune_settings(own, TuneConfig(confirm=6, isolated=True))
    assert (tune.full_s, tune.probe_s, tune.start_qps) == (5.0, 5.0, 250.0)
    assert (tune.confirmations, tune.most_confirmations, tune.sides) == (6, 12, (Side.ISOLATED,))


@pytest.mark.parametrize(
    ("changes", "tune", "words"),
    [
        ({"lenient": True}, TuneConfig(), "--lenient goes on without"),
        ({"main": MainConfig(scenario="server", runargs="--test_mode=AccuracyOnly")}, TuneConfig(), "--main-mode is"),
        ({"harness": "command", "command": {"x": PLAIN}, "main": MainConfig()}, TuneConfig(isolated=True), "no place"),
        ({}, TuneConfig(confirm=0), "at least 1"),
        ({}, TuneConfig(precision=0.5), "precision must be"),
        ({}, TuneConfig(precision=0.0), "precision must be"),
        ({}, TuneConfig(start_qps=0.0), "first rate must be above 0"),
        ({}, TuneConfig(probe_duration="11m"), "a probe lasts"),
        ({}, TuneConfig(probe_duration="long"), "--probe-duration"),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes: dict[str, object], tune: TuneConfig, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tune_settings(specs(replace(SIM, **changes))[Side.BESIDE], tune)


def test_beside_needs_backgrounds() -> None:
    alone = specs()[Side.ISOLATED]
    with pytest.raises(UsageError, match="--isolated for main alone"):
        tune_settings(alone, TuneConfig())
    assert tune_settings(alone, TuneConfig(isolated=True)).sides == (Side.ISOLATED,)


# --- words ------------------------------------------------------------------------------------------------------------


def test_each_run_has_a_line_before_and_after_it(home: Path) -> None:
    campaign = begun(home)
    step = next_step(campaign.asked.tune, ())
    assert isinstance(step, RunProbe)
    assert begun_line(campaign, step) == "1: isolated, 300 qps for 1:00 min: the first rate; at least 22:00 min left"
    assert ended_line(driven(campaign, SERVER, most=1)).startswith("1: isolated, 300 qps VALID, 0.00% of 18000 queries")
    later = driven(campaign, SERVER, most=3)
    assert "bracket" in ended_line(later)


def test_the_time_left_is_never_below_what_is_still_to_be_run(home: Path) -> None:
    """A main that is judged by its own rule may be much shorter than it was asked to be."""
    settings = replace(begun(home).asked.tune, verdicts_only=True, latency_limit_ms=None)
    campaign = begin(home, replace(begun(home).asked, tune=settings))
    step = next_step(settings, ())
    assert isinstance(step, RunProbe)
    passed = Probe(step.side, step.rate_qps, step.duration_s, Outcome.VALID)
    campaign = campaign.after(replace(entry(step, passed), took_s=1.0))
    following = next_step(settings, campaign.probes)
    assert isinstance(following, RunProbe)
    assert least_left_s(campaign, following) >= following.duration_s


def test_the_time_left_counts_what_is_confirmed_already(home: Path) -> None:
    campaign = begun(home, confirm=3)
    step = Confirm(side=Side.BESIDE, rate_qps=100.0, duration_s=600.0, why="", number=2, of=3)
    assert least_left_s(campaign, step) == 1200.0
    least = campaign.asked.tune.min_queries
    slow = Confirm(side=Side.BESIDE, rate_qps=least / 1000, duration_s=600.0, why="", number=3, of=3)
    assert least_left_s(campaign, slow) == 1000.0, "so long it takes for all queries that it must have"


def test_the_picture_of_a_run_says_how_far_all_of_it_is(home: Path) -> None:
    campaign = driven(begun(home), SERVER, most=3)
    step = Confirm(side=Side.ISOLATED, rate_qps=350.0, duration_s=600.0, why="", number=1, of=1)
    progress = progress_of(campaign, step)
    assert (progress.number, progress.of) == (4, 6), "it, and beside its neighbours a short run and a confirmation"
    assert progress.what.startswith("isolated 350 qps, confirmation 1 of 1, bracket ")
    assert progress.at_least
    assert progress.left_s == least_left_s(campaign, step)
    assert progress.left_s - progress.after_s >= 600.0
    assert progress.took_s == sum(entry.took_s for entry in campaign.entries)


def test_the_answer_is_told(home: Path) -> None:
    campaign = driven(begun(home), SERVER)
    text = answer_text(campaign, "runs/x", 100)
    assert text.startswith("ANSWERED (exit 0): resnet50 server: ")
    assert "SIMULATED" in text
    assert "SIDE      ANSWER" in text
    left = campaign.stopped(7, f"{campaign.sentence} The GPU may not be taken back.")
    words = " ".join(answer_text(left, "runs/x", 100).split())
    assert words.startswith("STOPPED (exit 7): resnet50 server: ")
    assert "Every rate that was asked for is known. The GPU may not be taken back. SIMULATED" in words
    markdown = answer_markdown(campaign)
    assert markdown.count("| isolated |") + markdown.count("| beside |") == len(campaign.entries) + 2


def test_offline_is_answered_by_what_was_measured(home: Path) -> None:
    """What is expected may be too high, and changes nothing but how long a run takes."""
    answers = tuple(
        Answer(side, 1000.0, (measured,), (None,), Bracket(low_qps=None, high_qps=None), None, 2, "it was measured.")
        for side, measured in ((Side.ISOLATED, 800.0), (Side.BESIDE, 600.0))
    )
    campaign = begun(home)
    spec = specs(replace(SIM, main=MainConfig()))[Side.BESIDE]
    offline = ask(tune_settings(spec, TuneConfig()), spec)
    text = answer_text(replace(campaign, asked=offline).answered(Done(answers=answers)), "runs/x", 200)
    words = "resnet50 offline: 800 samples/s alone; 600 samples/s beside its backgrounds, 75.0% of that."
    assert words in text


def test_what_came_to_no_answer_is_told(home: Path) -> None:
    too_slow = driven(begun(home), SmoothServer(limit_ms=15.0, floor_ms=20.0))
    assert isinstance(too_slow.answer, NotPossible | Inconclusive)
    assert too_slow.exit_code == 9
    text = answer_text(too_slow, "runs/x", 100)
    assert text.startswith("INCONCLUSIVE (exit 9): no rate down to")
    assert "the lowest latency measured is 20" in " ".join(text.split())
    assert "isolated  none    n/a" in text
    halfway = driven(begun(home), SERVER, most=3).stopped(130, "Tuning was interrupted between two runs.")
    found = answer_text(halfway, "runs/x", 100)
    assert "SIDE" in found
    assert "isolated  none" in found
    stopped = begun(home).stopped(130, "Tuning was interrupted between two runs.")
    assert answer_text(stopped, "runs/x", 100).startswith("STOPPED (exit 130): Tuning was interrupted")


def test_a_campaign_goes_on_in_one_process_only(home: Path) -> None:
    begun(home)
    with held(home), pytest.raises(UsageError, match="goes on in another process: wait for its end"), held(home):
        pass
    with held(home):
        pass
    with pytest.raises(UsageError, match="is not the directory of a campaign"), held(home / "nowhere"):
        pass


def test_a_run_that_cannot_be_is_not_gone_on_from(home: Path) -> None:
    campaign = driven(begun(home), SERVER, most=2)
    write_campaign(home, campaign)
    assert read_campaign(home) == campaign
    first = campaign.entries[0]
    write_campaign(home, replace(campaign, entries=(replace(first, step=replace(first.step, rate_qps=-5.0)),)))
    with pytest.raises(EvidenceError, match="its index has a run that cannot be"):
        resume(home, campaign.asked)


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("offline", "A run of 1:00 min says what to expect; 3 runs of"),
        ("singlestream", "There is no rate to find; 3 runs"),
    ],
)
def test_a_plan_without_a_search_says_so(scenario: str, words: str) -> None:
    text = plan_text(replace(tune_settings(spec(), TuneConfig(confirm=3)), scenario=scenario), "main")
    assert words in text
    assert "Start at" not in text


def test_a_plan_says_what_is_bounded() -> None:
    text = plan_text(tune_settings(spec(), TuneConfig(confirm=3)), "resnet50 server")
    assert "alone and then beside its backgrounds" in text
    assert "of which 3 must pass, at most 10 a side, or longer for 1000 queries." in text
    slow = plan_text(tune_settings(spec(), TuneConfig(start_qps=1.0)), "resnet50 server")
    assert "a side takes 33:20 min to " in slow


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "at most 0.01 of the queries later than 15 ms."),
        ({"latency_limit_ms": None}, "at most 0.01 of the queries later than main allows."),
        ({"latency_limit_ms": None, "verdicts_only": True}, "beside its backgrounds, by its own rule."),
        ({"scenario": "offline"}, "beside its backgrounds.\n"),
    ],
)
def test_a_plan_says_by_which_rule(changes: dict[str, object], words: str) -> None:
    assert words in plan_text(replace(tune_settings(spec(), TuneConfig()), **changes), "main")
