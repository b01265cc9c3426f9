"""Commands that only look: they list and plan shares without starting a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.product import Command, processes_with
from tests.mps.conftest import PROGRAMS
from tests.nvml_library.state import State


def heteromig(home: Path, environ: dict[str, str], *argv: str) -> str:
    finished = Command(home, argv, environ=environ, module="heteromig").finish()
    assert finished.exit_code == 0, finished.stderr
    assert processes_with("nvidia-cuda-mps-control -f") == {}
    return finished.stdout


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Without the program: whoever looks does not need it."""
    return {name: value for name, value in environ.items() if name != "PATH"}


def test_shares_are_listed(tmp_path: Path, environ: dict[str, str], machine: State) -> None:
    text = heteromig(tmp_path, environ, "slices", "--slices", "mps:7x14,8gib")
    assert text.count(f"MPS-{machine.gpu_uuid()}/") == 7
    assert "mps-14" in text
    assert "isolation: soft" in text
    listed = json.loads(heteromig(tmp_path, environ, "slices", "--slices", "mps:2x50", "--gpu", "0", "--json"))
    assert [(one["profile"], one["sm_count"], one["memory_bytes"]) for one in listed["inventory"]["slices"]] == [
        ("mps-50", None, None)
    ] * 2
    assert [(one["occupants"], one["memory_used_bytes"]) for one in listed["sample"]["slices"]] == [(None, None)] * 2


def test_a_plan_shows_what_workers_will_find(tmp_path: Path, environ: dict[str, str], machine: State) -> None:
    (tmp_path / "programs.toml").write_text(PROGRAMS)
    argv = ("plan", "--config", "programs.toml", "--slices", "mps:3x14,8gib", "--background-benchmarks", "steady")
    text = heteromig(tmp_path, environ, *argv)
    assert text.startswith("ISOLATION: soft.")
    assert f"CUDA_VISIBLE_DEVICES={machine.gpu_uuid()}" in text
    planned = json.loads(heteromig(tmp_path, environ, *argv, "--json"))
    assert planned["isolation"] == "soft"
    for worker in planned["workers"]:
        assert worker["slice_uuid"].startswith(f"MPS-{machine.gpu_uuid()}/")
        assert worker["env"]["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "14"
        assert worker["env"]["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M"
        assert worker["env"]["CUDA_MPS_PIPE_DIRECTORY"] == "<pipes>"
        assert worker["env"]["CUDA_MPS_LOG_DIRECTORY"].endswith("/runs/<run>/mps")
    assert not (tmp_path / "runs").exists()


def test_a_plan_can_name_the_gpu(tmp_path: Path, environ: dict[str, str], machine: State) -> None:
    (tmp_path / "programs.toml").write_text(PROGRAMS)
    argv = ("plan", "--config", "programs.toml", "--slices", "mps:3x14", "--background-benchmarks", "steady", "--gpu")
    assert machine.gpu_uuid() in heteromig(tmp_path, environ, *argv, machine.gpu_uuid())
    refused = Command(tmp_path, (*argv, "5"), environ=environ, module="heteromig").finish()
    assert refused.exit_code == 2
    assert "--gpu 5 is none of the GPUs of this machine" in refused.stderr
