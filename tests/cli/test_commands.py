"""Commands that start nothing, called in this process."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from click.testing import Result
from typer.testing import CliRunner

from heteromig import __version__
from heteromig.cli.main import app
from heteromig.core.errors import UsageError
from heteromig.core.machine import diagram
from heteromig.core.verdict import EXIT_CODES

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("run", "plan", "build", "slices", "states", "verify", "replay", "schema", "exit-codes", "import-results")
PLAN = ("plan", "--slices", "sim:a30", "--background-benchmarks", "dlrm,rnnt", "--json")


def _call(*argv: str, **environ: str) -> Result:
    result = CliRunner().invoke(app, argv, env=dict(environ))
    if isinstance(result.exception, UsageError):
        raise result.exception
    return cast("Result", result)


def _spec(*argv: str, **environ: str) -> dict[str, object]:
    result = _call(*PLAN, *argv, **environ)
    assert result.exit_code == 0, result.output
    return cast("dict[str, object]", json.loads(result.stdout)["spec"])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_version() -> None:
    result = _call("--version")
    assert (result.exit_code, result.stdout) == (0, f"heteromig {__version__}\n")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(command: tuple[str, ...], flag: str) -> None:
    result = _call(*command, flag)
    assert result.exit_code == 0
    assert "Usage: heteromig" in result.stdout
    if not command:
        assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("rum",), "run"),
        (("run", "--main-benchmrk", "bert"), "--main-benchmark"),
        (("run", "--drain", "never"), "kill"),
        (("run", "--seed", "x"), "--seed"),
        (("verify",), "RUN_DIR"),
        (("states", "now"), "now"),
    ],
)
def test_mistyped_command_line_is_answered_with_what_was_meant(argv: tuple[str, ...], words: str) -> None:
    result = _call(*argv)
    assert result.exit_code == 2
    assert words in result.stderr


def test_exit_codes_are_those_of_the_core() -> None:
    lines = _call("exit-codes").stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [[str(code), *rest] for code, *rest in EXIT_CODES]


def test_states_are_those_of_the_table() -> None:
    assert _call("states").stdout == diagram() + "\n"


def test_diagram_in_the_documentation_is_up_to_date() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(REPOSITORY / "docs" / "diagram.py"))["with_diagram"](text) == text, "run `make diagram`"


def test_slices() -> None:
    found = json.loads(_call("slices", "--slices", "sim:a30/2x2g.12gb", "--json").stdout)
    assert [place["profile"] for place in found["inventory"]["slices"]] == ["2g.12gb", "2g.12gb"]
    assert all(reading["occupants"] == [] for reading in found["sample"]["slices"])
    text = _call("slices", HETEROMIG_SLICES="sim:a30/2x2g.12gb").stdout
    assert all(place["uuid"] in text for place in found["inventory"]["slices"])


def test_plan_starts_and_writes_nothing(tmp_path: Path) -> None:
    result = _call(*PLAN)
    plan = json.loads(result.stdout)
    assert result.stderr == ""
    assert plan["simulated"]
    assert [worker["benchmark"] for worker in plan["builds"]] == ["resnet50", "dlrm", "rnnt"]
    assert [worker["role"] for worker in plan["workers"]] == ["background", "background", "main"]
    assert list(tmp_path.iterdir()) == []
    assert json.loads(_call("run", "--dry-run", *PLAN[1:]).stdout) == plan


def test_plan_of_a_build_is_the_builds() -> None:
    plan = json.loads(_call("build", "--dry-run", *PLAN[1:]).stdout)
    assert plan["workers"] == []
    assert len(plan["builds"]) == 3


def test_plan_for_people() -> None:
    text = _call(*PLAN[:-1]).stdout
    assert "SIMULATED" in text
    assert "CUDA_VISIBLE_DEVICES=SIM-MIG-" in text
    assert "heteromig.benchmarks run --benchmark resnet50" in text


def test_what_is_put_before_mains_command() -> None:
    workers = json.loads(_call(*PLAN, "--main-benchmark-cmd-prefix", "perf stat -e 'a b'").stdout)["workers"]
    for worker in workers:
        assert (worker["argv"][:4] == ["perf", "stat", "-e", "a b"]) == (worker["role"] == "main")


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'seed = 1\nlenient = true\npin = false\n[timing]\ngrace = "1s"\n[main]\nduration = "1s"\n'
    )
    file = ("--config", "c.toml")
    default = _spec()
    assert (default["seed"], default["lenient"], default["pin"]) == (0, False, True)
    read = _spec(*file)
    assert (read["seed"], read["lenient"], read["pin"]) == (1, True, False)
    assert cast("dict[str, int]", read["timing"])["grace-ms"] == 1000
    env = {
        "HETEROMIG_SEED": "2",
        "HETEROMIG_LENIENT": "0",
        "HETEROMIG_PIN": "1",
        "HETEROMIG_MAIN_BENCHMARK_DURATION": "2s",
    }
    told = _spec(*file, **env)
    assert (told["seed"], told["lenient"], told["pin"]) == (2, False, True)
    assert cast("dict[str, int]", told["main"])["duration-ms"] == 2000
    said = _spec(*file, "--seed", "3", "--lenient", "--no-pin", "--main-benchmark-duration", "3s", **env)
    assert (said["seed"], said["lenient"], said["pin"]) == (3, True, False)
    assert cast("dict[str, int]", said["main"])["duration-ms"] == 3000
    assert _spec(HETEROMIG_CONFIG="c.toml")["seed"] == 1


def test_negative_flags_overrule_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("lenient = true\nrebuild = true\n")
    spec = _spec("--config", "c.toml", "--no-lenient", "--no-rebuild")
    assert (spec["lenient"], spec["rebuild"]) == (False, False)


def test_environment_is_checked_like_flags() -> None:
    with pytest.raises(UsageError, match="--grace: 'soon' is not a duration"):
        _call(*PLAN, HETEROMIG_GRACE="soon")
    result = _call(*PLAN, HETEROMIG_SEED="x")
    assert result.exit_code == 2
    assert "HETEROMIG_SEED" in result.stderr


def test_misspelt_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[timing]\nstart-time-bufer = 1\n")
    with pytest.raises(UsageError, match=r"did you mean 'start-time-buffer'\?"):
        _call(*PLAN, "--config", "c.toml")


def test_example_of_the_documentation_is_a_good_configuration() -> None:
    result = _call("plan", "--config", str(REPOSITORY / "examples" / "demo.toml"), "--json")
    plan = json.loads(result.stdout)
    names = [worker["benchmark"] for worker in plan["workers"] if worker["role"] == "background"]
    assert sorted(names.count(name) for name in set(names)) == [1, 1, 1, 1, 2]
    assert "resnet50" not in names


def test_a_locale_without_the_signs_of_a_tree_gets_question_marks() -> None:
    argv = (sys.executable, "-m", "heteromig", "slices", "--slices", "sim:a30")
    done = subprocess.run(
        argv, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n?? 1g.6gb" in done.stdout
