"""Runs that finish and prove nothing: main not VALID, or not accompanied."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from heteromig.benchmarks.engines import ENGINES, MANIFEST, file_record
from heteromig.benchmarks.runtimes import Device
from heteromig.core import events as ev
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Start


@pytest.fixture
def own_engines(tmp_path: Path, engines: Path) -> Path:
    """A copy of the engines that a test may spoil."""
    return Path(shutil.copytree(engines, tmp_path / "engines"))


def _of(engines: Path, benchmark: str) -> Path:
    return max(engines.glob(f"{benchmark}-*"), key=lambda path: path.stat().st_mtime_ns)


def _edit_manifest(engine: Path, change: Callable[[dict[str, object]], None]) -> None:
    manifest = json.loads((engine / MANIFEST).read_text())
    change(manifest)
    (engine / MANIFEST).write_text(json.dumps(manifest))


def test_accuracy_run_passes_once_a_corrupt_engine_was_rebuilt(run: Start, own_engines: Path) -> None:
    spoilt = _of(own_engines, "dlrm") / ENGINES[Device.CPU]
    good = spoilt.read_bytes()
    spoilt.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    command = run("--main-mode", "accuracy", "--engines-dir", str(own_engines))
    record = command.expect(0)
    builds = [worker.benchmark for worker in record.workers if worker.role == "build"]
    assert builds == ["dlrm"]
    assert spoilt.read_bytes() != good[:-1] + bytes([good[-1] ^ 1])
    metrics = record.workers[0].metrics
    assert metrics["accuracy_percent"] >= metrics["accuracy_target_percent"] == 99.0
    assert verify_run(command.run_dir).verdict.exit_code == 0


def test_accuracy_run_fails_with_a_damaged_engine_and_never_uses_a_stale_one(run: Start, own_engines: Path) -> None:
    damaged, stale = _of(own_engines, "resnet50"), _of(own_engines, "dlrm")
    model = onnx.load(damaged / ENGINES[Device.CPU])
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim > 1:
            tensor.CopyFrom(
                numpy_helper.from_array(rng.permutation(weights.ravel()).reshape(weights.shape), tensor.name)
            )
    onnx.save(model, damaged / ENGINES[Device.CPU])
    record = file_record(damaged / ENGINES[Device.CPU])

    def rehash(manifest: dict[str, object]) -> None:
        files = manifest["files"]
        assert isinstance(files, dict)
        files[ENGINES[Device.CPU]] = {"bytes": record.bytes, "sha256": record.sha256}
        manifest["engine_sha256"] = record.sha256

    _edit_manifest(damaged, rehash)
    _edit_manifest(stale, lambda manifest: manifest.update(runtime="onnxruntime-0.0.1"))
    command = run("--main-mode", "accuracy", "--engines-dir", str(own_engines))
    run_record = command.expect(3, "below the target of 99 %")
    assert [worker.benchmark for worker in run_record.workers if worker.role == "build"] == ["dlrm"]
    assert "0.0.1" not in (stale / MANIFEST).read_text()
    assert run_record.overlap.proven
    assert verify_run(command.run_dir).verdict.exit_code == 3


def test_background_that_is_asked_for_too_little_ends_the_run_and_says_for_how_much_to_ask(run: Start) -> None:
    command = run("--main-benchmark-duration", "20s", "--background-benchmark-duration", "1s")
    record = command.expect(4, "left its timed section before main did", "--background-benchmark-duration")
    assert record.workers[0].stopped_by == "clean stop"
    assert not record.overlap.proven
    assert verify_run(command.run_dir).verdict.exit_code == 4


def test_main_that_is_too_fast_for_its_target_is_invalid_for_loadgens_reason(run: Start) -> None:
    command = run("--main-target-qps", "1", "--main-benchmark-duration", "2s")
    command.expect(3, "Main resnet50 is not VALID", "the run was shorter than min_duration")
    assert "Min duration satisfied : NO" in (command.run_dir / "workers/0-main-resnet50/stdout.log").read_text()
    assert verify_run(command.run_dir).verdict.exit_code == 3


def test_main_that_somebody_else_stopped_is_not_valid(run: Start) -> None:
    command = run("--main-benchmark-duration", "4s")
    command.wait_for(ev.TimedSectionBegan, worker=0)
    command.kill_worker(0, signum=signal.SIGTERM)
    command.expect(3, "Main resnet50 is not VALID: somebody stopped it", "completed without being computed")
    assert verify_run(command.run_dir).verdict.exit_code == 3


def test_too_little_slack_in_wait_mode(quick: Start) -> None:
    command = quick(
        "--background-benchmark-duration",
        "2500ms",
        "--main-benchmark-duration",
        "500ms",
        "--end-time-buffer-min",
        "10s",
    )
    command.expect(4, "less than --end-time-buffer-min (10 s)")
    assert verify_run(command.run_dir).verdict.exit_code == 4


def test_worker_whose_directory_cannot_be_made(quick: Start) -> None:
    command = quick(environ={"QUICK_OBSTACLE": "1"})
    command.expect(5, "The harness of background 1 (dlrm) could not be started", "File exists")
    assert (command.run_dir / "workers/1-background-dlrm").read_text() == "in the way"
    assert verify_run(command.run_dir).verdict.exit_code == 5
