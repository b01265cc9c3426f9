"""What has to be the same for two runs to be comparable, in words; neighbours are what may differ."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.degradation import Difference
from heteromig.core.devices import SliceKind
from heteromig.core.errors import EvidenceError
from heteromig.core.record import RunRecord, WorkerRecord
from heteromig.core.spec import Preparation, RunSpec
from heteromig.core.units import format_duration_s
from heteromig.logs.detail import read_detail
from heteromig.logs.files import read_regular
from heteromig.logs.loadgen import DETAIL_LOG

_NONE = "none"
_UNRECORDED = "not recorded"
_HEAD_BYTES = 1 << 16
_VERSION = re.compile(rb'"key": "loadgen_version", "value": "([^"]+)"')


class _Device(Struct, frozen=True):
    """What is used of `device.json`, in which an embedded benchmark says on what it computes, and with which engine."""

    engine: str
    engine_version: str
    engine_sha256: str
    batch: int


def read_settings(run_dir: Path, record: RunRecord, main: WorkerRecord, spec: RunSpec) -> tuple[tuple[str, str], ...]:
    """(name, value) of each setting, in the order in which they are shown."""
    log = next(iter(sorted((run_dir / main.directory).rglob(DETAIL_LOG))), None)
    place = next((one for one in record.slices if one.uuid == main.slice_uuid), None)
    gpu = next((one for one in record.gpus if place is not None and one.uuid == place.gpu_uuid), None)
    program = next((one for one in spec.commands if one.name == spec.main.benchmark), None)
    settings = {
        "benchmark": spec.main.benchmark,
        "scenario": spec.main.scenario,
        "mode": spec.main.mode.value,
        "accuracy": spec.main.accuracy,
        "duration": format_duration_s(spec.main.duration_ms / 1000),
        "target rate": _target(log, spec),
        "action": spec.main.action.value,
        "configuration version": spec.main.config_ver or _NONE,
        "run arguments": shlex.join(spec.main.run_args) or _NONE,
        "command prefix": shlex.join(spec.main.cmd_prefix) or _NONE,
        "harness": spec.harness,
        "program": _NONE if program is None else shlex.join(program.argv),
        "engine": _engine(run_dir / main.directory),
        "LoadGen": _loadgen_version(log),
        "slice": _UNRECORDED if place is None else place.profile,
        "layout": _layout(record, place.gpu_uuid if place is not None else "", spec),
        "isolation": record.isolation,
        "GPU product": _UNRECORDED if gpu is None else gpu.name,
        "driver": _UNRECORDED if gpu is None else gpu.driver,
        "pinning": _pinning(record, main, spec),
        "heteromig": record.tool.version,
    }
    if record.simulated:  # a simulated slice computes on it
        settings["processor"] = record.host.cpu_model or _UNRECORDED
    return tuple(settings.items())


def differences(
    first: Sequence[tuple[tuple[str, str], ...]], second: Sequence[tuple[tuple[str, str], ...]]
) -> tuple[Difference, ...]:
    """The settings that are not the same in all runs; where they are not within a side, that one lists them all."""
    sides = [[dict(one) for one in side] for side in (first, second)]
    names = dict.fromkeys(name for side in sides for one in side for name in one)
    found = []
    for name in names:
        values = [list(dict.fromkeys(one.get(name, _NONE) for one in side)) for side in sides]
        if len({*values[0], *values[1]}) > 1:
            found.append(Difference(name, " or ".join(values[0]), " or ".join(values[1])))
    return tuple(found)


def _target(log: Path | None, spec: RunSpec) -> str:
    """In Server the rate that LoadGen was told, which an embedded benchmark calibrates where nobody says; else ours."""
    if spec.main.scenario == "server" and log is not None:
        try:
            rate = read_detail(log).target_qps
        except EvidenceError:
            rate = None
        if rate is not None:
            return f"{rate:.6g} samples/s"
    return _NONE if spec.main.target_qps is None else f"{spec.main.target_qps:.6g} samples/s"


def _engine(directory: Path) -> str:
    try:
        one = decode(read_regular(directory / "device.json", "The device"), _Device)
    except (OSError, EvidenceError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNRECORDED
    return f"{one.engine} {one.engine_version}, {one.engine_sha256[:12]}, batch {one.batch}"


def _loadgen_version(log: Path | None) -> str:
    """From the beginning of the log, which may be large."""
    if log is None or not log.is_file():
        return _NONE
    try:
        with log.open("rb") as file:
            found = _VERSION.search(file.read(_HEAD_BYTES))
    except OSError:
        return _UNRECORDED
    return _UNRECORDED if found is None else found[1].decode(errors="replace")


def _layout(record: RunRecord, gpu_uuid: str, spec: RunSpec) -> str:
    """The profiles of all slices of main's GPU; of whole GPUs, of all that there are."""
    if spec.preparation is Preparation.MPS:
        return spec.slices
    profiles = [one.profile for one in record.slices if one.gpu_uuid == gpu_uuid or one.kind == SliceKind.GPU.value]
    groups = [(name, sum(1 for _ in same)) for name, same in itertools.groupby(profiles)]
    return ",".join(name if count == 1 else f"{count}x{name}" for name, count in groups) or _UNRECORDED


def _pinning(record: RunRecord, main: WorkerRecord, spec: RunSpec) -> str:
    if not spec.pin:
        return "off"
    own = next((len(one.cpus) for one in record.slices if one.uuid == main.slice_uuid), 0)
    return f"main on {own} of {len(record.host.cpus)} processors" if own else "on"
