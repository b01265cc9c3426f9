from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heteromig.core.devices import Inventory, SliceKind
from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.discovery import geometry_digest, take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.simulator import SimulatedLibrary
from heteromig.slices.source import SliceSource, parse_slices

MIG = parse_slices("mig")
WHOLE = parse_slices("gpu")


def test_a_simulated_board_is_enumerated_in_the_order_of_placement(tmp_path: Path) -> None:
    source = parse_slices("sim:a100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb")
    inventory = take_inventory(open_library(source, tmp_path), source)
    assert inventory.simulated
    assert [gpu.name for gpu in inventory.gpus] == ["Simulated A100-SXM4-80GB"]
    assert [(one.profile, one.gpu_instance_id, one.sm_count) for one in inventory.slices] == [
        ("2g.20gb", 3, 28),
        ("1g.10gb", 9, 14),
        ("1g.10gb", 10, 14),
        ("3g.40gb", 2, 42),
    ]
    assert {one.kind for one in inventory.slices} == {SliceKind.SIM}
    assert {one.gpu_uuid for one in inventory.slices} == {inventory.gpus[0].uuid}
    assert [one.memory_bytes for one in inventory.slices][1] == 9728 << 20


def test_uuids_are_stable_for_a_runs_directory_and_differ_between_two(tmp_path: Path, a30: SliceSource) -> None:
    def enumerate_in(directory: Path) -> Inventory:
        return take_inventory(open_library(a30, directory), a30)

    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    here, again, there = (enumerate_in(tmp_path / name) for name in ("here", "link", "there"))
    assert here == again
    assert not {one.uuid for one in here.slices} & {one.uuid for one in there.slices}
    assert here.gpus[0].uuid != there.gpus[0].uuid
    assert all("SIM" in one.uuid for one in here.slices)


def test_the_uuids_of_a_single_gpu_are_those_of_every_release() -> None:
    source = parse_slices("sim:a30")
    inventory = take_inventory(open_library(source, Path("/nonexistent/runs")), source)
    assert inventory.gpus[0].uuid == "SIM-GPU-1330fb43-d134-5ea8-8dfc-97145575cac6"
    assert inventory.slices[0].uuid == "SIM-MIG-f19f4c23-75a0-5f0c-b308-024e4988dc54"


def test_gpus_are_enumerated_one_after_the_other_each_as_it_is_cut(tmp_path: Path) -> None:
    source = parse_slices("sim:a100-sxm-80gb/3g.40gb,2x1g.10gb;2xa30;a100-sxm-80gb")
    inventory = take_inventory(open_library(source, tmp_path), source)
    product = "Simulated A100-SXM4-80GB"
    assert [gpu.name for gpu in inventory.gpus] == [product, "Simulated A30", "Simulated A30", product]
    profiles = [[one.profile for one in inventory.slices if one.gpu_uuid == gpu.uuid] for gpu in inventory.gpus]
    assert profiles == [["3g.40gb", "1g.10gb", "1g.10gb"], ["1g.6gb"] * 4, ["1g.6gb"] * 4, ["1g.10gb"] * 7]
    assert [one.gpu_uuid for one in inventory.slices] == [
        gpu.uuid for gpu, slices in zip(inventory.gpus, (3, 4, 4, 7), strict=True) for _ in range(slices)
    ]
    assert [one.gpu_instance_id for one in inventory.slices[3:7]] == [3, 4, 5, 6]
    assert len({gpu.uuid for gpu in inventory.gpus} | {one.uuid for one in inventory.slices}) == 4 + 3 + 4 + 4 + 7


def test_a_host_with_more_gpus_has_the_same_first_one(tmp_path: Path, inventory: Inventory) -> None:
    source = parse_slices("sim:3xa30")
    more = take_inventory(open_library(source, tmp_path), source)
    assert (more.gpus[:1], more.slices[:4]) == (inventory.gpus, inventory.slices)
    assert more == take_inventory(open_library(source, tmp_path), source)
    elsewhere = take_inventory(open_library(source, tmp_path / "elsewhere"), source)
    assert not {one.uuid for one in elsewhere.slices} & {one.uuid for one in more.slices}


def test_the_geometry_does_not_depend_on_the_order_of_enumeration(inventory: Inventory) -> None:
    assert geometry_digest(inventory.gpus, reversed(inventory.slices)) == inventory.geometry


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": "MIG-another"},
        {"gpu_instance_id": 1},
        {"compute_instance_id": 1},
        {"profile": "1c.1g.6gb"},
        {"gpu_uuid": "GPU-another"},
    ],
)
def test_the_geometry_depends_on_all_that_identifies_a_slice(inventory: Inventory, change: dict[str, Any]) -> None:
    first, *rest = inventory.slices
    assert geometry_digest(inventory.gpus, [msgspec.structs.replace(first, **change), *rest]) != inventory.geometry
    assert geometry_digest(inventory.gpus, rest) != inventory.geometry


def test_the_geometry_depends_on_the_mig_modes(inventory: Inventory) -> None:
    pending = [msgspec.structs.replace(gpu, mig_pending=False) for gpu in inventory.gpus]
    assert geometry_digest(pending, inventory.slices) != inventory.geometry


class Board(SimulatedLibrary):
    """Looks like a real A30 that was set up in some way."""

    modes: tuple[int, int] | None = (1, 1)
    holes: tuple[int, ...] = ()
    gpus = 1

    def nvmlDeviceGetName(self, handle: nvml.Handle) -> Any:  # noqa: N802 - NVML's name
        return super().nvmlDeviceGetName(handle).replace("Simulated", "NVIDIA").encode()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's name
        return self.gpus

    def nvmlDeviceGetMigMode(self, device: nvml.Handle) -> list[int]:  # noqa: N802 - NVML's name
        super().nvmlDeviceGetMigMode(device)
        if self.modes is None:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        return list(self.modes)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: nvml.Handle, index: int) -> nvml.Handle:  # noqa: N802
        if index in self.holes:
            raise NVMLError(nvml.ERROR_NOT_FOUND if index % 2 else nvml.ERROR_INVALID_ARGUMENT)
        return super().nvmlDeviceGetMigDeviceHandleByIndex(device, index)

    def nvmlDeviceGetAttributes(self, device: nvml.Handle) -> Any:  # noqa: N802 - NVML's name
        super().nvmlDeviceGetAttributes(device)
        raise NVMLError(nvml.ERROR_NOT_SUPPORTED)


@pytest.fixture
def board(a30: SliceSource, tmp_path: Path) -> Board:
    return Board(a30.layouts, tmp_path)


def test_holes_in_the_indices_do_not_hide_what_comes_after_them(board: Board) -> None:
    board.holes = (0, 1)
    inventory = take_inventory(board, MIG)
    assert [one.gpu_instance_id for one in inventory.slices] == [5, 6]
    assert {one.kind for one in inventory.slices} == {SliceKind.MIG}
    assert not inventory.simulated


def test_gpus_that_this_user_may_not_use_are_left_out(
    two: SliceSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(two.layouts, tmp_path)
    board.gpus = 2
    allowed = board.nvmlDeviceGetHandleByIndex
    forbidden = {0}

    def open_gpu(index: int) -> nvml.Handle:
        if index in forbidden:
            raise NVMLError(nvml.ERROR_NO_PERMISSION)
        return allowed(index)

    monkeypatch.setattr(board, "nvmlDeviceGetHandleByIndex", open_gpu)
    assert [one.profile for one in take_inventory(board, MIG).slices] == ["1g.6gb"] * 4
    forbidden.add(1)
    with pytest.raises(PreflightError, match="may use none of the 2 GPUs"):
        take_inventory(board, MIG)


def test_a_slice_destroyed_while_it_is_read_is_not_there(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(device: nvml.Handle) -> int:
        if device.placed.start == 2:
            raise NVMLError(nvml.ERROR_NOT_FOUND)
        return 0

    monkeypatch.setattr(board, "nvmlDeviceGetComputeInstanceId", vanish)
    assert [one.gpu_instance_id for one in take_inventory(board, MIG).slices] == [3, 4, 6]


def test_other_errors_of_enumeration_are_not_taken_for_holes(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_off(_device: nvml.Handle, index: int) -> nvml.Handle:
        raise NVMLError(nvml.ERROR_GPU_IS_LOST if index else nvml.ERROR_NOT_FOUND)

    monkeypatch.setattr(board, "nvmlDeviceGetMigDeviceHandleByIndex", fall_off)
    with pytest.raises(NVMLError, match="GPU is lost"):
        take_inventory(board, MIG)


def test_the_profile_is_what_the_name_says_and_unknown_attributes_stay_unknown(board: Board) -> None:
    inventory = take_inventory(board, MIG)
    assert {one.profile for one in inventory.slices} == {"1g.6gb"}
    assert {(one.memory_bytes, one.sm_count) for one in inventory.slices} == {(None, None)}


def test_whole_gpus_are_places_of_their_own(board: Board) -> None:
    board.modes = None
    inventory = take_inventory(board, WHOLE)
    (gpu,), (place,) = inventory.gpus, inventory.slices
    assert (place.uuid, place.gpu_uuid, place.kind) == (gpu.uuid, gpu.uuid, SliceKind.GPU)
    assert (place.profile, place.memory_bytes, place.sm_count) == ("nvidia-a30", 24 << 30, None)
    assert (gpu.mig_current, gpu.mig_pending) == (None, None)


def _no_gpu(board: Board) -> None:
    board.gpus = 0


def _modes(modes: tuple[int, int] | None) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        board.modes = modes

    return change


def _uncut(board: Board) -> None:
    board.holes = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("source", "change", "says"),
    [
        (MIG, _no_gpu, "sees no GPU"),
        (MIG, _modes(None), "No GPU of this machine has MIG (NVIDIA A30)"),
        (MIG, _modes((0, 0)), "MIG is off on NVIDIA A30"),
        (MIG, _modes((0, 1)), "is off and will be on after a reset"),
        (MIG, _modes((1, 0)), "is on and will be off after a reset"),
        (MIG, _uncut, "is not cut into slices"),
        (WHOLE, _modes((1, 1)), "use --slices mig"),
        (WHOLE, _modes((0, 1)), "is off and will be on after a reset"),
    ],
)
def test_a_machine_that_is_not_ready_is_refused_with_what_to_do(
    board: Board, source: SliceSource, change: Callable[[Board], None], says: str
) -> None:
    change(board)
    with pytest.raises(PreflightError) as refusal:
        take_inventory(board, source)
    assert says in str(refusal.value)
    assert "use " in str(refusal.value) or "reset the GPU" in str(refusal.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (nvml.ERROR_LIBRARY_NOT_FOUND, "NVML (libnvidia-ml.so.1) is not on this machine"),
        (nvml.ERROR_DRIVER_NOT_LOADED, "NVIDIA's driver does not answer"),
    ],
)
def test_without_nvml_or_driver_the_simulator_is_pointed_at(
    a30: SliceSource, tmp_path: Path, code: int, says: str
) -> None:
    class Absent(SimulatedLibrary):
        def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
            raise NVMLError(code)

    library: Library = Absent(a30.layouts, tmp_path)
    with pytest.raises(PreflightError) as refusal:
        take_inventory(library, MIG)
    assert says in str(refusal.value)
    assert "--slices sim:a100-sxm-80gb" in str(refusal.value)
