"""Requests that cannot be met: a clear sentence, the right code, no traceback, nothing left, nothing overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.conftest import Say
from tests.e2e.product import BOARD, REPOSITORY, processes_with


def _refused(say: Say, exit_code: int, *argv: str, **environ: str) -> str:
    command = say(*argv, environ=environ)
    finished = command.finish()
    text = " ".join((finished.stderr + finished.stdout).split())
    assert finished.exit_code == exit_code, text
    assert "Traceback" not in text
    assert processes_with(str(command.home)) == {}
    return text


RUN = ("run", "--slices", BOARD, "--runs-dir", "runs")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--main-benchmark", "resnet"), "resnet50"),
        (("--main-scenario", "sever"), "server"),
        (("--main-accuracy", "98"), "99"),
        (("--slices", "sim:a30/9x1g.6gb"), "a30"),
        (("--slices", "sim:a300"), "a30"),
        (("--harness", "loadgn"), "did you mean 'loadgen'?"),
        (("--main-benchmark-duration", "ten"), "--main-benchmark-duration: 'ten' is not a duration"),
        (("--main-benchmark-duration", "99999h"), "at most 8784h"),
        (("--main-target-qps", "-1"), "--main-target-qps is -1"),
        (("--main-target-qps", "5", "--main-mode", "accuracy"), "--main-target-qps goes with --main-mode performance"),
        (("--background-benchmarks", "dlrm,edge"), "'edge' is a set and stands alone"),
        (("--background-benchmarks", ""), "--background-benchmarks is empty"),
        (("--sample-period", "1ms"), "at least 100 ms"),
        (("--config", "nowhere.toml"), "nowhere.toml cannot be read: No such file"),
        (("--slices", "mig", "--sim-faults", "x"), "--sim-faults rehearses faults of simulated slices"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_usage_error_before_anything_is_made(say: Say, tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    assert words in _refused(say, 2, *RUN, *flags)
    assert not (tmp_path / "runs").exists()


def test_list_longer_than_the_free_slices(say: Say) -> None:
    text = _refused(say, 2, *RUN, "--background-benchmarks", "dlrm,rnnt,bert,bert")
    assert "lists 4 benchmarks, but only 3 slices are free" in text


def test_one_slice_is_too_few(say: Say) -> None:
    text = _refused(say, 7, *RUN, "--slices", "sim:a30/1x4g.24gb")
    assert "needs at least 2" in text


def test_no_driver(say: Say) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    text = _refused(say, 7, "run", "--slices", "mig", "--runs-dir", "runs")
    assert "NVML" in text
    assert "--slices sim:" in text
    assert "NVML" in _refused(say, 7, "plan", "--slices", "mig")
    assert "NVML" in _refused(say, 7, "slices", "--slices", "mig")


def test_runs_directory_that_is_a_file(say: Say, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    text = _refused(say, 2, *RUN)
    assert "No run directory can be made in" in text
    assert "--runs-dir" in text
    assert (tmp_path / "runs").read_text() == "mine"


def test_without_loadgen_installed(tmp_path: Path) -> None:
    """An installation without the extra: all that is installed here but LoadGen."""
    site = tmp_path / "site"
    site.mkdir()
    for entry in os.scandir(sysconfig.get_paths()["purelib"]):
        if not entry.name.startswith(("mlperf_loadgen", "mlcommons_loadgen", "__editable__", "heteromig")):
            (site / entry.name).symlink_to(entry.path)
    finished = subprocess.run(
        (sys.executable, "-S", "-m", "heteromig", "run", "--slices", BOARD),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 7, finished.stderr
    assert "needs mlperf_loadgen, which is not installed: pip install 'heteromig[loadgen]'" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "runs").exists()
