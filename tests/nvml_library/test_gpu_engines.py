"""The embedded harness on slices that the stand-in library shows: which engines it wants, and when it has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks import pytorch
from tests.nvml_library.fixtures import MakeState, environment
from tests.nvml_library.state import State

CUT = "a100-sxm-80gb/3g.40gb,2x1g.10gb"
RUN = ("run", "--harness", "loadgen", "--slices", "mig", "--main-benchmark-duration", "1s", "--runs-dir", "runs")


@pytest.fixture
def machine(make_state: MakeState, library_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """What children of this test find as their NVML, and a PyTorch with CUDA that they must not import."""
    state = make_state(CUT)
    for name, value in environment(library_dir, state).items():
        monkeypatch.setenv(name, value)
    path = (str(pytorch.install(tmp_path / "site")), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.chdir(tmp_path)
    return state


def heteromig(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "heteromig", *arguments), capture_output=True, text=True, env=os.environ, check=False
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return " ".join((done.stderr + done.stdout).split())


def test_engines_are_for_the_gpu_and_each_profile(machine: State) -> None:
    done = heteromig("plan", *RUN[1:], "--json")
    assert done.returncode == 0, done.stderr
    made = msgspec.json.decode(done.stdout)
    assert [worker["slice_uuid"] for worker in sorted(made["workers"], key=lambda one: one["index"])] == (
        machine.slice_uuids()
    )
    product = "NVIDIA A100-SXM4-80GB"
    for worker in (*made["builds"], *made["workers"]):
        argv = worker["argv"]
        assert (argv[argv.index("--device") + 1], argv[argv.index("--gpu") + 1]) == ("cuda", product)
    outputs = [worker["argv"][worker["argv"].index("--output") + 1] for worker in made["builds"]]
    assert len(outputs) == 3
    assert all("-NVIDIA_A100-SXM4-80GB-torch-2.11.0+cu130-" in output for output in outputs)
    assert [profile in outputs[0] for profile in ("3g.40gb", "1g.10gb")] == [True, False]


@pytest.mark.parametrize("command", [RUN, ("build", *RUN[1:]), ("plan", *RUN[1:])])
@pytest.mark.usefixtures("machine")
def test_without_a_pytorch_for_the_gpu_nothing_is_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    pytorch.install(tmp_path / "site", "2.13.0+cpu", None)
    done = heteromig(*command)
    assert done.returncode == 7
    text = said(done)
    assert "install PyTorch built for CUDA (pip install torch), or use simulated slices: --slices sim:" in text


def test_what_is_wrong_with_the_devices_is_said_first(tmp_path: Path, machine: State) -> None:
    pytorch.install(tmp_path / "site", "2.13.0+cpu", None)
    machine.lose()
    done = heteromig(*RUN)
    assert done.returncode == 7
    assert "lost" in said(done).lower()
    assert "PyTorch" not in said(done)
