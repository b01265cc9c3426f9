"""`heteromig doctor` on simulated slices, and about harnesses: what is printed, and with which code it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heteromig.doctor.findings import Status
from heteromig.slices.locks import lock_gpus
from tests.doctor.asking import PROGRAMS, ask, heteromig

A30 = ("--slices", "sim:a30")


def test_a_simulated_machine_is_fine_and_stays_as_it_is(tmp_path: Path) -> None:
    found = ask(tmp_path, *A30)
    assert (found.exit_code, found.report.simulated, found.stderr) == (0, True, "")
    assert found.problems == []
    assert found.one("slices").what == "4 slices: 4x1g.6gb, SIMULATED"
    assert found.one("plan").what == "resnet50 on 1g.6gb beside 3 backgrounds"
    assert found.one("driver").what == "not applicable: the slices are simulated"
    assert found.one("hardware").what.startswith("not applicable to simulated GPUs")
    assert found.one("mig-mode").what == "MIG is on, cut into 1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
    assert found.report.latencies[0].call == "sample"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [80, 100])
def test_for_people(tmp_path: Path, columns: int) -> None:
    done = heteromig(tmp_path, "doctor", *A30, environ={"COLUMNS": str(columns)})
    assert done.returncode == 0
    assert "ok       slices         4 slices: 4x1g.6gb, SIMULATED\n" in done.stdout
    assert "\nA run can begin" in done.stdout
    assert done.stdout.rstrip().endswith("SIMULATED: no GPU was involved, and this is not a measurement of a GPU.")
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_variables_are_options(tmp_path: Path) -> None:
    said = {"HETEROMIG_SLICES": "sim:2xa30", "HETEROMIG_RUNS_DIR": "elsewhere", "HETEROMIG_GPU": "1"}
    found = ask(tmp_path, environ=said)
    assert found.one("slices").what == "8 slices on 2 GPUs: 8x1g.6gb, SIMULATED"
    assert found.one("runs-dir").what.startswith(f"{tmp_path}/elsewhere, ")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--slices", "sim:a300"), "did you mean a30?"),
        (("--harness", "loadgn"), "did you mean 'loadgen'?"),
        (("--config", "none.toml"), "none.toml cannot be read"),
        (("--slice", "mig"), "--slices"),
    ],
)
def test_what_is_no_option_is_a_usage_error(tmp_path: Path, argv: tuple[str, ...], says: str) -> None:
    done = heteromig(tmp_path, "doctor", *argv, environ={})
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_help(tmp_path: Path) -> None:
    done = heteromig(tmp_path, "doctor", "--help", environ={})
    assert done.returncode == 0
    for option in ("--slices", "--gpu", "--runs-dir", "--harness", "--harness-dir", "--config", "--json"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("argv", "check", "says"),
    [
        ((*A30, "--harness", "make"), "harness", "--harness make needs NVIDIA's tree"),
        ((*A30, "--harness", "make", "--harness-dir", "."), "harness", "is not NVIDIA's tree"),
        ((*A30, "--gpu", "7"), "plan", "--gpu 7 is none of the GPUs with slices"),
        (("--slices", "sim:a30/1x4g.24gb"), "plan", "needs at least 2"),
        (("--slices", "sim:a30/2x2g.12gb", "--runs-dir", "programs.toml"), "runs-dir", "Not a directory"),
    ],
)
def test_problems(tmp_path: Path, argv: tuple[str, ...], check: str, says: str) -> None:
    (tmp_path / "programs.toml").touch()
    found = ask(tmp_path, *argv)
    assert found.exit_code == 7
    assert (found.one(check).status, says in found.one(check).what) == (Status.PROBLEM, True)
    assert found.one(check).fix


@pytest.mark.parametrize("runs_dir", ["programs.toml", "programs.toml/runs"])
def test_run_says_the_same_of_a_runs_directory(tmp_path: Path, runs_dir: str) -> None:
    (tmp_path / "programs.toml").touch()
    said = (*A30, "--runs-dir", runs_dir)
    done = heteromig(tmp_path, "run", *said, environ={})
    assert done.stderr == f"heteromig: {ask(tmp_path, *said).one('runs-dir').what}\n"


def test_a_program_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(PROGRAMS.replace('["true"]', '["no-such-program"]'))
    found = ask(tmp_path, *A30, "--config", "c.toml")
    assert (found.exit_code, found.one("harness").status) == (7, Status.PROBLEM)
    assert "no-such-program" in found.one("harness").what


def test_a_tree_is_found(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "launch_heterogeneous_mig.py").touch()
    (tmp_path / "Makefile").touch()
    found = ask(tmp_path, "--slices", "sim:a100-sxm-80gb")
    assert found.one("harness").what == f"make can run here, NVIDIA's tree in {tmp_path}"


def test_a_layout_that_was_not_taken_back(tmp_path: Path) -> None:
    assert ask(tmp_path, *A30).one("leftovers").status is Status.OK
    assert heteromig(tmp_path, "mig", "apply", "2x2g.12gb", *A30, environ={}).returncode == 0
    found = ask(tmp_path, *A30)
    left = found.one("leftovers")
    assert (left.status, found.exit_code) == (Status.WARNING, 0)
    assert "was cut by heteromig on " in left.what
    assert found.one("slices").what == "2 slices: 2x2g.12gb, SIMULATED"
    command = (left.fix or "").split()
    assert command[:3] == ["heteromig", "mig", "restore"]
    with_run = lock_gpus([found.report.gpus[0].uuid], tmp_path / "runs" / ".locks")
    try:  # somebody is at it
        assert ask(tmp_path, *A30).one("leftovers").status is Status.OK
    finally:
        with_run.close()
    assert heteromig(tmp_path, *command[1:], environ={}).returncode == 0
    assert ask(tmp_path, *A30).one("leftovers").status is Status.OK


def test_a_layout_of_the_configuration_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('slices = "sim:a30/1x4g.24gb"\nlayout = "4x1g.6gb"\n')
    found = ask(tmp_path, "--config", "c.toml")
    assert found.exit_code == 0
    first, second = found.all("slices")
    assert (first.status, "--layout 4x1g.6gb" in first.what) == (Status.UNKNOWN, True)
    assert second.status is Status.OK
    assert (found.one("plan").status, "as it is, a run would be refused" in found.one("plan").what) == (
        Status.UNKNOWN,
        True,
    )


def test_a_simulated_slice_in_use(tmp_path: Path) -> None:
    uuid = ask(tmp_path, *A30).report.gpus[0].uuid
    held = lock_gpus([uuid], tmp_path / "runs" / ".locks")
    try:
        lock = ask(tmp_path, *A30).one("lock")
    finally:
        held.close()
    assert (lock.status, f"(pid {os.getpid()})" in lock.what) == (Status.PROBLEM, True)
