"""`heteromig matrix` as users meet it: cells of runs, one directory, Ctrl-C and --resume, holes that stay holes."""

from __future__ import annotations

import csv
import io
import json
import signal
from functools import partial
from pathlib import Path

import msgspec
import pytest

from heteromig.campaign.matrix import Ending, Status, order
from heteromig.campaign.probes import Side
from heteromig.campaigns.directory import CAMPAIGN_JSON
from heteromig.campaigns.matrix_index import MatrixIndex, read_matrix
from heteromig.comparing.interference import Interference
from heteromig.core.phases import Phase
from heteromig.core.spec import Goal
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import FLAGS, QUICK, Say, Start
from tests.e2e.product import RunCommand, processes_with, until
from tests.e2e.strangers import slices_of, stranger

ONCE = ("--repetitions", "1")


@pytest.fixture
def matrix(measure: Start) -> Start:
    """Start `heteromig matrix` with workers that are up at once."""
    return partial(measure, "matrix")


def matrix_of(command: RunCommand) -> tuple[Path, MatrixIndex]:
    until(lambda: list(command.runs.glob(f"2*/{CAMPAIGN_JSON}")), "a matrix")
    (path,) = command.runs.glob(f"2*/{CAMPAIGN_JSON}")
    return path.parent, read_matrix(path.parent)


def test_each_cell_is_measured_alone_and_beside_by_turns(matrix: Start, say: Say) -> None:
    sets = ("--background-set", "loud=dlrm,rnnt", "--one-at-a-time", "--repetitions", "2")
    command = matrix(*sets, "--json")
    finished = command.finish()
    directory, index = matrix_of(command)
    found = msgspec.json.decode(finished.stdout, type=Interference)
    assert (finished.exit_code, index.exit_code, found.exit_code) == (found.exit_code,) * 3, finished.stderr
    assert finished.exit_code in {0, 9}, "noise may hide everything"
    assert processes_with(str(command.home)) == {}
    assert [cell.backgrounds.name for cell in found.cells] == ["loud", "only dlrm", "only rnnt"]
    assert [cell.status for cell in found.cells] == [Status.COMPLETE] * 3
    assert [(entry.step.side, entry.exit_code) for entry in index.entries] == [(side, 0) for side in order(2)] * 3
    for entry in index.entries:
        run_dir = directory / entry.run_dir
        assert verify_run(run_dir).verdict.status == "valid"
        spec = read_journal(run_dir).header.spec
        alone = entry.step.side is Side.ISOLATED
        assert (spec.goal, spec.background.candidates) == (
            (Goal.BASELINE, ()) if alone else (Goal.RUN, entry.step.cell.backgrounds.benchmarks)
        )
    for cell in found.cells:
        assert cell.throughput is not None
        assert cell.throughput.estimate is not None
        assert cell.throughput.estimate.n == 2
        assert cell.throughput.estimate.low is not None
    (worst,) = found.worst
    assert worst.sentence.startswith("resnet50 offline: ")
    assert msgspec.json.decode((directory / "matrix.json").read_bytes(), type=Interference) == found
    rows = list(csv.DictReader(io.StringIO((directory / "matrix.csv").read_text())))
    assert [row["background_set"] for row in rows] == ["loud", "only dlrm", "only rnnt"]
    assert "| resnet50 | offline | loud |" in (directory / "matrix.md").read_text()
    assert "3 cells of 5 runs, 15 in all, about " in finished.stderr, "the plan comes first"
    assert "15 of 15: resnet50 offline alone; about " in finished.stderr
    assert (command.runs / "latest").resolve() == directory

    for words in (("verify",), ("replay",), ("compare",)):
        refused = say(*words, "runs/latest").finish()
        assert refused.exit_code == 2
        assert "is the directory of a matrix: name one of its runs, such as runs/latest/" in refused.stderr

    known = matrix(*sets, "--resume", str(directory), "--format", "csv").finish()
    assert known.exit_code == finished.exit_code
    assert known.stdout == (directory / "matrix.csv").read_text()
    assert read_matrix(directory).entries == index.entries, "nothing was left to do"
    other = matrix(*sets, "--repetitions", "3", "--resume", str(directory)).finish()
    assert other.exit_code == 2
    assert "repetitions was 2 and is 3" in other.stderr
    tuning = RunCommand(
        command.home,
        ("tune", *FLAGS, *QUICK, "--resume", str(directory)),
        environ={},
        module="tests.e2e.quick",
        name="tuning",
    ).finish()
    assert tuning.exit_code == 2
    assert "is the directory of a matrix, and this is tune" in tuning.stderr


def test_an_interrupted_matrix_goes_on_where_it_was(matrix: Start) -> None:
    flags = (*ONCE, "--start-time-buffer", "1s")
    command = matrix(*flags)
    buffering = f'"destination":"{Phase.BUFFERING.value}"'.encode()
    directory, _ = matrix_of(command)

    def beside() -> bool:
        journals = [path for path in directory.glob("2*/events.jsonl") if "baseline" not in path.parent.name]
        return any(buffering in path.read_bytes() for path in journals)

    until(beside, "the second run")
    command.send(signal.SIGINT)
    finished = command.finish()
    assert finished.exit_code == 130, finished.stderr
    assert processes_with(str(command.home)) == {}
    assert f"--resume {directory}" in finished.stderr
    assert "Traceback" not in finished.stderr
    index = read_matrix(directory)
    assert [entry.exit_code for entry in index.entries] == [0, 130]
    assert index.entries[1].run is None
    said = json.loads((directory / "matrix.json").read_bytes())
    assert (said["status"], said["exit_code"], said["cells"][0]["status"]) == ("stopped", 130, "pending")
    assert finished.stdout.startswith("STOPPED (exit 130): The matrix stopped with run 2: SIGINT was received")

    command = matrix(*flags, "--resume", str(directory))
    finished = command.finish()
    assert finished.exit_code in {0, 9}, finished.stderr
    assert processes_with(str(command.home)) == {}
    again = read_matrix(directory)
    assert again.entries[:2] == index.entries
    assert [entry.exit_code for entry in again.entries] == [0, 130, 0, 0]
    assert [one["status"] for one in json.loads((directory / "matrix.json").read_bytes())["cells"]] == ["complete"]


def test_a_cell_whose_background_dies_is_a_hole(matrix: Start) -> None:
    command = matrix(*ONCE, "--json", QUICK_BACKGROUND="crashing")
    finished = command.finish()
    directory, index = matrix_of(command)
    assert finished.exit_code == 9, finished.stderr
    (cell,) = msgspec.json.decode(finished.stdout, type=Interference).cells
    assert (cell.status, cell.cost, cell.changes) == (Status.FAILED, None, ())
    assert cell.reason.startswith("failed 2 times: Background 1 (dlrm) exited with status 3")
    assert [(run.side, run.ending) for run in cell.runs] == [
        (Side.ISOLATED, Ending.MEASURED),
        (Side.BESIDE, Ending.FAILED),
        (Side.BESIDE, Ending.FAILED),
    ]
    for entry in index.entries:
        assert verify_run(directory / entry.run_dir).verdict.exit_code == entry.exit_code
    assert processes_with(str(command.home)) == {}

    again = matrix(*ONCE, "--resume", str(directory)).finish()
    assert again.exit_code in {0, 9}
    assert "resnet50 offline beside dlrm: throughput: " in again.stderr, "what stood in the way is gone"


def test_a_busy_host_ends_it_and_it_goes_on(matrix: Start, say: Say) -> None:
    host = ("--slices", "sim:2xa30/4x1g.6gb", "--gpu", "0", *ONCE)
    busy = slices_of(say, host[1])[-1]
    with stranger(busy) as pid:
        command = matrix(*host)
        finished = command.finish()
        directory, index = matrix_of(command)
        assert finished.exit_code == 7, finished.stderr
        assert "The matrix stopped with run 1: Slice" in finished.stdout
        assert f"pid {pid}" in " ".join(finished.stdout.split())
        assert [(entry.exit_code, entry.run) for entry in index.entries] == [(7, None)]
        assert verify_run(directory / index.entries[0].run_dir).verdict.exit_code == 7
    resumed = matrix(*host, "--resume", str(directory)).finish()
    assert resumed.exit_code in {0, 9}, resumed.stderr
    first, *others = read_matrix(directory).entries
    assert (first.exit_code, first.run) == (7, None)
    assert [entry.exit_code for entry in others] == [0, 0, 0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--mains", "resnet5"), "did you mean 'resnet50'"),
        (("--mains", "resnet50,resnet50"), "named twice"),
        (("--main-slice", "9g.99gb"), "--main-slice 9g.99gb is none of the 4 slices"),
        (("--background-set", "loud=dlmr"), "The background set 'loud': "),
        (("--background-set", "loud=dlrm,dlrm,dlrm,dlrm"), "has 4 benchmarks, but only 3 slices are free"),
        (("--background-set", "loud=dlrm", "--background-set", "loud=rnnt"), "'loud' is named twice"),
        (("--background-benchmarks", "none"), "none are named: add --background-set"),
        (("--harness", "loadgen", "--scenarios", "server"), "resnet50 needs a rate in Server"),
        (("--lenient",), "--lenient goes on without"),
        (("--rebuild",), "build them before with heteromig build --rebuild"),
        (("--events",), "--events shows the journal of one run"),
        (("--json", "--format", "md"), "choose one"),
        (("--resume", "nowhere"), "is not the directory of a campaign"),
        (("--repetitions", "0"), "raise the repetitions"),
    ],
)
def test_what_is_refused_makes_no_directory(matrix: Start, more: tuple[str, ...], words: str) -> None:
    command = matrix(*more)
    finished = command.finish()
    assert finished.exit_code == 2
    assert words in finished.stderr
    assert not list(command.runs.glob("2*"))


def test_a_plan_launches_nothing(matrix: Start) -> None:
    command = matrix("--dry-run", "--background-set", "loud=dlrm,rnnt", "--one-at-a-time")
    finished = command.finish()
    assert finished.exit_code == 0
    assert finished.stdout.startswith("3 cells of 7 runs, 21 in all, about ")
    assert "loud (dlrm, rnnt)" in finished.stdout
    assert not list(command.runs.glob("2*"))
