"""Names that lead elsewhere, in every place that takes one: refused in a sentence, and nothing is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Say, Start
from tests.e2e.product import BOARD
from tests.nvidia_tree.tree import plant

ODD = ("..", "../../elsewhere", "a\n\x1b[31mb", "x" * 300)

TABLES = {
    "a command": "[command.{}]\nargv = ['true']\nstart = 'x'\nresult = 'y'",
    "a scenario of a command": "[command.a]\nargv = ['true']\nstart = 'x'\nresult = 'y'\nscenarios = [{}]",
    "main": "main = {{ benchmark = {} }}",
    "main's scenario": "main = {{ scenario = {} }}",
    "backgrounds": "background = {{ benchmarks = [{}] }}",
    "a background's scenario": "background = {{ scenario = {} }}",
    "main's configuration version": "harness = 'make'\nmain = {{ config-ver = {} }}",
    "backgrounds' configuration version": "harness = 'make'\nbackground = {{ config-ver = {} }}",
    "a benchmark of a system": "harness = 'make'\n[[systems]]\ngpu = 'A30'\nbenchmarks = {{ {} = ['offline'] }}",
}


def _entries(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize("place", TABLES)
def test_a_name_that_leads_elsewhere(tmp_path: Path, say: Say, place: str) -> None:
    tree = plant(tmp_path, with_engines=True)
    for number, odd in enumerate(ODD):
        config = tmp_path / f"config{number}.toml"
        config.write_text(TABLES[place].format(json.dumps(odd)))
        where = () if "'make'" not in TABLES[place] else ("--harness-dir", str(tree))
        before = _entries(tmp_path) | {f"say{number}.out", f"say{number}.err"}
        words = "plan" if number % 3 else "run"
        finished = say(words, "--config", str(config), "--slices", BOARD, "--runs-dir", "runs/deep", *where).finish()
        assert finished.exit_code == 2, (odd, finished)
        assert finished.stderr.startswith("heteromig: ")
        assert finished.stderr.count("\n") == 1
        new = _entries(tmp_path) - before
        assert all(path == "runs" or path.startswith("runs/deep") for path in new), new
        assert not list(tmp_path.glob("runs/deep/2*/workers/*"))


@pytest.mark.parametrize("odd", ["..", "/etc", "../1-background-b", "a\0b", "", "logs/../../x", "a/../.."])
def test_logs_of_a_command_are_below_its_worker(tmp_path: Path, say: Say, odd: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[command.a]\nargv = ['true']\nloadgen-logs = {json.dumps(odd)}\n")
    finished = say("run", "--config", str(config), "--slices", BOARD).finish()
    assert finished.exit_code == 2
    assert "must be a directory below the worker's own" in finished.stderr


def test_logs_of_a_command_in_a_directory_with_an_endless_name(tmp_path: Path, say: Say) -> None:
    config = tmp_path / "config.toml"
    table = "argv = ['sleep', '1']\nloadgen-logs = {}\n"
    text = json.dumps("x" * 5000)
    config.write_text("".join(f"[command.{name}]\n{table.format(text)}" for name in "ab"))
    finished = say("run", "--config", str(config), "--slices", BOARD, "--main-benchmark", "a").finish()
    assert finished.exit_code == 2, finished
    assert "must be a directory below the worker's own" in finished.stderr


def test_a_journal_with_names_that_lead_elsewhere_is_not_followed(quick: Start, tmp_path: Path, say: Say) -> None:
    """Who hands over a run directory could have `verify` read logs that lie somewhere else."""
    command = quick()
    command.expect(0)
    journal = command.run_dir / "events.jsonl"
    text = journal.read_text()
    elsewhere = tmp_path / "elsewhere"
    (command.run_dir / "workers" / "0-main-resnet50").rename(elsewhere)
    journal.write_text(text.replace("resnet50", "x/../../../../elsewhere"))
    finished = say("verify", str(command.run_dir)).finish()
    assert finished.exit_code == 9
    assert "names that no run has" in finished.stderr
    journal.write_text(text)
    assert verify_run(command.run_dir).verdict.exit_code == 9
