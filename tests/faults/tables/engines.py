"""The engine cache of the embedded harness: spoilt, or written by two at once."""

from __future__ import annotations

import shutil

from heteromig.benchmarks.engines import ENGINES, MANIFEST
from heteromig.benchmarks.runtimes import Device
from heteromig.core.phases import Phase
from tests.e2e.product import RunCommand
from tests.faults.cells import VALID, Act, Cell, Kind, cell
from tests.faults.stage import Stage

TOPIC = "engine cache"
ENGINE = ENGINES[Device.CPU]


def _spoil(stage: Stage, name: str, data: bytes) -> None:
    for path in stage.engines.glob(f"dlrm-*/{name}"):
        path.write_bytes(data)


def _truncate(stage: Stage) -> None:
    for path in stage.engines.glob(f"dlrm-*/{ENGINE}"):
        path.write_bytes(path.read_bytes()[:100])


def _garble(stage: Stage) -> None:
    _spoil(stage, MANIFEST, b'{"engine_sha256": "\xff')


def _empty(stage: Stage) -> None:
    for path in stage.engines.glob("dlrm-*"):
        shutil.rmtree(path)
        path.mkdir()


def _build_beside(stage: Stage) -> None:
    """Another run of the same, on GPUs of its own, which has the same engines to build."""
    for path in stage.engines.glob("dlrm-*"):
        shutil.rmtree(path)
    other = stage.home / "other"
    other.mkdir()
    beside = RunCommand(other, ("run", *stage.flags()), environ=stage.environ, module="heteromig", name="beside")
    stage.beside = beside


def _other_is_valid(stage: Stage) -> None:
    assert stage.beside is not None
    stage.beside.expect(0)


CELLS: tuple[Cell, ...] = (
    cell(TOPIC, Act("an engine is cut off", before=_truncate), Phase.BUILDING, VALID, kind=Kind.LOADGEN, fast=True),
    cell(TOPIC, Act("a manifest is garbage", before=_garble), Phase.BUILDING, VALID, kind=Kind.LOADGEN),
    cell(TOPIC, Act("an engine's directory is empty", before=_empty), Phase.BUILDING, VALID, kind=Kind.LOADGEN),
    cell(
        TOPIC,
        Act("two runs build the same engine at once", before=_build_beside, after=_other_is_valid),
        Phase.BUILDING,
        VALID,
        kind=Kind.LOADGEN,
    ),
)
