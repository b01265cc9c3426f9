"""`heteromig report`, and the page that a run makes of itself, as their users meet them."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heteromig.runner.rundir import hash_files
from heteromig.runner.verification import verify_run
from tests.e2e.product import Command, Finished, RunCommand, until
from tests.report.conftest import FLAGS, QUICK, Keep

Say = Callable[..., Finished]

WITH_REPORT = {"HETEROMIG_REPORT": "true"}

HIDING = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {"matplotlib", "jinja2"}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    started: list[Command] = []

    def start(*argv: str) -> Finished:
        started.append(Command(tmp_path, argv, environ={}, module="tests.e2e.quick", name=f"say{len(started)}"))
        return started[-1].finish()

    yield start
    for command in started:
        command.close()


@pytest.fixture
def without_extra(tmp_path: Path) -> Path:
    """A home whose commands find neither matplotlib nor jinja2."""
    (tmp_path / "mark").mkdir()
    (tmp_path / "mark" / "sitecustomize.py").write_text(HIDING)
    return tmp_path


def test_a_run_makes_its_page_in_the_end_and_changes_nothing_else(keep: Keep) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "1s", **WITH_REPORT)
    command.expect(0)
    page = command.run_dir / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    found = verify_run(command.run_dir)
    assert found.verdict.exit_code == 0
    assert found.notes == ()
    sealed = json.loads((command.run_dir / "certificate.json").read_bytes())["files"]
    assert {one["path"] for one in sealed} == {one.path for one in hash_files(command.run_dir)}
    last = command.finish().stdout.rstrip().splitlines()[-1].split()
    assert last == ["Report", str(page)]


@pytest.mark.parametrize("flags", [("--quiet",), ("--json",), ("--events",)])
def test_what_is_for_programs_stays_so(keep: Keep, flags: tuple[str, ...]) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "1s", *flags, **WITH_REPORT)
    command.expect(0)
    finished = command.finish()
    assert (command.run_dir / "report.html").is_file()
    assert "report" not in finished.stderr
    if flags != ("--quiet",):
        assert "report.html" not in finished.stdout


def test_a_failed_run_has_a_page_too_and_keeps_its_exit_code(keep: Keep) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "1s", QUICK_MAIN="crashing", **WITH_REPORT)
    command.expect(5)
    assert "no such luck" in (command.run_dir / "report.html").read_text(encoding="utf-8")


def test_no_report_makes_none(keep: Keep) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "1s", "--no-report", **WITH_REPORT)
    command.expect(0)
    assert not (command.run_dir / "report.html").exists()
    assert "report" not in command.finish().stderr


def test_without_the_extra_a_run_says_in_a_line_how_to_make_the_page_later(without_extra: Path) -> None:
    argv = ("run", *QUICK, "--main-benchmark-duration", "1s")
    command = RunCommand(without_extra, argv, environ=WITH_REPORT, module="tests.e2e.quick")
    try:
        command.expect(0)
    finally:
        command.close()
    assert not (command.run_dir / "report.html").exists()
    told = [line for line in command.said.splitlines() if "report.html" in line]
    (line,) = told
    assert line.startswith("heteromig: report.html needs matplotlib and jinja2, which are not installed.")
    assert line.endswith(f"pip install 'heteromig[report]', then heteromig report {command.run_dir}")


def test_without_the_extra_the_other_formats_are_made_and_the_page_is_refused(
    without_extra: Path, valid: Path, say: Say
) -> None:
    del without_extra
    assert say("report", str(valid), "--format", "md").exit_code == 0
    assert say("report", str(valid), "--format", "trace").exit_code == 0
    refused = say("report", str(valid), "--output", "page.html")
    assert refused.exit_code == 7
    assert "pip install 'heteromig[report]'" in refused.stderr


def test_a_page_that_cannot_be_written_is_one_sentence_and_no_other_exit_code(keep: Keep) -> None:
    config = {
        "harness": "command",
        "command": {
            "main": {
                "argv": ["sh", "-c", "mkdir ../../report.html; echo start; sleep 2; echo result=1"],
                "start": "^start$",
                "result": "^result=(?P<figure>.*)$",
            }
        },
        "main": {"benchmark": "main", "duration": "1s"},
        "background": {"benchmarks": "none"},
    }
    command = keep(*FLAGS, "--config", "run.toml", config=config, **WITH_REPORT)
    command.expect(0)
    told = [line for line in command.said.splitlines() if line.startswith("heteromig:")]
    assert len(told) == 1
    assert told[0].startswith(f"heteromig: The report was not made: The report cannot be written to {command.run_dir}")
    assert list((command.run_dir / "report.html").iterdir()) == []


def test_a_report_can_be_made_later_and_anew(valid: Path, say: Say, tmp_path: Path) -> None:
    finished = say("report", str(valid))
    assert (finished.exit_code, finished.stdout.strip()) == (0, str(valid / "report.html"))
    first = (valid / "report.html").read_bytes()
    assert say("report", str(valid), "-o", "other.html") == Finished(0, "", "")
    assert (tmp_path / "other.html").read_bytes() == first
    assert verify_run(valid).notes == ()
    assert sorted(path.name for path in valid.iterdir() if path.name.startswith(".")) == []


def test_markdown_and_trace_go_to_standard_output_unless_told_otherwise(valid: Path, say: Say, tmp_path: Path) -> None:
    before = sorted(valid.iterdir())
    assert say("report", str(valid), "--format", "md").stdout.startswith("**VALID (exit 0):**")
    assert "traceEvents" in json.loads(say("report", str(valid), "--format", "trace").stdout)
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    heard: list[bytes] = []
    reader.start()
    assert say("report", str(valid), "--format", "trace", "--output", "pipe").exit_code == 0
    reader.join()
    assert heard[0].startswith(b'{"displayTimeUnit"')
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    assert say("report", str(valid), "--format", "trace", "--output", "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == heard[0]
    assert say("report", str(valid), "--format", "trace", "--output", "trace.json").exit_code == 0
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_bytes())
    assert sorted(valid.iterdir()) == before


@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "new.html", "workers/report.html", ".."])
def test_evidence_is_never_written_over(valid: Path, say: Say, name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(valid / "run.json")
    assert "evidence" in say("report", str(valid), "--output", "link").stderr
    path = valid / name if name != ".." else valid / "workers" / ".." / "certificate.json"
    before = path.read_bytes() if path.exists() else None
    finished = say("report", str(valid), "--output", str(path))
    assert finished.exit_code == 2
    assert "evidence" in finished.stderr
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(
    ("argv", "exit_code", "words"),
    [
        (("nowhere",), 2, "nowhere is not a run directory"),
        ((".",), 2, "is not a run directory"),
        (("RUN", "--format", "pdf"), 2, "say html, md or trace"),
        (("RUN", "--output", "no/such/place.html"), 2, "Choose another place with --output"),
    ],
)
def test_bad_input_is_a_sentence_and_no_page(
    valid: Path, say: Say, argv: tuple[str, ...], exit_code: int, words: str
) -> None:
    finished = say("report", *(str(valid) if one == "RUN" else one for one in argv))
    assert finished.exit_code == exit_code
    assert words in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stdout == ""


def test_the_terminal_is_safe_from_what_programs_print(hostile: Path, say: Say) -> None:
    finished = say("verify", str(hostile))
    assert finished.exit_code == 5
    assert "\x1b" not in finished.stdout
    assert "[bold]x[/bold]" in finished.stdout


# --- of a tuning ------------------------------------------------------------------------------------------------------

TUNE = ("tune", *FLAGS, "--harness", "quick", "--background-benchmarks", "dlrm", "--main-benchmark-duration", "700ms")


def test_a_tuning_makes_its_page_and_those_of_its_runs_in_the_end(tmp_path: Path, say: Say) -> None:
    finished = Command(tmp_path, TUNE, environ=WITH_REPORT, module="tests.e2e.quick", name="tune").finish()
    assert finished.exit_code == 0, finished.stderr
    (index,) = (tmp_path / "runs").glob("2*/campaign.json")
    page = index.with_name("tune.html")
    assert finished.stdout.rstrip().splitlines()[-1].split() == ["Report", str(page)]
    text = page.read_text(encoding="utf-8")
    runs = [path.parent for path in index.parent.glob("*/run.json")]
    assert len(runs) >= 4
    for run_dir in runs:
        assert f'href="./{run_dir.name}/report.html"' in text
        assert f'href="./{run_dir.name}/"' in text
        assert (run_dir / "report.html").is_file()
        assert verify_run(run_dir).notes == ()
    page.unlink()
    (runs[0] / "report.html").unlink()
    assert say("report", str(index.parent)) == Finished(0, f"{page}\n", "")
    assert page.read_text(encoding="utf-8") == text
    assert (runs[0] / "report.html").is_file()
    assert say("report", str(index.parent), "--format", "md").stdout.startswith("ANSWERED (exit 0): ")
    assert "has no trace" in say("report", str(index.parent), "--format", "trace").stderr
    assert "evidence" in say("report", str(index.parent), "--output", str(index)).stderr


def test_an_interrupted_tuning_has_a_page_that_says_how_to_go_on(tmp_path: Path) -> None:
    command = RunCommand(tmp_path, (*TUNE, "--start-time-buffer", "1s"), environ=WITH_REPORT, module="tests.e2e.quick")
    try:
        until(lambda: list(command.runs.glob("2*/campaign.json")), "a campaign")
        (index,) = command.runs.glob("2*/campaign.json")
        until(lambda: list(index.parent.glob("2*/events.jsonl")), "a run")
        command.send(signal.SIGINT)
        assert command.finish().exit_code == 130
    finally:
        command.close()
    text = index.with_name("tune.html").read_text(encoding="utf-8")
    assert "STOPPED (exit 130)" in text
    assert f"heteromig tune ... --resume {index.parent}" in text


@pytest.mark.parametrize(
    ("more", "environ", "made"), [(("--no-report",), WITH_REPORT, False), (("--json",), WITH_REPORT, True)]
)
def test_what_a_tuning_was_told_of_its_page_is_done(
    tmp_path: Path,
    more: tuple[str, ...],
    environ: dict[str, str],
    made: bool,  # noqa: FBT001 - of the table
) -> None:
    argv = (*TUNE, "--isolated", *more)
    finished = Command(tmp_path, argv, environ=environ, module="tests.e2e.quick", name="tune").finish()
    assert finished.exit_code == 0, finished.stderr
    assert len(list((tmp_path / "runs").glob("2*/tune.html"))) == made
    assert len(list((tmp_path / "runs").glob("2*/2*/report.html"))) == 2 * made
    assert "tune.html" not in finished.stdout


def test_without_the_extra_a_tuning_says_in_a_line_how_to_make_its_page_later(without_extra: Path) -> None:
    argv = (*TUNE, "--isolated")
    finished = Command(without_extra, argv, environ=WITH_REPORT, module="tests.e2e.quick", name="tune").finish()
    assert finished.exit_code == 0, finished.stderr
    (index,) = (without_extra / "runs").glob("2*/campaign.json")
    assert finished.stderr.splitlines()[-1] == (
        "heteromig: tune.html needs matplotlib and jinja2, which are not installed. To make it later: "
        f"pip install 'heteromig[report]', then heteromig report {index.parent}"
    )


# --- of a matrix ------------------------------------------------------------------------------------------------------

MATRIX = (
    *("matrix", *FLAGS, "--harness", "quick", "--main-benchmark-duration", "700ms", "--repetitions", "1"),
    *("--background-set", "two=dlrm,rnnt"),
)


def test_a_matrix_makes_its_page_and_those_of_its_runs_in_the_end(tmp_path: Path, say: Say) -> None:
    finished = Command(tmp_path, MATRIX, environ=WITH_REPORT, module="tests.e2e.quick", name="matrix").finish()
    assert finished.exit_code in {0, 9}, finished.stderr
    (index,) = (tmp_path / "runs").glob("2*/campaign.json")
    page = index.with_name("matrix.html")
    assert finished.stdout.rstrip().splitlines()[-1].split() == ["Report", str(page)]
    text = page.read_text(encoding="utf-8")
    runs = [path.parent for path in index.parent.glob("*/run.json")]
    assert len(runs) == 3
    for run_dir in runs:
        assert f'href="./{run_dir.name}/report.html"' in text
        assert f'href="./{run_dir.name}/"' in text
        assert verify_run(run_dir).notes == ()
    page.unlink()
    assert say("report", str(index.parent)) == Finished(0, f"{page}\n", "")
    assert page.read_text(encoding="utf-8") == text
    assert say("report", str(index.parent), "--format", "md").stdout == index.with_name("matrix.md").read_text()
    assert "has no trace" in say("report", str(index.parent), "--format", "trace").stderr
    assert "evidence" in say("report", str(index.parent), "--output", str(index)).stderr


@pytest.mark.parametrize(("more", "made"), [(("--no-report",), False), (("--json",), True)])
def test_what_a_matrix_was_told_of_its_page_is_done(tmp_path: Path, more: tuple[str, ...], made: bool) -> None:  # noqa: FBT001
    argv = (*MATRIX, *more)
    finished = Command(tmp_path, argv, environ=WITH_REPORT, module="tests.e2e.quick", name="matrix").finish()
    assert finished.exit_code in {0, 9}, finished.stderr
    assert len(list((tmp_path / "runs").glob("2*/matrix.html"))) == made
    assert "matrix.html" not in finished.stdout
