"""A matrix without a process: what is asked, its index, its words, and runs that never were."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.campaign.matrix import CellRun, Ending, RunCell, Status, cells, next_run
from heteromig.campaign.probes import Side
from heteromig.campaigns.directory import CAMPAIGN_JSON, refuse_campaign, write_campaign
from heteromig.campaigns.matrix import matrix_in, matrix_of, measure_matrix
from heteromig.campaigns.matrix_asking import Asking, asking
from heteromig.campaigns.matrix_index import (
    MatrixEntry,
    MatrixIndex,
    begin_matrix,
    read_matrix,
    resume_matrix,
    written_down,
)
from heteromig.campaigns.matrix_wording import (
    answer_csv,
    answer_markdown,
    answer_text,
    begun_line,
    ended_lines,
    plan_text,
    progress_of,
)
from heteromig.comparing.interference import Interference
from heteromig.comparing.measured import Measured
from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.core.record import PhaseRecord
from heteromig.core.spec import Goal, RunSpec
from heteromig.core.verdict import Reason
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, MatrixConfig
from heteromig.runner.session import Outcome
from tests.campaigns.stories import begun, record
from tests.comparing.test_interference import measured

SETS: dict[str, str | list[str]] = {"loud": "bert,dlrm", "quiet": ["rnnt"]}
SIM = Config(
    slices="sim:a30/4x1g.6gb",
    harness="loadgen",
    main=MainConfig(duration="3s"),
    matrix=MatrixConfig(background_sets=SETS, repetitions=2),
)


def with_matrix(config: Config = SIM, **changes: object) -> Config:
    return replace(config, matrix=replace(config.matrix, **changes))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a matrix, where runs go by default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    return tmp_path / "runs" / "begun"


@pytest.fixture
def asked(home: Path) -> Asking:
    """What `SIM` asks for, planned on its slices."""
    assert home.is_dir()
    return asking(SIM)


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_every_run_is_known_before_anything_runs(asked: Asking) -> None:
    assert [cell.backgrounds.name for cell in cells(asked.settings)] == ["loud", "quiet"]
    assert asked.settings.most_retries == 1
    loud, quiet = cells(asked.settings)
    assert asked.specs[loud, Side.ISOLATED].goal is Goal.BASELINE
    assert asked.specs[loud, Side.BESIDE].background.candidates == ("bert", "dlrm")
    assert asked.specs[quiet, Side.BESIDE].background.candidates == ("rnnt",)
    assert {need.benchmark for need in asked.missing_engines} == {"resnet50", "bert", "dlrm", "rnnt"}
    assert asked.settings.isolated_s < asked.settings.beside_s


def test_mains_scenarios_and_rates_make_runs_of_their_own(home: Path) -> None:
    assert home.is_dir()
    config = with_matrix(mains="resnet50, BERT", scenarios=["Server", "single-stream"], target_qps={"bert": 50.0})
    asked = asking(replace(config, main=replace(config.main, target_qps=300.0)))
    assert asked.settings.mains == ("resnet50", "bert")
    assert asked.settings.scenarios == ("server", "singlestream")
    rates = {(cell.main, cell.scenario): spec.main.target_qps for (cell, _), spec in asked.specs.items()}
    assert rates == {
        ("resnet50", "server"): 300.0,
        ("bert", "server"): 50.0,
        ("resnet50", "singlestream"): None,
        ("bert", "singlestream"): None,
    }


def test_a_set_of_the_harness_is_the_same_for_every_main(home: Path) -> None:
    assert home.is_dir()
    asked = asking(with_matrix(mains="resnet50,bert", background_sets={"center": "datacenter"}))
    (found,) = asked.settings.background_sets
    assert len(found.benchmarks) == 3, "one for each free slice"
    assert not {"resnet50", "bert"} & set(found.benchmarks)


def test_the_backgrounds_of_a_run_are_a_set_as_well(home: Path) -> None:
    assert home.is_dir()
    config = replace(SIM, matrix=MatrixConfig(one_at_a_time=True), background=BackgroundConfig(benchmarks="bert,dlrm"))
    settings = asking(config).settings
    assert [cell.backgrounds.name for cell in cells(settings)] == ["bert,dlrm", "only bert", "only dlrm"]
    assert settings.repetitions == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (with_matrix(mains="resnet"), "did you mean"),
        (with_matrix(mains=","), "--mains is empty"),
        (with_matrix(scenarios=[]), "--scenarios is empty"),
        (with_matrix(mains="resnet50,ResNet50"), "named twice"),
        (with_matrix(background_sets={}), "none are named"),
        (with_matrix(background_sets=None), "none are named"),
        (with_matrix(background_sets={"x": []}), "The background set 'x' is empty"),
        (with_matrix(background_sets={"": "bert"}), "choose a name that can be printed"),
        (with_matrix(background_sets={"x": "dlmr"}), "The background set 'x': "),
        (with_matrix(background_sets={"x": "bert,bert,bert,bert"}), "only 3 slices are free beside main's"),
        (with_matrix(background_sets={"x": "none"}), "holds nothing that is not a main"),
        (
            with_matrix(background_sets={"only bert": "bert,rnnt", "x": "bert,dlrm"}, one_at_a_time=True),
            "what --one-at-a-time calls a set",
        ),
        (with_matrix(background_sets={"x": "bert", "y": ["bert"]}), "'x' and 'y' are the same"),
        (with_matrix(scenarios="server"), "needs a rate in Server"),
        (with_matrix(target_qps={"bert": 3.0}), "names 'bert', which is none of the mains"),
        (with_matrix(repetitions=0), "raise the repetitions"),
        (replace(SIM, lenient=True), "--lenient"),
        (replace(SIM, rebuild=True), "--rebuild"),
        (replace(SIM, main=MainConfig(runargs="--test_mode=AccuracyOnly")), "--main-mode is accuracy"),
        (replace(SIM, main=MainConfig(slice="7g.40gb")), "is none of the 4 slices"),
    ],
)
def test_what_cannot_be_measured_is_refused(home: Path, config: Config, words: str) -> None:
    assert home.is_dir()
    with pytest.raises(UsageError, match=words):
        asking(config)


def test_one_slice_is_too_few(home: Path) -> None:
    assert home.is_dir()
    with pytest.raises(PreflightError, match="needs at least 2"):
        asking(replace(SIM, slices="sim:a30/1x4g.24gb"))


# --- the index --------------------------------------------------------------------------------------------------------


def driven(index: MatrixIndex, *, at_most: int = 100, failing: str = "") -> tuple[MatrixIndex, dict[str, Measured]]:
    """Until nothing is left, or after so many runs: alone 1000 samples/s, beside 700; one set may fail."""
    known: dict[str, Measured] = {}
    while isinstance(step := next_run(index.asked.matrix, index.runs), RunCell) and len(index.entries) < at_most:
        fails = step.side is Side.BESIDE and step.cell.backgrounds.name == failing
        run_id = f"run-{len(index.entries):03}"
        ending, reason = (Ending.FAILED, "bert died") if fails else (Ending.MEASURED, "")
        run = CellRun(step.cell, step.position, ending, run_id, took_s=8.0, reason=reason)
        index = index.after(MatrixEntry(step, run_id, 5 if fails else 0, 8.0, run))
        if not fails:
            rate = (1000.0 if step.side is Side.ISOLATED else 700.0) + step.position
            known[run_id] = measured(run, step.side, {"qps": rate})
    return index, known


def begun_at(home: Path, asked: Asking) -> MatrixIndex:
    return begin_matrix(home, written_down(asked), "2026-01-01T00:00:00Z")


def test_an_index_is_read_back_and_goes_on(home: Path, asked: Asking) -> None:
    whole, _ = driven(begun_at(home, asked))
    for runs in range(len(whole.entries)):
        half, _ = driven(begun_at(home, asked), at_most=runs)
        write_campaign(home, half.ended("2026-01-01T00:01:00Z", 130, "interrupted"))
        again = resume_matrix(home, written_down(asked))
        assert (again.exit_code, again.sentence, again.ended_at) == (None, "", None)
        assert driven(again)[0].entries == whole.entries


def test_what_failed_is_given_another_chance(home: Path, asked: Asking) -> None:
    index, known = driven(begun_at(home, asked), failing="loud")
    found = matrix_of(index, known)
    assert (found.exit_code, found.cells[0].status, found.cells[0].reason) == (
        9,
        Status.FAILED,
        "failed 2 times: bert died",
    )
    write_campaign(home, index.ended("2026-01-01T00:01:00Z", 9, ""))
    assert read_matrix(home).entries == index.entries
    again = resume_matrix(home, written_down(asked))
    assert isinstance(next_run(again.asked.matrix, again.runs), RunCell)
    assert all(run.ending is Ending.MEASURED for run in again.runs)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (with_matrix(repetitions=3), "repetitions was 2 and is 3"),
        (with_matrix(background_sets={"loud": "bert"}), "background-sets was"),
        (replace(SIM, seed=4), "seed was 0 and is 4"),
        (replace(SIM, main=MainConfig(duration="3s", slice="2")), "slice was None"),
        (with_matrix(target_qps={"resnet50": 3.0}), "target_qps was"),
    ],
)
def test_other_settings_are_refused(home: Path, asked: Asking, config: Config, words: str) -> None:
    begun_at(home, asked)
    with pytest.raises(UsageError, match=words):
        resume_matrix(home, written_down(asking(config)))


def test_other_directories_are_refused(home: Path, asked: Asking, tmp_path: Path) -> None:
    what = written_down(asked)
    with pytest.raises(UsageError, match="is not the directory of a campaign"):
        resume_matrix(home, what)
    begun(home)
    with pytest.raises(UsageError, match="is the directory of a tune, and this is matrix: go on with heteromig tune"):
        resume_matrix(home, what)
    begun_at(home, asked)
    with pytest.raises(UsageError, match=r"is the directory of a matrix: name one of its runs, or read its matrix\.md"):
        refuse_campaign(home)
    refuse_campaign(tmp_path)
    path = home / CAMPAIGN_JSON
    path.write_text(path.read_text().replace('"repetitions": 2', '"repetitions": 3'))
    with pytest.raises(EvidenceError, match="was altered"):
        resume_matrix(home, what)
    (tmp_path / "elsewhere").mkdir()
    begun_at(home, asked)
    home.rename(tmp_path / "elsewhere" / "begun")
    with pytest.raises(UsageError, match="resume it where it was begun"):
        resume_matrix(tmp_path / "elsewhere" / "begun", what)


# --- words ------------------------------------------------------------------------------------------------------------


def test_a_plan_says_cells_runs_and_time(asked: Asking) -> None:
    text = " ".join(plan_text(asked, 80).split())
    assert text.startswith("2 cells of 5 runs, 10 in all, about 2:07 min, and the time to build 4 engines first. ")
    assert "Each cell is ABABA:" in text
    assert "1 resnet50 offline loud (bert, dlrm) 2 resnet50 offline quiet (rnnt)" in text
    unused = " No cell is Server, so that [matrix.target-qps] is not used. "
    assert unused not in text
    assert unused in " ".join(plan_text(replace(asked, target_qps={"resnet50": 300.0}), 80).split())


def test_each_run_has_its_lines(home: Path, asked: Asking) -> None:
    index = begun_at(home, asked)
    step = next_run(index.asked.matrix, index.runs)
    assert isinstance(step, RunCell)
    assert begun_line(index, step).startswith("1 of 10: resnet50 offline alone; about 2:07 min left")
    one, known = driven(index, at_most=1)
    assert list(ended_lines(one, matrix_of(one, known))) == ["measured, 1000 samples/s"]
    cell, known = driven(index, at_most=5)
    last = list(ended_lines(cell, matrix_of(cell, known)))
    assert last[1].startswith("resnet50 offline beside loud: throughput: 29.9 % slower (")
    failed, known = driven(index, at_most=2, failing="loud")
    assert list(ended_lines(failed, matrix_of(failed, known))) == ["failed: bert died"]
    again = next_run(failed.asked.matrix, failed.runs)
    assert isinstance(again, RunCell)
    assert "again because it was failed: bert died" in begun_line(failed, again)
    hole, known = driven(index, at_most=3, failing="loud")
    assert list(ended_lines(hole, matrix_of(hole, known)))[1].startswith(
        "resnet50 offline beside loud: failed, failed 2 times: bert died"
    )


def test_the_bar_knows_what_is_left_after_the_run(home: Path, asked: Asking) -> None:
    index, _ = driven(begun_at(home, asked), at_most=3)
    step = next_run(index.asked.matrix, index.runs)
    assert isinstance(step, RunCell)
    progress = progress_of(index, step)
    assert (progress.number, progress.of, progress.what) == (4, 10, "resnet50 offline beside loud")
    assert progress.took_s == 24.0
    assert progress.left_s == pytest.approx(progress.after_s + 8.0)


def answered(home: Path, asked: Asking, failing: str = "") -> Interference:
    index, known = driven(begun_at(home, asked), failing=failing)
    return matrix_of(index, known)


def test_the_answer_is_told_in_every_form(home: Path, asked: Asking) -> None:
    found = answered(home, asked)
    text = answer_text(found, "runs/x", 200)
    assert text.startswith("ANSWERED (exit 0): 2 of 2 cells are measured: 2 worse beside its neighbours.")
    assert "SIMULATED" in text
    assert "resnet50  offline   loud    worse    -29.9 % (" in text
    assert "100 to 250" in text
    assert "Power and clock are those of the whole GPU" in text
    markdown = answer_markdown(found)
    assert "| resnet50 | offline | loud | worse | -29.9 % (" in markdown
    assert markdown.count("| measured |") == 10 + 1, "every run, and the title"
    rows = list(csv.DictReader(io.StringIO(answer_csv(found))))
    assert rows[0]["backgrounds"] == "bert+dlrm"
    assert float(rows[0]["qps_change"]) == pytest.approx(-0.3, abs=0.001)
    assert float(rows[0]["power_beside"]) == 250.0
    assert rows[0]["p99_change"] == ""


def test_a_hole_is_told_with_its_reason(home: Path, asked: Asking) -> None:
    found = answered(home, asked, failing="loud")
    text = answer_text(found, "runs/x", 200)
    assert text.startswith("INCONCLUSIVE (exit 9): 1 of 2 cells are measured: 1 worse beside its neighbours, 1 failed.")
    assert "resnet50  offline   loud    FAILED   n/a" in text
    assert "resnet50 offline beside loud: failed, failed 2 times: bert died." in text
    rows = list(csv.DictReader(io.StringIO(answer_csv(found))))
    assert (rows[0]["status"], rows[0]["reason"], rows[0]["qps_change"]) == ("failed", "failed 2 times: bert died", "")


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_an_interruption_between_two_runs_is_one(home: Path, asked: Asking) -> None:
    said: list[str] = []

    def interrupted(_spec: RunSpec, _index: MatrixIndex, step: RunCell) -> Outcome:
        said.append(step.side.value)
        raise KeyboardInterrupt

    index, found = measure_matrix(home, begun_at(home, asked), asked.specs, interrupted, said.append)
    assert (index.exit_code, found.exit_code, found.status) == (130, 130, "stopped")
    assert found.sentence.startswith("The matrix was interrupted between two runs; 0 of 2 cells are measured")
    assert read_matrix(home) == index
    assert said[1:] == ["isolated"]


def test_runs_that_are_gone_are_measured_again(home: Path, asked: Asking) -> None:
    """What was measured is read from the runs, whatever the index says of them."""
    seen: list[RunCell] = []

    def interrupted(_spec: RunSpec, _index: MatrixIndex, step: RunCell) -> Outcome:
        seen.append(step)
        raise KeyboardInterrupt

    half, _ = driven(begun_at(home, asked), at_most=3)
    write_campaign(home, half)
    index, found = measure_matrix(home, resume_matrix(home, half.asked), asked.specs, interrupted, lambda _: None)
    assert [step.position for step in seen] == [0]
    assert (found.runs_done, found.runs_left) == (0, 10)
    first = index.entries[0].run
    assert first is not None
    assert first.reason.startswith("what it measured cannot be used: ")


def test_a_matrix_whose_runs_are_gone_is_not_going_on(home: Path, asked: Asking) -> None:
    whole, known = driven(begun_at(home, asked))
    write_campaign(home, whole.ended("2026-01-01T00:01:00Z", 0, ""))
    assert matrix_of(read_matrix(home), known).status == "answered"
    found = matrix_in(home)
    assert (found.status, found.exit_code, found.can_go_on) == ("stopped", 9, True)
    assert found.sentence.startswith("Runs that it had measured cannot be used any more; 0 of 2 cells are measured")


def test_a_cell_that_failed_can_be_tried_again(home: Path, asked: Asking) -> None:
    assert answered(home, asked, failing="loud").can_go_on
    assert not answered(home, asked).can_go_on


def test_what_goes_wrong_between_two_runs_is_written_down(home: Path, asked: Asking) -> None:
    def refused(_spec: RunSpec, _index: MatrixIndex, _step: RunCell) -> Outcome:
        raise UsageError("No run directory can be made.")

    with pytest.raises(UsageError, match="No run directory"):
        measure_matrix(home, begun_at(home, asked), asked.specs, refused, lambda _: None)
    index = read_matrix(home)
    assert (index.exit_code, index.sentence) == (2, "No run directory can be made.")


def test_the_building_of_engines_is_not_expected_again(home: Path, asked: Asking) -> None:
    moments = ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.250Z")
    outcome = Outcome(
        home / "a-run",
        replace(
            record(3, Reason(3, "Main resnet50 is not VALID.")),
            phases=(PhaseRecord("discovering", *moments), PhaseRecord("building", *moments)),
        ),
    )
    runs = iter((outcome,))

    def invalid(_spec: RunSpec, _index: MatrixIndex, _step: RunCell) -> Outcome:
        for one in runs:
            return one
        raise KeyboardInterrupt

    index, _ = measure_matrix(home, begun_at(home, asked), asked.specs, invalid, lambda _: None)
    (entry,) = index.entries
    assert entry.run is not None
    assert (entry.run.ending, entry.run.reason) == (Ending.INVALID, "Main resnet50 is not VALID")
    assert entry.run.took_s == pytest.approx(entry.took_s - 1.25)
