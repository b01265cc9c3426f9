"""The command line of the benchmark program. Parsing loads nothing; a command loads what it needs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from heteromig.benchmarks import catalog
from heteromig.benchmarks.console import complain, say
from heteromig.benchmarks.runtimes import Device
from heteromig.core.errors import HeteromigError, PreflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heteromig.benchmarks.signals import StopSignals

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(argv: Sequence[str], signals: StopSignals) -> int:
    """Run one command; the exit code. What is foreseen ends in one sentence on stderr."""
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "list":
            say(catalog.table())
        elif arguments.command == "build":
            _build(arguments, signals)
        else:
            _run(arguments, signals)
    except HeteromigError as error:
        complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("mlperf_loadgen", "numpy", "onnx", "onnxruntime"):
            raise
        complain(
            f"The embedded benchmarks need {error.name}, which is not installed: pip install 'heteromig[loadgen]'."
        )
        return PreflightError.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m heteromig.benchmarks",
        description="The embedded LoadGen benchmarks: build an engine, run one benchmark, list them all.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the catalog", allow_abbrev=False)
    build = commands.add_parser("build", help="build an engine", allow_abbrev=False)
    run = commands.add_parser("run", help="one LoadGen run", allow_abbrev=False)
    for command in (build, run):
        command.add_argument("--benchmark", required=True, metavar="NAME")
        command.add_argument("--scenario", required=True, metavar="|".join(catalog.LOADGEN_NAMES), type=str.lower)
        command.add_argument("--accuracy", required=True, metavar="99|99.9")
        command.add_argument("--profile", required=True, help="slice profile that the engine is for")
        command.add_argument(
            "--device",
            default=Device.CPU,
            type=_device,
            metavar="cpu|cuda",
            help="cpu (default): ONNX Runtime, simulated slices; cuda: PyTorch, the slice in CUDA_VISIBLE_DEVICES",
        )
        command.add_argument("--gpu", default="", metavar="NAME", help="product that the slice is of; goes with cuda")
    build.add_argument("--output", required=True, type=Path, metavar="ENGINE_DIR")
    run.add_argument("--mode", default="performance", choices=("performance", "accuracy"))
    run.add_argument("--engine", required=True, type=Path, metavar="ENGINE_DIR")
    run.add_argument("--log-dir", required=True, type=Path, help="existing directory for LoadGen's logs")
    run.add_argument("--min-duration-ms", required=True, type=_positive_int, metavar="N")
    run.add_argument("--min-query-count", default=1, type=_positive_int, metavar="N")
    run.add_argument("--target-qps", default=None, type=_positive_float, metavar="X", help="default: calibrated")
    run.add_argument("--warmup-s", default=1.0, type=_positive_float, metavar="S")
    return parser


def _build(arguments: argparse.Namespace, signals: StopSignals) -> None:
    spec = catalog.require_supported(arguments.benchmark, arguments.scenario, arguments.accuracy)
    _require_gpu_name(arguments)
    from heteromig.benchmarks.build import EngineRequest, build_engine  # noqa: PLC0415 - imports onnx

    what = f"engines for {spec.name} benchmark in {catalog.LOADGEN_NAMES[arguments.scenario]} scenario"
    say(f"Building {what}...")
    request = EngineRequest(
        spec=spec,
        scenario=arguments.scenario,
        accuracy=arguments.accuracy,
        profile=arguments.profile,
        device=arguments.device,
        gpu=arguments.gpu,
    )
    build_engine(request, arguments.output, signals)
    say(f"Finished building {what}.")


def _run(arguments: argparse.Namespace, signals: StopSignals) -> None:
    spec = catalog.require_supported(arguments.benchmark, arguments.scenario, arguments.accuracy)
    _require_gpu_name(arguments)
    from heteromig.benchmarks.run import RunOptions, run  # noqa: PLC0415 - imports numpy, ONNX Runtime and LoadGen

    options = RunOptions(
        spec=spec,
        scenario=arguments.scenario,
        mode=arguments.mode,
        accuracy=arguments.accuracy,
        profile=arguments.profile,
        engine=arguments.engine,
        log_dir=arguments.log_dir,
        min_duration_ms=arguments.min_duration_ms,
        min_query_count=arguments.min_query_count,
        target_qps=arguments.target_qps,
        warmup_s=arguments.warmup_s,
        device=arguments.device,
        gpu=arguments.gpu,
    )
    run(options, signals)


def _require_gpu_name(arguments: argparse.Namespace) -> None:
    """An engine for a GPU is for one product, because slices of several have the same profile."""
    if (arguments.device is Device.CUDA) != bool(arguments.gpu):
        raise UsageError("--device cuda and --gpu NAME go together: give both for a real slice, or none.")


def _device(text: str) -> Device:
    try:
        return Device(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor cuda") from None


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
