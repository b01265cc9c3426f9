"""Build an engine: model, optimised engine, sample set and reference answers, in one directory at once or not at all.

Everything is written into a temporary directory beside the destination, which is renamed last. A builder holds a lock
beside the destination, so that two never mix and whatever an interrupted one left can be swept up by the next.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from heteromig.benchmarks import engines
from heteromig.benchmarks.accuracy import agreement_percent
from heteromig.benchmarks.catalog import BenchmarkSpec
from heteromig.benchmarks.console import say
from heteromig.benchmarks.graphs import run_unoptimised
from heteromig.benchmarks.models import make_model
from heteromig.benchmarks.runtimes import Device, runtime_version
from heteromig.benchmarks.selection import engine_on
from heteromig.benchmarks.tuning import choose_batch
from heteromig.core.errors import PreflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from heteromig.benchmarks.inference import Answer, Engine
    from heteromig.benchmarks.signals import StopSignals


class EngineRequest(Struct, frozen=True):
    """What an engine is for. `scenario` and `profile` do not change it on a CPU; they are part of its name.

    `gpu` is the product that the profile is cut of, as NVML calls it; empty on a CPU.
    """

    spec: BenchmarkSpec
    scenario: str
    accuracy: str
    profile: str
    device: Device = Device.CPU
    gpu: str = ""


def build_engine(request: EngineRequest, output: Path, signals: StopSignals) -> None:
    """Build the engine at `output`, replacing what is there; a stop signal leaves nothing half-made.

    Raises:
        UsageError: the destination cannot be written.
        PreflightError: the runtime is not installed, cannot use the device, or computes something else on it.
    """
    output = output.absolute()
    engine = engine_on(request.device)
    try:
        _refuse_foreign(output)
        output.parent.mkdir(0o755, parents=True, exist_ok=True)
        with _sole_builder(output, signals), _temporary(output) as folder:
            _fill(folder, request, engine)
            _put_in_place(folder, output)
    except OSError as error:
        raise UsageError(
            f"The engine cannot be written to {output}: {error.strerror or error}. Choose another folder or free it."
        ) from error


def _fill(folder: Path, request: EngineRequest, engine: Engine) -> None:
    spec = request.spec
    model = make_model(spec.name, spec.sample_count)
    serialised: bytes = model.onnx.SerializeToString()
    name = engines.ENGINES[engine.device]
    reference = run_unoptimised(model.onnx, model.samples)[0]
    np.savez(folder / engines.SAMPLES, **model.samples)
    np.savez(folder / engines.REFERENCE, answers=reference)
    batches = engine.batches(spec)
    precision, *others = engine.precisions(request.accuracy)
    while True:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            engine.build(serialised, precision, Path(scratch), folder / name)
        answer = engine.load(folder / name, model.samples, batches)
        batch = choose_batch(answer, batches, spec.sample_count, engine.clock_s)
        sizes = tuple(size for size in batches if size <= batch)
        accuracy_percent = _accuracy_percent(answer, reference, request, sizes, engine.group)
        if accuracy_percent >= float(request.accuracy):
            break
        _require_another(precision, others, accuracy_percent, request)
        precision = others.pop(0)
    files = {part: engines.file_record(folder / part) for part in (name, engines.SAMPLES, engines.REFERENCE)}
    manifest = engines.Manifest(
        schema_version=engines.SCHEMA_VERSION,
        benchmark=spec.name,
        scenario=request.scenario,
        accuracy=request.accuracy,
        profile=request.profile,
        device=engine.device,
        gpu=request.gpu,
        compute_capability=engine.compute_capability,
        definition=engines.definition_hash(engine.device),
        runtime=runtime_version(engine.device),
        precision=precision,
        batch=batch,
        group=engine.group,
        accuracy_percent=accuracy_percent,
        model_sha256=hashlib.sha256(serialised).hexdigest(),
        engine_sha256=files[name].sha256,
        files=files,
    )
    (folder / engines.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def _accuracy_percent(
    answer: Answer, reference: NDArray[Any], request: EngineRequest, sizes: tuple[int, ...], group: int
) -> float:
    """How well the engine agrees with the unoptimised graph on the whole sample set, in percent.

    The least of all `sizes` of call: a library may choose another kernel for each, and not all of them are right.
    """
    count = len(reference)
    found = []
    for size in sizes:
        answers = [answer(list(range(first, min(first + size, count)))) for first in range(0, count, size)]
        found.append(agreement_percent(np.concatenate(answers), reference, request.spec.metric, group))
    return float(np.min(found))  # not a number is the least


def _require_another(precision: str, others: list[str], found_percent: float, request: EngineRequest) -> None:
    """Say what is tried next.

    Raises:
        PreflightError: there is nothing left to try.
    """
    spec = request.spec
    metric, asked = spec.metric.value, request.accuracy
    wrong = f"{metric} of the {precision} engine is {found_percent:.3f} %, and {asked} % was asked for"
    if not others:
        raise PreflightError(
            f"The engine of {spec.name} does not compute what its model does: {wrong}. It is not kept; try another "
            f"version of {runtime_version(request.device)}."
        )
    say(f"{wrong}: this runtime computes {precision} wrongly on this slice. Building {others[0]} instead.")


@contextmanager
def _sole_builder(output: Path, signals: StopSignals) -> Iterator[None]:
    with (output.parent / f".{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(output)
        signals.cleanup = functools.partial(_sweep, output)
        try:
            yield
        finally:
            signals.cleanup = None


def _sweep(output: Path) -> None:
    """Remove every temporary directory of this engine; only for who holds the lock."""
    for leftover in output.parent.glob(f".{output.name}.*.building"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _temporary(output: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".building", dir=output.parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, output: Path) -> None:
    """Rename; what is in the way is renamed first, so that a reader sees the old engine, the new one, or none."""
    with _temporary(output) as retired:
        if output.exists():
            output.rename(retired / "old")
        folder.rename(output)


def _refuse_foreign(output: Path) -> None:
    """An engine may be replaced in any condition; anything else that is in the way is somebody's."""
    if not output.exists():
        return
    known = {engines.MANIFEST, *engines.ENGINES.values(), engines.SAMPLES, engines.REFERENCE}
    foreign = [output.name] if not output.is_dir() else sorted(p.name for p in output.iterdir() if p.name not in known)
    if foreign:
        raise UsageError(
            f"{output} is no engine directory (it holds {foreign[0]!r}) and is left alone: choose another --output."
        )
