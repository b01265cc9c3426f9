"""An engine on disk: its name in the cache, its manifest, and whether it may be used.

Light on purpose (standard library and msgspec): the controller asks before it builds, the benchmark program before it
runs. An engine is a directory of regular files with a `manifest.json` that lists the size and SHA-256 of every other
file. What does not match is never used; it is built anew.
"""

from __future__ import annotations

import functools
import hashlib
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from heteromig.benchmarks.runtimes import Device, runtime_version

if TYPE_CHECKING:
    import os

SCHEMA_VERSION = 2
"""Of the manifest; a manifest with another number is stale."""

MANIFEST = "manifest.json"
ENGINES = {Device.CPU: "engine.onnx", Device.CUDA: "engine.pt2"}
SAMPLES = "samples.npz"
REFERENCE = "reference.npz"
"""The files of an engine: the optimised model, the sample set, and the unoptimised graph's answers to it."""

_MODEL_SOURCES = ("catalog.py", "build.py", "graphs.py", "models/*.py")
_DEFINITION_SOURCES = {
    Device.CPU: (*_MODEL_SOURCES, "onnxruntime_cpu.py", "quantisation.py"),
    Device.CUDA: (*_MODEL_SOURCES, "accuracy.py", "torch_cuda.py", "torch_graph.py", "tuning.py"),
}
"""Sources, relative to this folder, that decide what an engine holds."""


class EngineStatus(Enum):
    """Whether an engine may be used."""

    OK = "ok"
    MISSING = "missing"
    STALE = "stale"
    """Intact, but built for something else: other fields, another runtime, other model definitions."""
    CORRUPT = "corrupt"


class FileRecord(Struct, frozen=True):
    """One file of an engine."""

    bytes: int
    sha256: str


class Manifest(Struct, frozen=True):
    """What `manifest.json` holds.

    `definition` is a hash of the sources that define the model; `model_sha256` of the model before
    optimisation; `runtime` is the distribution and version that made the engine. `gpu` is the product that it is for,
    as NVML calls it, and `compute_capability` what it was built on; empty and None where it computes on a CPU. `batch`
    is how many samples one call takes at most, `group` how many inputs a sample holds, `accuracy_percent` what the
    whole set showed when it was built.
    """

    schema_version: int
    benchmark: str
    scenario: str
    accuracy: str
    profile: str
    device: Device
    gpu: str
    compute_capability: str | None
    definition: str
    runtime: str
    batch: int
    group: int
    accuracy_percent: float
    model_sha256: str
    engine_sha256: str
    files: dict[str, FileRecord]


class EngineState(Struct, frozen=True):
    """What an inspection found; `manifest` is None unless the status is ok."""

    status: EngineStatus
    reason: str
    manifest: Manifest | None = None


@functools.cache
def definition_hash(device: Device) -> str:
    """First 12 hexadecimal digits of the SHA-256 over the sources that decide what an engine holds."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for pattern in _DEFINITION_SOURCES[device]:
        for path in sorted(folder.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def engine_key(
    benchmark: str, scenario: str, accuracy: str, profile: str, *, device: Device = Device.CPU, gpu: str = ""
) -> str:
    """Directory name of an engine: whatever would make it another engine is in the name.

    Raises:
        PreflightError: the runtime is not installed.
    """
    place = "-".join(re.sub(r"[^\w.+-]", "_", part) for part in (profile, gpu) if part)
    return f"{benchmark}-{scenario}-{accuracy}-{place}-{runtime_version(device)}-{definition_hash(device)}"


def file_record(path: str | os.PathLike[str]) -> FileRecord:
    """Size and SHA-256 of a file of a few MiB, which is read as a whole.

    Raises:
        OSError: it cannot be read.
    """
    data = Path(path).read_bytes()
    return FileRecord(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def inspect_engine(
    path: str | os.PathLike[str],
    *,
    benchmark: str,
    scenario: str,
    accuracy: str,
    profile: str,
    device: Device = Device.CPU,
    gpu: str = "",
) -> EngineState:
    """Whether the engine at `path` is intact and is the one for these fields.

    Every file is hashed, so that a flipped bit is found before a run rather than in its result.

    Raises:
        PreflightError: the runtime is not installed.
    """
    folder = Path(path)
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir():
            return _corrupt(f"{folder} has no {MANIFEST}.")
        return EngineState(EngineStatus.MISSING, f"There is no engine at {folder}.")
    except OSError as error:
        return _corrupt(f"{folder / MANIFEST} cannot be read: {error.strerror}.")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        return _corrupt(f"{folder / MANIFEST} is not a manifest: {error}.")
    wanted = {
        "schema_version": SCHEMA_VERSION,
        "benchmark": benchmark,
        "scenario": scenario,
        "accuracy": accuracy,
        "profile": profile,
        "device": device,
        "gpu": gpu,
        "definition": definition_hash(device),
        "runtime": runtime_version(device),
    }
    for field, value in wanted.items():
        found = getattr(manifest, field)
        if found != value:
            return EngineState(
                EngineStatus.STALE, f"The engine at {folder} has {field} {_said(found)}, wanted is {_said(value)}."
            )
    return _verify_files(folder, manifest)


def _verify_files(folder: Path, manifest: Manifest) -> EngineState:
    engine = ENGINES[manifest.device]
    missing = {engine, SAMPLES, REFERENCE} - manifest.files.keys()
    if missing:
        return _corrupt(f"{folder / MANIFEST} does not list {', '.join(sorted(missing))}.")
    if manifest.files[engine].sha256 != manifest.engine_sha256:
        return _corrupt(f"{folder / MANIFEST} contradicts itself about the SHA-256 of {engine}.")
    for name, record in manifest.files.items():
        try:
            found = file_record(folder / name)
        except OSError as error:
            return _corrupt(f"{folder / name} cannot be read: {error.strerror}.")
        if found.bytes != record.bytes:
            return _corrupt(f"{folder / name} has {found.bytes} bytes, the manifest says {record.bytes}.")
        if found.sha256 != record.sha256:
            return _corrupt(f"{folder / name} does not have the SHA-256 that the manifest says.")
    return EngineState(EngineStatus.OK, f"The engine at {folder} is intact.", manifest)


def _said(value: object) -> str:
    return repr(value.value if isinstance(value, Device) else value)


def _corrupt(reason: str) -> EngineState:
    return EngineState(EngineStatus.CORRUPT, reason)
