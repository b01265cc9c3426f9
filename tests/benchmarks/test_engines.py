from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from heteromig.benchmarks import engines, runtimes
from heteromig.benchmarks.engines import EngineState, EngineStatus
from heteromig.benchmarks.runtimes import Device, runtime_version
from heteromig.core.errors import PreflightError
from tests.benchmarks import pytorch
from tests.benchmarks.program import PROFILE


def inspect(path: Path, accuracy: str = "99.9", profile: str = PROFILE) -> EngineState:
    return engines.inspect_engine(path, benchmark="bert", scenario="offline", accuracy=accuracy, profile=profile)


def rewrite(path: Path, **changes: object) -> None:
    manifest = msgspec.json.decode((path / engines.MANIFEST).read_bytes())
    (path / engines.MANIFEST).write_bytes(msgspec.json.encode({**manifest, **changes}))


def test_a_built_engine_is_ok_and_its_manifest_names_it(bert: Path) -> None:
    state = inspect(bert)
    assert state.status is EngineStatus.OK
    assert state.manifest is not None
    assert (state.manifest.benchmark, state.manifest.runtime) == ("bert", runtime_version(Device.CPU))
    assert {path.name for path in bert.iterdir()} == {engines.MANIFEST, *state.manifest.files}
    assert all(path.stat().st_size < 5_000_000 for path in bert.glob("*.onnx"))


def test_no_engine_is_missing(tmp_path: Path) -> None:
    state = inspect(tmp_path / "none")
    assert state.status is EngineStatus.MISSING
    assert "There is no engine at" in state.reason


def test_a_file_where_the_directory_should_be_is_missing(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("no directory")
    assert inspect(tmp_path / "engine").status is EngineStatus.MISSING


def test_an_engine_for_other_fields_is_stale(bert: Path) -> None:
    assert inspect(bert, accuracy="99").status is EngineStatus.STALE
    state = inspect(bert, profile="2g.20gb")
    assert state.status is EngineStatus.STALE
    assert "profile '1g.10gb', wanted is '2g.20gb'" in state.reason


@pytest.mark.parametrize("field", ["definition", "runtime", "schema_version"])
def test_an_engine_of_another_time_is_stale(bert: Path, field: str) -> None:
    rewrite(bert, **{field: 0 if field == "schema_version" else "older"})
    state = inspect(bert)
    assert state.status is EngineStatus.STALE
    assert field in state.reason
    assert state.manifest is None


@pytest.mark.parametrize("name", [engines.ENGINES[Device.CPU], engines.SAMPLES, engines.REFERENCE])
def test_one_flipped_bit_is_corrupt(bert: Path, name: str) -> None:
    data = bytearray((bert / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bert / name).write_bytes(data)
    state = inspect(bert)
    assert state.status is EngineStatus.CORRUPT
    assert f"{name} does not have the SHA-256" in state.reason


def test_a_short_file_is_corrupt(bert: Path) -> None:
    with (bert / engines.ENGINES[Device.CPU]).open("r+b") as file:
        file.truncate(1000)
    assert "has 1000 bytes, the manifest says" in inspect(bert).reason


def test_a_missing_file_is_corrupt(bert: Path) -> None:
    (bert / engines.SAMPLES).unlink()
    assert inspect(bert).status is EngineStatus.CORRUPT


def test_a_directory_without_manifest_is_corrupt(bert: Path) -> None:
    (bert / engines.MANIFEST).unlink()
    assert inspect(bert).status is EngineStatus.CORRUPT


def test_a_manifest_that_cannot_be_read_is_corrupt(bert: Path) -> None:
    (bert / engines.MANIFEST).unlink()
    (bert / engines.MANIFEST).mkdir()
    assert "cannot be read" in inspect(bert).reason


def test_a_cut_manifest_is_corrupt(bert: Path) -> None:
    (bert / engines.MANIFEST).write_bytes((bert / engines.MANIFEST).read_bytes()[:100])
    assert "is not a manifest" in inspect(bert).reason


def test_a_manifest_that_leaves_a_file_out_is_corrupt(bert: Path) -> None:
    rewrite(bert, files={})
    assert "does not list" in inspect(bert).reason


def test_a_manifest_that_contradicts_itself_is_corrupt(bert: Path) -> None:
    rewrite(bert, engine_sha256="0" * 64)
    assert "contradicts itself" in inspect(bert).reason


# Engines for a GPU

H100 = "NVIDIA H100 80GB HBM3"
TORCH = "2.11.0+cu130"


def inspect_for(gpu: str, path: Path, profile: str = PROFILE) -> EngineState:
    return engines.inspect_engine(
        path, benchmark="bert", scenario="offline", accuracy="99.9", profile=profile, device=Device.CUDA, gpu=gpu
    )


@pytest.fixture
def on_gpu(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that says that it was built on an H100."""
    pytorch.prefer(pytorch.install(tmp_path / "site", TORCH), monkeypatch)
    (bert / engines.ENGINES[Device.CPU]).rename(bert / engines.ENGINES[Device.CUDA])
    manifest = msgspec.json.decode((bert / engines.MANIFEST).read_bytes(), type=engines.Manifest)
    files = {
        engines.ENGINES[Device.CUDA] if name == engines.ENGINES[Device.CPU] else name: record
        for name, record in manifest.files.items()
    }
    manifest = msgspec.structs.replace(
        manifest,
        device=Device.CUDA,
        gpu=H100,
        compute_capability="9.0",
        definition=engines.definition_hash(Device.CUDA),
        runtime=f"torch-{TORCH}",
        files=files,
    )
    (bert / engines.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return bert


def test_an_engine_for_this_gpu_is_ok(on_gpu: Path) -> None:
    state = inspect_for(H100, on_gpu)
    assert state.status is EngineStatus.OK, state.reason


def test_an_engine_is_for_one_product_and_one_profile(on_gpu: Path) -> None:
    state = inspect_for("NVIDIA A100-SXM4-80GB", on_gpu)
    assert state.status is EngineStatus.STALE
    assert f"has gpu '{H100}', wanted is 'NVIDIA A100-SXM4-80GB'" in state.reason
    assert inspect_for(H100, on_gpu, "3g.40gb").status is EngineStatus.STALE


def test_another_pytorch_makes_it_stale(on_gpu: Path, tmp_path: Path) -> None:
    pytorch.install(tmp_path / "site", "2.12.1+cu130")
    state = inspect_for(H100, on_gpu)
    assert state.status is EngineStatus.STALE
    assert f"has runtime 'torch-{TORCH}', wanted is 'torch-2.12.1+cu130'" in state.reason


def test_neither_device_takes_the_engine_of_the_other(on_gpu: Path) -> None:
    state = inspect(on_gpu)
    assert state.status is EngineStatus.STALE
    assert "has device 'cuda', wanted is 'cpu'" in state.reason
    rewrite(on_gpu, device="cpu")
    state = inspect_for(H100, on_gpu)
    assert state.status is EngineStatus.STALE
    assert "has device 'cpu', wanted is 'cuda'" in state.reason


def test_a_flipped_bit_of_a_program_is_corrupt(on_gpu: Path) -> None:
    program = on_gpu / engines.ENGINES[Device.CUDA]
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    assert inspect_for(H100, on_gpu).status is EngineStatus.CORRUPT


def test_each_product_and_device_makes_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch.prefer(pytorch.install(tmp_path, TORCH), monkeypatch)
    what = ("bert", "offline", "99", "1g.10gb")
    h100 = engines.engine_key(*what, device=Device.CUDA, gpu=H100)
    a100 = engines.engine_key(*what, device=Device.CUDA, gpu="NVIDIA A100-SXM4-80GB")
    assert len({h100, a100, engines.engine_key(*what)}) == 3
    assert f"-NVIDIA_H100_80GB_HBM3-torch-{TORCH}-" in h100


def test_each_field_makes_another_key() -> None:
    keys = {
        engines.engine_key("bert", "offline", "99", "1g.10gb"),
        engines.engine_key("dlrm", "offline", "99", "1g.10gb"),
        engines.engine_key("bert", "server", "99", "1g.10gb"),
        engines.engine_key("bert", "offline", "99.9", "1g.10gb"),
        engines.engine_key("bert", "offline", "99", "2g.20gb"),
    }
    assert len(keys) == 5
    assert all(runtime_version(Device.CPU) in key and engines.definition_hash(Device.CPU) in key for key in keys)


def test_a_profile_cannot_lead_out_of_the_cache() -> None:
    assert "/" not in engines.engine_key("bert", "offline", "99", "../../1g.5gb+me")


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "ONNXRUNTIME", "no-such-runtime")
    with pytest.raises(PreflightError, match=r"pip install 'heteromig\[loadgen\]'"):
        runtime_version(Device.CPU)


def test_what_the_controller_imports_loads_no_runtime() -> None:
    code = (
        "import sys, heteromig.harnesses, heteromig.benchmarks.catalog\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'mlperf_loadgen', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
