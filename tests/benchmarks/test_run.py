from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from heteromig.benchmarks import engines
from heteromig.benchmarks.catalog import BENCHMARKS
from heteromig.benchmarks.runtimes import Device
from tests.benchmarks.program import detail, finish, started, what

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.conftest import Engines

HEARTBEAT = re.compile(r"heartbeat: completed=\d+ samples_per_second=\d+\.\d monotonic_s=\d+\.\d{3}")
STOPPED = re.compile(r"Stopped cleanly: [1-9]\d* samples were completed without being computed\.")


def options(kind: tuple[str, str, str], engine: Path, log_dir: Path, min_duration_ms: int = 1500) -> list[Any]:
    return [
        "run",
        *what(*kind),
        *("--engine", engine, "--log-dir", log_dir),
        *("--min-duration-ms", min_duration_ms, "--warmup-s", 0.3),
    ]


def rehash(engine: Path) -> None:
    """Make the manifest agree with what the files hold now."""
    manifest = msgspec.json.decode((engine / engines.MANIFEST).read_bytes(), type=engines.Manifest)
    files = {name: engines.file_record(engine / name) for name in manifest.files}
    manifest = msgspec.structs.replace(
        manifest, files=files, engine_sha256=files[engines.ENGINES[manifest.device]].sha256
    )
    (engine / engines.MANIFEST).write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize("accuracy", ["99", "99.9"])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_passes_accuracy_at_both_levels(
    engine: Engines, log_dir: Path, benchmark: str, accuracy: str
) -> None:
    kind = (benchmark, "offline", accuracy)
    done = finish(*options(kind, engine(*kind), log_dir), "--mode", "accuracy")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((log_dir / "accuracy.json").read_text())
    assert verdict["passed"] is True
    assert verdict["target_percent"] == float(accuracy) <= verdict["value_percent"] <= 100
    assert verdict["samples"] == BENCHMARKS[benchmark].sample_count
    assert re.search(rf"(?m)^Accuracy: .* %, target {accuracy} %: PASSED$", done.stdout)


def test_a_server_that_is_too_slow_counts_the_late_samples_as_loadgen_does(engine: Engines, log_dir: Path) -> None:
    kind = ("resnet50", "server", "99")
    done = finish(*options(kind, engine(*kind), log_dir, 500), "--target-qps", 20_000, "--min-query-count", 6_000)
    assert done.returncode == 0, done.stderr
    late = [int(text) for text in re.findall(r"(?m)^heartbeat: .* over_latency=(\d+)$", done.stdout)]
    assert late == sorted(late)
    assert 0 < late[-1] <= detail(log_dir)["result_overlatency_query_count"]


def test_an_engine_with_altered_weights_fails_accuracy(bert: Path, log_dir: Path) -> None:
    model = onnx.load(bert / engines.ENGINES[Device.CPU])
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            noise = rng.standard_normal(values.shape) * values.std()
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    onnx.save(model, bert / engines.ENGINES[Device.CPU])
    rehash(bert)
    done = finish(*options(("bert", "offline", "99.9"), bert, log_dir), "--mode", "accuracy")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((log_dir / "accuracy.json").read_text())
    assert verdict["passed"] is False
    assert verdict["value_percent"] < 99
    assert "target 99.9 %: FAILED" in done.stdout


def test_offline_is_valid_and_says_what_happens(engine: Engines, log_dir: Path) -> None:
    kind = ("bert", "offline", "99")
    done = finish(*options(kind, engine(*kind), log_dir))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    milestones = [
        "Creating QSL.",
        "Setting up SUT.",
        "Starting warmup. Running for about 0.3 seconds.",
        "Starting running actual test.",
        "Result is : VALID",
        "Finished running actual test.",
    ]
    assert [line for line in lines if line in milestones] == milestones
    beats = [line for line in lines if line.startswith("heartbeat")]
    assert len(beats) >= 2
    assert all(HEARTBEAT.fullmatch(line) for line in beats)
    found = detail(log_dir)
    assert found["result_validity"] == "VALID"
    assert found["effective_min_duration_ms"] == 1500
    assert found["effective_qsl_rng_seed"] > 0
    device = json.loads((log_dir / "device.json").read_text())
    assert (device["device"], device["engine"]) == ("cpu", "onnxruntime")
    assert device["expected_qps"] > 0
    assert device["cpus"]
    assert device["engine_sha256"] == engines.file_record(engine(*kind) / engines.ENGINES[Device.CPU]).sha256


def test_server_is_valid(engine: Engines, log_dir: Path) -> None:
    kind = ("rnnt", "server", "99")
    done = finish(*options(kind, engine(*kind), log_dir, 1000))
    assert done.returncode == 0, done.stderr
    found = detail(log_dir)
    assert found["result_validity"] == "VALID", done.stdout
    assert found["effective_target_latency_ns"] == BENCHMARKS["rnnt"].server_latency_ns
    assert "Stopped" not in done.stdout


def test_server_measures_accuracy_too(engine: Engines, log_dir: Path) -> None:
    kind = ("rnnt", "server", "99")
    done = finish(*options(kind, engine(*kind), log_dir), "--mode", "accuracy")
    assert done.returncode == 0, done.stderr
    assert json.loads((log_dir / "accuracy.json").read_text())["passed"] is True


STREAMS = [("rnnt", "singlestream", "99"), ("ssd-mobilenet", "multistream", "99")]


@pytest.mark.parametrize(("kind", "samples", "estimate"), [(STREAMS[0], 1, "ss"), (STREAMS[1], 8, "ms")])
def test_a_stream_is_valid_and_its_latency_is_estimated(
    engine: Engines, log_dir: Path, kind: tuple[str, str, str], samples: int, estimate: str
) -> None:
    done = finish(*options(kind, engine(*kind), log_dir, 700))
    assert done.returncode == 0, done.stderr
    assert "Stopped" not in done.stdout
    found = detail(log_dir)
    assert found["effective_scenario"].lower() == kind[1]
    assert found["result_validity"] == "VALID", done.stdout
    assert found["early_stopping_met"] is True
    assert found["effective_samples_per_query"] == samples
    assert found[f"early_stopping_latency_{estimate}"] >= found["result_min_latency_ns"] > 0
    assert found["effective_min_query_count"] == {"ss": 64, "ms": 662}[estimate]
    beats = [line for line in done.stdout.splitlines() if line.startswith("heartbeat")]
    assert beats
    assert all(HEARTBEAT.fullmatch(line) for line in beats)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_measures_accuracy_too(engine: Engines, log_dir: Path, kind: tuple[str, str, str]) -> None:
    done = finish(*options(kind, engine(*kind), log_dir), "--mode", "accuracy")
    assert done.returncode == 0, done.stderr
    verdict = json.loads((log_dir / "accuracy.json").read_text())
    assert verdict["passed"] is True
    assert verdict["samples"] == BENCHMARKS[kind[0]].sample_count


def test_a_stream_that_runs_out_of_queries_is_invalid(engine: Engines, log_dir: Path) -> None:
    kind = STREAMS[0]
    done = finish(*options(kind, engine(*kind), log_dir, 1000), "--target-qps", 10)
    assert done.returncode == 0
    assert detail(log_dir)["generated_query_count"] == 64
    assert "Result is : INVALID" in done.stdout


def test_a_target_rate_replaces_the_calibrated_one(engine: Engines, log_dir: Path) -> None:
    kind = ("bert", "offline", "99")
    done = finish(*options(kind, engine(*kind), log_dir, 100), "--target-qps", 50, "--min-query-count", 20)
    assert done.returncode == 0
    assert detail(log_dir)["generated_samples_per_query"] == 20
    assert json.loads((log_dir / "device.json").read_text())["expected_qps"] == 50
    assert "Result is : INVALID" in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", [("bert", "offline", "99"), ("rnnt", "server", "99")])
def test_a_stop_in_the_timed_section_completes_what_is_outstanding(
    engine: Engines, log_dir: Path, kind: tuple[str, str, str], signum: int
) -> None:
    with started(*options(kind, engine(*kind), log_dir, 600_000)) as program:
        program.read_until("heartbeat: ")
        stopped_s = time.monotonic()
        program.signal(signum)
        assert program.end() == 0, program.lines
        assert time.monotonic() - stopped_s < 30
    assert any(STOPPED.fullmatch(line) for line in program.lines), program.lines
    found = detail(log_dir)
    assert found["power_begin"] <= found["power_end"]
    assert found["result_validity"] == "INVALID"


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stopped_stream_answers_all_queries_to_come(
    engine: Engines, log_dir: Path, kind: tuple[str, str, str]
) -> None:
    with started(*options(kind, engine(*kind), log_dir, 60_000)) as program:
        program.read_until("heartbeat: ")
        stopped_s = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.end() == 0, program.lines
        assert time.monotonic() - stopped_s < 30
    assert any(STOPPED.fullmatch(line) for line in program.lines), program.lines
    found = detail(log_dir)
    assert found["power_begin"] <= found["power_end"]
    assert found["result_validity"] == "INVALID"


def test_a_stopped_accuracy_run_reports_none(engine: Engines, log_dir: Path) -> None:
    kind = ("rnnt", "server", "99")
    with started(*options(kind, engine(*kind), log_dir), "--mode", "accuracy", "--target-qps", 100) as program:
        program.read_until("heartbeat: ")
        program.signal(signal.SIGTERM)
        assert program.end() == 0, program.lines
    assert "power_end" in detail(log_dir)
    assert not (log_dir / "accuracy.json").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_timed_section_ends_at_once(engine: Engines, log_dir: Path, signum: signal.Signals) -> None:
    kind = ("bert", "offline", "99")
    with started(*options(kind, engine(*kind), log_dir), "--warmup-s", 600) as program:
        program.read_until("Starting warmup")
        program.signal(signum)
        assert program.end() == 128 + signum
    assert program.lines[-1] == f"Stopped by {signum.name} before anything was measured."
    assert not list(log_dir.glob("mlperf_log_*"))


def test_a_corrupt_engine_is_refused(bert: Path, log_dir: Path) -> None:
    with (bert / engines.ENGINES[Device.CPU]).open("r+b") as file:
        file.write(b"\0\0\0\0")
    done = finish(*options(("bert", "offline", "99.9"), bert, log_dir))
    assert done.returncode == 7
    assert "does not have the SHA-256" in done.stderr
    assert "It is corrupt and is not used: build it with `python -m heteromig.benchmarks build" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(log_dir.iterdir())


def test_an_engine_for_another_accuracy_is_refused(bert: Path, log_dir: Path) -> None:
    done = finish(*options(("bert", "offline", "99"), bert, log_dir))
    assert done.returncode == 7
    assert "accuracy '99.9', wanted is '99'" in done.stderr


def test_a_missing_engine_is_refused(tmp_path: Path, log_dir: Path) -> None:
    done = finish(*options(("bert", "offline", "99"), tmp_path / "none", log_dir))
    assert done.returncode == 7
    assert "There is no engine at" in done.stderr


def test_a_failure_in_the_timed_section_ends_the_process_with_its_traceback(bert: Path, log_dir: Path) -> None:
    with np.load(bert / engines.SAMPLES) as archive:
        tokens = archive["input_ids"]
    tokens[-1] = 1_000_000  # outside the embedding table; warm-up does not get that far
    np.savez(bert / engines.SAMPLES, input_ids=tokens)
    rehash(bert)
    done = finish(*options(("bert", "offline", "99.9"), bert, log_dir), "--mode", "accuracy", "--warmup-s", 0.01)
    assert done.returncode == 1
    assert "Starting running actual test." in done.stdout
    assert "Traceback" in done.stderr
    assert "Gather" in done.stderr
    assert not (log_dir / "accuracy.json").exists()


def test_logs_of_another_run_are_not_overwritten(bert: Path, log_dir: Path) -> None:
    (log_dir / "mlperf_log_summary.txt").write_text("kept")
    done = finish(*options(("bert", "offline", "99.9"), bert, log_dir))
    assert done.returncode == 2
    assert "holds the logs of another run" in done.stderr
    assert (log_dir / "mlperf_log_summary.txt").read_text() == "kept"


def test_a_log_directory_that_does_not_exist_is_refused(bert: Path, tmp_path: Path) -> None:
    done = finish(*options(("bert", "offline", "99.9"), bert, tmp_path / "none"))
    assert done.returncode == 2
    assert "create it first" in done.stderr


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--min-duration-ms", "0"], "'0' is not a positive whole number"),
        (["--target-qps", "nan"], "'nan' is not a positive number"),
        (["--mode", "quick"], "invalid choice: 'quick'"),
        (["--bench", "bert"], "unrecognized arguments: --bench"),
    ],
)
def test_a_bad_option_is_a_usage_error(tmp_path: Path, log_dir: Path, extra: list[str], message: str) -> None:
    done = finish(*options(("bert", "offline", "99"), tmp_path, log_dir), *extra)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_unknown_benchmark_is_a_usage_error(tmp_path: Path, log_dir: Path) -> None:
    done = finish(*options(("brt", "offline", "99"), tmp_path, log_dir))
    assert done.returncode == 2
    assert done.stderr == "error: There is no embedded benchmark 'brt': did you mean 'bert'?\n"


def test_a_missing_runtime_says_what_to_install(tmp_path: Path, log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlperf_loadgen.py").write_text("raise ModuleNotFoundError('gone', name='mlperf_loadgen')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = finish(*options(("bert", "offline", "99"), tmp_path, log_dir))
    assert done.returncode == 7
    assert done.stderr == (
        "error: The embedded benchmarks need mlperf_loadgen, which is not installed: "
        "pip install 'heteromig[loadgen]'.\n"
    )
