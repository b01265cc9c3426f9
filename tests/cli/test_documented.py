"""The commands of the HeteroMIG document with `heteromig run` for the script, as `--dryrun` prints them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heteromig.cli.main import app

COMMON = "--background_benchmarks=datacenter --main_benchmark=ssd-resnet34 --main_scenario=server"
DOCUMENT = [
    (f"--main_action=run_harness {COMMON}", "run_harness", ""),
    (
        f'--main_action=run_harness {COMMON} --main_benchmark_runargs="--test_mode=AccuracyOnly"',
        "run_harness",
        " --test_mode=AccuracyOnly",
    ),
    (f"--main_action=run_audit_test01 {COMMON}", "run_audit_test01", ""),
]
"""Options, and main's target with what is at the end of its RUN_ARGS."""

COMMAND = re.compile(
    r"CUDA_VISIBLE_DEVICES=(?P<slice>\S+) LOG_DIR=(?P<log_dir>\S+) make (?P<target>\S+) RUN_ARGS='(?P<run_args>[^']*)'"
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's tree, as far as it is recognised, with this process in it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "launch_heterogeneous_mig.py").touch()
    (tmp_path / "Makefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HETEROMIG_SLICES", "sim:a100-sxm-80gb")
    return tmp_path


def _dry_run(*argv: str) -> str:
    result = CliRunner().invoke(app, ("run", *argv, "--dryrun"))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("words", "target", "own"), DOCUMENT)
def test_documented_command(tree: Path, words: str, target: str, own: str) -> None:
    found = [match.groupdict() for match in COMMAND.finditer(_dry_run(*shlex.split(words)))]
    assert [one["target"] for one in found] == ["generate_engines"] * 2 + ["run_harness"] * 6 + [target]
    builds, backgrounds, last = found[:2], found[2:-1], found[-1]
    assert {one["run_args"] for one in builds} == {
        "--scenarios=offline,server --benchmarks=resnet50,ssd-resnet34,bert,rnnt --config_ver=hetero",
        "--scenarios=offline --benchmarks=dlrm,3d-unet --config_ver=hetero_high_accuracy",
    }
    assert len({one["slice"] for one in backgrounds} | {last["slice"]}) == 7
    assert {one["slice"] for one in builds} <= {one["slice"] for one in found[2:]}
    assert len({one["log_dir"] for one in found}) == 9
    names = []
    for one in backgrounds:
        given = re.fullmatch(
            r"--benchmarks=(\S+) --scenarios=offline --config_ver=(\S+) --min_duration=\d+ --min_query_count=1",
            one["run_args"],
        )
        assert given is not None
        names.append(given[1])
        assert given[2] == ("hetero_high_accuracy" if given[1] in {"dlrm", "3d-unet"} else "hetero")
    assert set(names) == {"resnet50", "bert", "rnnt", "dlrm", "3d-unet"}
    wanted = f"--benchmarks=ssd-resnet34 --scenarios=server --config_ver=hetero --min_duration=600000{own}"
    assert last["run_args"] == wanted
    assert list(tree.glob("runs*")) == []


def test_a_command_can_be_pasted(tree: Path) -> None:
    (tree / "Makefile").write_text('run_harness:\n\t@echo "$$CUDA_VISIBLE_DEVICES" $(RUN_ARGS)\n', encoding="utf-8")
    flags = ("--background_benchmarks=none", "--main_benchmark_runargs", "--a='$b' --c_d=e")
    text = _dry_run(*flags, "--main_benchmark_cmd_prefix=nice -n 1")
    pasted = text[text.index("# worker 0: main") :]
    done = subprocess.run(["bash", "-c", pasted], capture_output=True, check=True, text=True, cwd=tree)
    uuid, *words = done.stdout.split()
    assert uuid in text
    assert words == [
        *("--benchmarks=resnet50", "--scenarios=offline", "--config_ver=hetero", "--min_duration=600000"),
        *("--a=$b", "--c_d=e"),
    ]
