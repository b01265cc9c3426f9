"""The engine of real slices: what can be tested without a GPU, and then on one, where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heteromig.benchmarks import engines
from heteromig.benchmarks.catalog import BENCHMARKS
from tests.benchmarks import pytorch
from tests.benchmarks.program import DEADLINE_S, build, detail, finish, started, what

H100 = "NVIDIA H100 80GB HBM3"
ON_H100 = ("--device", "cuda", "--gpu", H100)

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture
def find_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let children of this test find a PyTorch with CUDA that cannot be imported."""
    folder = pytorch.install(tmp_path / "site")
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), inherited))))
    return folder


@pytest.fixture(scope="module")
def graphs() -> dict[str, dict[str, float]]:
    script = Path(__file__).with_name("torch_graphs.py")
    done = subprocess.run(
        (sys.executable, str(script)),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


@needs_torch
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_program_in_fp32_computes_what_the_graph_says(graphs: dict[str, Any], benchmark: str) -> None:
    assert graphs[f"{benchmark} fp32"]["agreement_percent"] >= 99.9999
    assert graphs[f"{benchmark} fp32"]["error"] < 1e-5


@needs_torch
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_program_in_fp16_is_accurate_enough_for_99(graphs: dict[str, Any], benchmark: str) -> None:
    assert graphs[f"{benchmark} fp16"]["agreement_percent"] >= 99


@needs_torch
def test_without_a_gpu_pytorch_says_what_to_look_at() -> None:
    code = (
        "from heteromig.benchmarks.torch_cuda import TorchCuda\n"
        "from heteromig.core.errors import PreflightError\n"
        "try: TorchCuda()\n"
        "except PreflightError as error: print(error)"
    )
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "MIG-none"}
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True, env=environ)
    assert "cannot use a GPU (CUDA_VISIBLE_DEVICES is MIG-none): " in done.stdout
    assert "Check that nvidia-smi lists it, " in done.stdout


@pytest.mark.usefixtures("find_pytorch")
def test_a_cpu_never_has_pytorch_imported(tmp_path: Path, log_dir: Path) -> None:
    assert build("dlrm", "offline", "99", tmp_path / "engine").returncode == 0
    arguments = ("--engine", tmp_path / "engine", "--log-dir", log_dir, "--min-duration-ms", 100, "--warmup-s", 0.1)
    done = finish("run", *what("dlrm", "offline", "99"), *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((log_dir / "device.json").read_text())["gpu"] is None


@pytest.mark.usefixtures("find_pytorch")
def test_a_gpu_has_it_imported(tmp_path: Path) -> None:
    done = finish("build", *what("dlrm", "offline", "99"), *ON_H100, "--output", tmp_path / "engine")
    assert done.returncode == 1
    assert pytorch.IMPORTED in done.stderr
    assert not (tmp_path / "engine").exists()


@pytest.mark.usefixtures("find_pytorch")
def test_a_cpu_engine_is_refused_on_a_gpu(bert: Path, log_dir: Path) -> None:
    arguments = ("--engine", bert, "--log-dir", log_dir, "--min-duration-ms", 100)
    done = finish("run", *what("bert", "offline", "99.9"), *ON_H100, *arguments)
    assert done.returncode == 7
    assert "has device 'cpu', wanted is 'cuda'. It is stale and is not used: build it with" in done.stderr
    assert f"--device cuda --gpu '{H100}' --output {bert}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pytorch_without_cuda_is_refused(tmp_path: Path, find_pytorch: Path) -> None:
    pytorch.install(find_pytorch, "2.13.0+cpu", None)
    done = finish("build", *what("bert", "offline", "99"), *ON_H100, "--output", tmp_path / "engine")
    assert done.returncode == 7
    assert done.stderr == (
        "error: PyTorch 2.13.0+cpu is built without CUDA and uses no GPU: install PyTorch built for CUDA "
        "(pip install torch), or use simulated slices: --slices sim:a100-sxm-80gb.\n"
    )
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("why", [ImportError, OSError])
def test_a_pytorch_that_cannot_be_loaded_is_refused(tmp_path: Path, find_pytorch: Path, why: type[Exception]) -> None:
    pytorch.install(find_pytorch, when_imported=why("libcudart.so.13: cannot open shared object file"))
    done = finish("build", *what("bert", "offline", "99"), *ON_H100, "--output", tmp_path / "engine")
    assert done.returncode == 7
    assert done.stderr == (
        "error: torch-2.11.0+cu130 is installed and cannot be loaded: libcudart.so.13: cannot open shared object file. "
        "Install it again (pip install --force-reinstall torch), or use simulated slices: --slices sim:a100-sxm-80gb.\n"
    )


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_no_pytorch_is_refused(tmp_path: Path) -> None:
    done = finish("build", *what("bert", "offline", "99"), *ON_H100, "--output", tmp_path / "engine")
    assert done.returncode == 7
    assert (
        "error: Engines for a GPU need PyTorch, which is not installed: install PyTorch built for CUDA" in done.stderr
    )


@pytest.mark.parametrize("some", [("--device", "cuda"), ("--gpu", H100), ("--device", "cpu", "--gpu", H100)])
def test_a_gpu_needs_its_name_and_a_name_its_gpu(tmp_path: Path, some: tuple[str, ...]) -> None:
    done = finish("build", *what("bert", "offline", "99"), *some, "--output", tmp_path / "engine")
    assert done.returncode == 2
    assert "--device cuda and --gpu NAME go together" in done.stderr


def test_a_device_is_one_of_two(tmp_path: Path) -> None:
    done = finish("build", *what("bert", "offline", "99"), "--device", "tpu", "--output", tmp_path / "engine")
    assert done.returncode == 2
    assert "argument --device: 'tpu' is neither cpu nor cuda" in done.stderr


# On a GPU


@pytest.fixture(scope="session")
def gpu() -> str:
    """The product that PyTorch computes on; the tests that ask for it are skipped where there is none."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    if not done.stdout.strip():
        pytest.skip("PyTorch finds no GPU")
    return done.stdout.strip()


class _OnGpu:
    """Engines for the GPU that is there, each built once, and runs with them."""

    def __init__(self, gpu: str, folder: Path) -> None:
        self.device = ("--device", "cuda", "--gpu", gpu)
        self._folder = folder

    def engine(self, *kind: str) -> Path:
        path = self._folder / "-".join(kind)
        if not path.exists():
            done = finish("build", *what(*kind), *self.device, "--output", path)
            assert done.returncode == 0, done.stderr
        return path

    def arguments(self, kind: tuple[str, str, str], log_dir: Path, *, duration_ms: int) -> tuple[str | Path | int, ...]:
        place = ("--engine", self.engine(*kind), "--log-dir", log_dir)
        return ("run", *what(*kind), *self.device, *place, "--min-duration-ms", duration_ms)


@pytest.fixture(scope="module")
def on_gpu(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> _OnGpu:
    return _OnGpu(gpu, tmp_path_factory.mktemp("gpu-engines"))


def test_a_gpu_passes_accuracy(on_gpu: _OnGpu, log_dir: Path) -> None:
    done = finish(*on_gpu.arguments(("resnet50", "offline", "99"), log_dir, duration_ms=100), "--mode", "accuracy")
    assert done.returncode == 0, done.stderr
    assert json.loads((log_dir / "accuracy.json").read_text())["passed"] is True


def test_offline_on_a_gpu_is_valid_and_says_where_it_ran(gpu: str, on_gpu: _OnGpu, log_dir: Path) -> None:
    kind = ("resnet50", "offline", "99")
    done = finish(*on_gpu.arguments(kind, log_dir, duration_ms=1000))
    assert done.returncode == 0, done.stderr
    assert detail(log_dir)["result_validity"] == "VALID"
    device = json.loads((log_dir / "device.json").read_text())
    manifest = json.loads((on_gpu.engine(*kind) / engines.MANIFEST).read_text())
    assert (device["device"], device["engine"], device["gpu"]["name"]) == ("cuda", "torch", gpu)
    assert device["gpu"]["compute_capability"] == manifest["compute_capability"]
    assert (device["batch"], device["inputs_per_sample"]) == (manifest["batch"], manifest["group"])
    assert manifest["accuracy_percent"] >= 99


def test_a_stop_on_a_gpu_is_a_clean_one(on_gpu: _OnGpu, log_dir: Path) -> None:
    kind = ("resnet50", "offline", "99")
    with started(*on_gpu.arguments(kind, log_dir, duration_ms=60_000)) as process:
        process.read_until("heartbeat: ")
        process.signal(signal.SIGTERM)
        assert process.end() == 0
    assert json.loads((log_dir / "outcome.json").read_text())["not_computed"] > 0
    assert "power_end" in detail(log_dir)


def test_an_engine_of_another_compute_capability_is_refused(on_gpu: _OnGpu, tmp_path: Path, log_dir: Path) -> None:
    kind = ("resnet50", "offline", "99")
    shutil.copytree(on_gpu.engine(*kind), tmp_path / "other")
    path = tmp_path / "other" / engines.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "compute_capability": "1.0"}))
    done = finish(*on_gpu.arguments(kind, log_dir, duration_ms=100), "--engine", tmp_path / "other")
    assert done.returncode == 7
    assert "was built for compute capability 1.0, and this GPU has " in done.stderr


def test_server_on_a_gpu_is_valid(on_gpu: _OnGpu, log_dir: Path) -> None:
    done = finish(*on_gpu.arguments(("bert", "server", "99"), log_dir, duration_ms=1000))
    assert done.returncode == 0, done.stderr
    assert detail(log_dir)["result_validity"] == "VALID"
