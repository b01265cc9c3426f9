from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from heteromig.benchmarks import engines
from heteromig.benchmarks.engines import EngineState, EngineStatus
from heteromig.core.errors import PreflightError
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
    assert (state.manifest.benchmark, state.manifest.runtime) == ("bert", engines.runtime_version())
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


def test_each_field_makes_another_key() -> None:
    keys = {
        engines.engine_key("bert", "offline", "99", "1g.10gb"),
        engines.engine_key("dlrm", "offline", "99", "1g.10gb"),
        engines.engine_key("bert", "server", "99", "1g.10gb"),
        engines.engine_key("bert", "offline", "99.9", "1g.10gb"),
        engines.engine_key("bert", "offline", "99", "2g.20gb"),
    }
    assert len(keys) == 5
    assert all(engines.runtime_version() in key and engines.definition_hash() in key for key in keys)


def test_a_profile_cannot_lead_out_of_the_cache() -> None:
    assert "/" not in engines.engine_key("bert", "offline", "99", "../../1g.5gb+me")


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "RUNTIME", "no-such-runtime")
    with pytest.raises(PreflightError, match=r"pip install 'heteromig\[loadgen\]'"):
        engines.runtime_version()


def test_what_the_controller_imports_loads_no_runtime() -> None:
    code = (
        "import sys, heteromig.benchmarks.engines, heteromig.benchmarks.catalog\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'mlperf_loadgen'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
