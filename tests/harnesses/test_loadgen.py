"""The embedded harness: what it offers, and the commands it makes of a plan."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.benchmarks.catalog import BENCHMARKS, SETS
from heteromig.benchmarks.engines import engine_key
from heteromig.benchmarks.runtimes import Device
from heteromig.core.errors import UsageError
from heteromig.core.plan import Plan, build_assignment, make_plan
from heteromig.core.spec import Mode, RunSpec
from heteromig.harnesses import HARNESSES, HarnessOptions, harness_of
from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.runner.config import Config, MainConfig, resolve
from tests.benchmarks import pytorch
from tests.core.histories import SPEC, inventory

HARNESS = LoadgenHarness()


def _spec(tmp_path: Path, main: MainConfig = MainConfig()) -> RunSpec:  # noqa: B008 - frozen
    return resolve(Config(slices="sim:a100-sxm-80gb", engines_dir=str(tmp_path / "engines"), main=main))


def _plan(spec: RunSpec) -> Plan:
    return make_plan(spec, inventory(), (0, 1))


def _options(argv: tuple[str, ...]) -> dict[str, str]:
    assert argv[:3] == (sys.executable, "-m", "heteromig.benchmarks")
    return dict(zip(argv[4::2], argv[5::2], strict=True))


def test_registered_under_its_name() -> None:
    assert isinstance(HARNESSES["loadgen"](HarnessOptions()), LoadgenHarness)
    assert isinstance(harness_of(SPEC), LoadgenHarness)


def test_catalog_and_sets_are_those_of_the_benchmarks() -> None:
    assert {info.name for info in HARNESS.catalog()} == set(BENCHMARKS)
    assert HARNESS.sets() == SETS
    assert all(HARNESS.benchmark(name).name == name for name in BENCHMARKS)
    with pytest.raises(UsageError, match="resnet50"):
        HARNESS.benchmark("resnet")


@pytest.mark.parametrize(("scenario", "accuracy"), [("multistream", "99"), ("offline", "12")])
def test_unsupported(scenario: str, accuracy: str) -> None:
    HARNESS.require_supported("bert", "offline", "99")
    with pytest.raises(UsageError):
        HARNESS.require_supported("bert", scenario, accuracy)


def test_main_runs_on_its_slice_with_its_engine(tmp_path: Path) -> None:
    spec = _spec(tmp_path, MainConfig(benchmark="bert", scenario="server", duration="7s", target_qps=12.5))
    main = _plan(spec).main
    command = HARNESS.command(main, spec, tmp_path / "run")
    assert command.argv[3] == "run"
    engine = tmp_path / "engines" / engine_key("bert", "server", main.accuracy, main.profile)
    assert _options(command.argv) == {
        "--benchmark": "bert",
        "--scenario": "server",
        "--accuracy": main.accuracy,
        "--profile": main.profile,
        "--mode": "performance",
        "--engine": str(engine),
        "--log-dir": str(tmp_path / "run" / main.directory),
        "--min-duration-ms": "7000",
        "--target-qps": "12.5",
    }
    assert command.env["CUDA_VISIBLE_DEVICES"] == main.slice_uuid
    assert command.cwd == tmp_path / "run" / main.directory
    assert command.clean_stop_signal == signal.SIGTERM


def test_backgrounds_know_nothing_of_mains_target(tmp_path: Path) -> None:
    spec = _spec(tmp_path, MainConfig(target_qps=12.5))
    plan = _plan(spec)
    for background in plan.backgrounds:
        command = HARNESS.command(background, spec, tmp_path)
        options = _options(command.argv)
        assert "--target-qps" not in options
        assert options["--min-duration-ms"] == str(plan.background_duration_ms)
        assert command.env["CUDA_VISIBLE_DEVICES"] == background.slice_uuid


def test_build_writes_where_runs_read(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    plan = _plan(spec)
    build = build_assignment((plan.main.engine,), 3, plan.main)
    command = HARNESS.command(build, spec, tmp_path)
    assert command.argv[3] == "build"
    built = _options(command.argv)
    read = _options(HARNESS.command(plan.main, spec, tmp_path).argv)
    assert built["--output"] == read["--engine"]
    assert {key: built[key] for key in built if key != "--output"}.items() <= read.items()


def test_workers_find_this_package_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _spec(tmp_path)
    main = _plan(spec).main
    repository = str(Path(__file__).parents[2])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert HARNESS.command(main, spec, tmp_path).env["PYTHONPATH"] == repository
    monkeypatch.setenv("PYTHONPATH", "/else/where")
    assert HARNESS.command(main, spec, tmp_path).env["PYTHONPATH"] == f"{repository}{os.pathsep}/else/where"


def test_engines_that_are_not_there_are_missing(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    needs = _plan(spec).engines
    missing = HARNESS.missing_engines(needs, spec)
    assert [need for need, _ in missing] == list(needs)
    assert all("There is no engine at" in why for _, why in missing)
    corrupt = tmp_path / "engines" / engine_key("resnet50", "offline", needs[0].accuracy, needs[0].profile)
    corrupt.mkdir(parents=True)
    assert "has no manifest.json" in HARNESS.missing_engines(needs[:1], spec)[0][1]


def test_a_gpu_is_used_where_there_is_a_pytorch_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch.prefer(pytorch.install(tmp_path, cuda=None), monkeypatch)
    assert (HARNESS.uses_gpu, resolve(Config(slices="mig")).uses_gpu) == (False, False)
    pytorch.install(tmp_path)
    assert (HARNESS.uses_gpu, resolve(Config(slices="gpu")).uses_gpu) == (True, True)


def test_on_real_slices_the_gpu_is_told_and_has_engines_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytorch.prefer(pytorch.install(tmp_path / "site"), monkeypatch)
    spec = resolve(Config(slices="mig", engines_dir=str(tmp_path / "engines")))
    plan = make_plan(spec, replace(inventory(), simulated=False), (0, 1))
    (gpu,) = inventory().gpus
    main, simulated = plan.main, _plan(_spec(tmp_path)).main
    key = engine_key("resnet50", "offline", main.accuracy, main.profile, device=Device.CUDA, gpu=gpu.name)
    for worker in (*plan.workers, build_assignment((main.engine,), 3, main)):
        options = _options(HARNESS.command(worker, spec, tmp_path).argv)
        assert (options["--device"], options["--gpu"]) == ("cuda", gpu.name)
    assert options["--output"] == str(tmp_path / "engines" / key)
    assert HARNESS.missing_engines((main.engine,), spec) == (
        (main.engine, f"There is no engine at {tmp_path / 'engines' / key}."),
    )
    assert "--device" not in HARNESS.command(simulated, _spec(tmp_path), tmp_path).argv
    assert simulated.engine != main.engine


def test_target_goes_with_performance_only(tmp_path: Path) -> None:
    spec = _spec(tmp_path, MainConfig(target_qps=1.0))
    HARNESS.preflight(spec)
    with pytest.raises(UsageError, match="--main-target-qps goes with --main-mode performance only"):
        HARNESS.preflight(replace(spec, main=replace(spec.main, mode=Mode.ACCURACY)))
