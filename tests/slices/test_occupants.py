"""Who is on the GPUs that no slice of a run is on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core.devices import Inventory, OtherGpu
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.occupants import read_others
from heteromig.slices.simulator import SimulatedLibrary
from heteromig.slices.source import SliceSource
from tests.slices.conftest import Spawn


@pytest.fixture
def host(two: SliceSource, tmp_path: Path) -> Library:
    return open_library(two, tmp_path)


@pytest.fixture
def whole(host: Library, two: SliceSource) -> Inventory:
    return take_inventory(host, two)


def without_the_second(whole: Inventory) -> Inventory:
    """As if no slice were on it."""
    first = whole.gpus[0]
    return replace(whole, gpus=(first,), slices=tuple(one for one in whole.slices if one.gpu_uuid == first.uuid))


def test_a_gpu_of_the_inventory_is_none_of_the_others(host: Library, whole: Inventory) -> None:
    assert read_others(host, whole) == ()


def test_a_gpu_without_slices_may_be_empty(host: Library, whole: Inventory) -> None:
    assert read_others(host, without_the_second(whole)) == (OtherGpu(1, whole.gpus[1].uuid, ()),)


def test_a_gpu_without_slices_tells_who_is_there(host: Library, whole: Inventory, spawn: Spawn) -> None:
    second = whole.gpus[1]
    process = spawn(visible=next(one.uuid for one in whole.slices if one.gpu_uuid == second.uuid))
    (other,) = read_others(host, without_the_second(whole))
    assert other.occupants is not None
    assert [(one.pid, one.command) for one in other.occupants] == [(process.pid, "sleep 600")]
    assert other.name == f"GPU {second.uuid}"


def test_pids_of_another_namespace_say_nothing(host: Library, whole: Inventory) -> None:
    (other,) = read_others(host, replace(without_the_second(whole), pids_resolve=False))
    assert other.occupants is None
    assert "pid namespace" in other.reason


class Reluctant(SimulatedLibrary):
    """A host whose second GPU says as much as `error` lets it."""

    error = nvml.ERROR_NO_PERMISSION
    call = "processes"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> nvml.Handle:  # noqa: N802 - NVML's name
        if index == 1 and self.call == "handle":
            raise NVMLError(self.error)
        return super().nvmlDeviceGetHandleByIndex(index)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: nvml.Handle) -> list[Any]:  # noqa: N802 - NVML's name
        if self.call == "processes":
            raise NVMLError(self.error)
        return super().nvmlDeviceGetComputeRunningProcesses(handle)


@pytest.mark.parametrize("error", [nvml.ERROR_NO_PERMISSION, nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_GPU_IS_LOST])
@pytest.mark.parametrize("call", ["processes", "handle"])
def test_a_gpu_that_does_not_say_is_said_to_be_hidden(two: SliceSource, tmp_path: Path, error: int, call: str) -> None:
    library = Reluctant(two.layouts, tmp_path)
    library.call = ""
    known = without_the_second(take_inventory(library, two))
    library.error, library.call = error, call
    (other,) = read_others(library, known)
    assert (other.index, other.occupants) == (1, None)
    assert other.reason
    assert other.name == ("GPU 1" if call == "handle" else f"GPU {other.uuid}")


def test_a_driver_that_is_gone_is_no_matter_of_one_gpu(two: SliceSource, tmp_path: Path) -> None:
    library = Reluctant(two.layouts, tmp_path)
    library.call = ""
    known = without_the_second(take_inventory(library, two))
    library.error, library.call = nvml.ERROR_UNINITIALIZED, "handle"
    with pytest.raises(NVMLError):
        read_others(library, known)
