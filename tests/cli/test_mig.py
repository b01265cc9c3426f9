"""`heteromig mig`: what is printed, and with which code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import Result
from typer.testing import CliRunner

from heteromig.cli.main import app
from heteromig.core.errors import HeteromigError, PreflightError, UsageError

A30 = ("--slices", "sim:a30")
FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _call(*argv: str, **environ: str) -> Result:
    result = CliRunner().invoke(app, ("mig", *argv), env=dict(environ))
    if isinstance(result.exception, HeteromigError):
        raise result.exception
    return cast("Result", result)


def _text(*argv: str, **environ: str) -> str:
    result = _call(*argv, **environ)
    assert result.exit_code == 0, result.output
    return result.stdout


def _json(*argv: str) -> dict[str, Any]:
    found = json.loads(_text(*argv, *A30, "--json"))
    assert found.pop("schema_version") == 1
    return cast("dict[str, Any]", found)


def _cut() -> str:
    return cast("str", _json("show")["gpus"][0]["cut"])


@pytest.mark.parametrize("argv", [(), ("show",), ("plan",), ("apply",), ("restore",)])
def test_help(argv: tuple[str, ...]) -> None:
    text = _text(*argv, "--help")
    assert f"Usage: heteromig mig {' '.join(argv)}".rstrip() in text
    if not argv:
        assert all(name in text for name in ("show", "plan", "apply", "restore"))


def test_show_for_people() -> None:
    text = _text("show", HETEROMIG_SLICES="sim:a30/2g.12gb,2x1g.6gb;h100-sxm-80gb")
    first, second = text.split("\n\n")
    assert first.splitlines()[0].startswith("GPU 0  Simulated A30  SIM-GPU-")
    assert first.splitlines()[0].endswith("MIG on  SIMULATED")
    assert "  cut into  2g.12gb@0,1g.6gb@2,1g.6gb@3" in first
    assert "    2g.12gb       @0  GI  1  CI 0  SIM-MIG-" in first
    assert "    2g.12gb+me    id  6  at most 1  at 0,2             28 SMs  11.7 GiB" in first
    assert second.startswith("GPU 1  Simulated H100 80GB HBM3  SIM-GPU-")
    assert len(_text("show", "--gpu", "1", HETEROMIG_SLICES="sim:2xa30").split("\n\n")) == 1


def test_show_for_programs() -> None:
    found = _json("show")
    assert found["simulated"]
    (gpu,) = found["gpus"]
    assert gpu["cut"] == FOUR
    assert [device["start"] for device in gpu["devices"]] == [0, 1, 2, 3]
    assert {profile["name"]: profile["starts"] for profile in gpu["profiles"]}["2g.12gb"] == [0, 2]
    assert gpu["journal"] is None


def test_plan_changes_nothing(tmp_path: Path) -> None:
    text = _text("plan", "2g.12gb@2,2x1g.6gb", *A30)
    assert f"  is cut into       {FOUR}" in text
    assert "  would be cut into 1g.6gb@0,1g.6gb@1,2g.12gb@2" in text
    assert "    6. make a compute instance of 2g.12gb@2" in text
    assert "nothing to do" in _text("plan", "4x1g.6gb", *A30)
    assert len(_json("plan", "4g.24gb")["plan"]["steps"]) == 10
    assert list(tmp_path.iterdir()) == []


def test_there_and_back(tmp_path: Path) -> None:
    text = _text("apply", "2g.12gb@2,2x1g.6gb", *A30)
    assert "is cut into 1g.6gb@0,1g.6gb@1,2g.12gb@2.  SIMULATED" in text
    lines = text.splitlines()
    assert lines[1].endswith("  as before")
    assert lines[3].endswith("  new")
    assert lines[4].startswith("  1g.6gb@2        gone, was SIM-MIG-")
    (journal,) = (tmp_path / "runs" / ".layouts").iterdir()
    assert lines[-1] == f"It is cut back with: heteromig mig restore {journal.relative_to(tmp_path)}"
    assert "heteromig cut it (applied); heteromig mig restore" in _text("show", *A30)
    assert "nothing was changed" in _text("apply", "2x1g.6gb,2g.12gb@2", *A30)

    slices = json.loads(CliRunner().invoke(app, ("slices", *A30, "--json")).stdout)["inventory"]["slices"]
    assert [one["profile"] for one in slices] == ["1g.6gb", "1g.6gb", "2g.12gb"]

    text = _text("restore", *A30)
    assert f"is cut into {FOUR}.  SIMULATED" in text
    assert "was SIM-MIG-" in text
    assert _cut() == FOUR
    assert _text("restore", *A30) == "Nothing to restore: heteromig cut no GPU.\n"
    assert _text("restore", str(journal)) == f"Nothing to restore: {journal} was closed before.\n"


def test_there_and_back_for_programs(tmp_path: Path) -> None:
    applied = _json("apply", "4g.24gb", "--journal", "here.json")
    assert applied["simulated"]
    assert applied["journal"] == "here.json"
    assert applied["outcome"]["changed"]
    assert [one["after"] is None for one in applied["outcome"]["replaced"]] == [False, True, True, True, True]
    assert (tmp_path / "here.json").exists()
    assert _json("restore") == {"restored": []}
    found = json.loads(_text("restore", "here.json", "--json"))
    (restored,) = found["restored"]
    assert (restored["simulated"], restored["forgotten"], restored["outcome"]["changed"]) == (True, False, True)
    assert _cut() == FOUR


def test_what_is_forgotten_is_not_cut_back() -> None:
    _text("apply", "4g.24gb", *A30)
    assert "stays as it is" in _text("restore", "--forget", *A30)
    assert _cut() == "4g.24gb@0"
    assert "Nothing to restore" in _text("restore", *A30)


def test_one_gpu_that_cannot_be_cut_back_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    two = ("--slices", "sim:2xa30")
    for gpu in ("0", "1"):
        _text("apply", "4g.24gb", *two, "--gpu", gpu)
    first, second = sorted((tmp_path / "runs" / ".layouts").iterdir())
    entry = json.loads(first.read_text())
    for intact in ("before", "asked"):
        entry[intact] = []
    first.write_text(json.dumps({**entry, "asked": [[]]}))
    result = _call("restore", str(first), str(second))
    assert result.exit_code == 7
    assert "Somebody else has cut" in result.stderr
    assert result.stdout.count("is cut into") == 1
    shown = json.loads(_text("show", *two, "--json"))["gpus"]
    assert sorted(one["cut"] for one in shown) == [FOUR, "4g.24gb@0"]


@pytest.mark.parametrize(
    ("argv", "error", "says"),
    [
        (("apply", "5x1g.6gb", *A30), UsageError, "The nearest layout that fits is 4x1g.6gb."),
        (("plan", "none.yaml:x", *A30), UsageError, "none.yaml cannot be read: No such file"),
        (("show", "--slices", "gpu"), UsageError, "about GPUs without MIG"),
        (("show", "--gpu", "7", *A30), UsageError, "--gpu 7 is none of the GPUs"),
        (("plan", "4g.24gb", "--slices", "sim:2xa30"), UsageError, "choose it with --gpu"),
        (("restore", "nowhere", *A30), UsageError, "There is no journal"),
        (("restore", "--gpu", "0", "x.json", *A30), UsageError, "not both"),
        (("apply", "4g.24gb", "--journal", "/proc/none/x.json", *A30), PreflightError, "cannot be written"),
    ],
)
def test_refusals(argv: tuple[str, ...], error: type[HeteromigError], says: str) -> None:
    with pytest.raises(error) as refused:
        _call(*argv)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("plan", "3x2g.12gb", *A30), 2, "heteromig: The layout '3x2g.12gb' asks for 3 times 2g.12gb"),
        (("apply",), 2, "LAYOUT"),
        (
            ("apply", "4g.24gb", *A30, "--journal", "/proc/none/x"),
            7,
            "heteromig: The journal of the layout /proc/none/x",
        ),
        (("restore", *A30), 0, ""),
    ],
)
def test_exit_codes(argv: tuple[str, ...], code: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heteromig", "mig", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
