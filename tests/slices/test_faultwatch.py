from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heteromig.slices import nvml
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.nvml import NVMLError
from heteromig.slices.simulator import SimulatedLibrary
from heteromig.slices.source import SliceSource


class Board(SimulatedLibrary):
    """A board whose driver offers `offered` events, and fails with `failure` when one waits for them."""

    offered = nvml.EVENT_XID
    failure: int | None = None
    without_events = False

    def nvmlEventSetCreate(self) -> Any:  # noqa: N802 - NVML's name
        if self.without_events:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        return super().nvmlEventSetCreate()

    def nvmlDeviceGetSupportedEventTypes(self, handle: nvml.Handle) -> int:  # noqa: N802 - NVML's name
        return super().nvmlDeviceGetSupportedEventTypes(handle) & self.offered

    def nvmlEventSetWait(self, eventSet: Any, timeoutms: int) -> Any:  # noqa: N802, N803 - NVML's names
        if self.failure is not None:
            raise NVMLError(self.failure)
        return super().nvmlEventSetWait(eventSet, timeoutms)


@pytest.fixture
def board(a30: SliceSource, tmp_path: Path) -> Board:
    board = Board(a30.layouts, tmp_path)
    board.nvmlInit()
    return board


def armed(board: Board) -> FaultWatch:
    watch = FaultWatch(board, [board.nvmlDeviceGetUUID(board.nvmlDeviceGetHandleByIndex(0))])
    watch.arm()
    return watch


def test_a_driver_without_events_is_left_in_peace(board: Board) -> None:
    board.without_events = True
    board._pending.append((0, nvml.EVENT_XID, 79))
    assert armed(board).heard() == ((), False)


def test_only_what_the_driver_offers_is_asked_of_it(board: Board) -> None:
    watch = armed(board)
    board._pending.extend([(0, nvml.EVENT_MIG_CONFIG_CHANGE, 0), (0, nvml.EVENT_XID, 48)])
    faults, repartitioned = watch.heard()
    assert len(faults) == 1
    assert not repartitioned
    board.offered = 0
    board._pending.append((0, nvml.EVENT_XID, 48))
    assert armed(board).heard() == ((), False)


def test_an_unavailable_gpu_is_named(board: Board) -> None:
    board.offered = nvml.EVENT_GPU_UNAVAILABLE
    watch = armed(board)
    board._pending.append((0, nvml.EVENT_GPU_UNAVAILABLE, 0))
    ((uuid, sentence),), _ = watch.heard()
    assert uuid.startswith("SIM-GPU-")
    assert f"{uuid} became unavailable" in sentence


def test_a_storm_of_errors_does_not_keep_us(board: Board) -> None:
    watch = armed(board)
    board._pending.extend((0, nvml.EVENT_XID, 48) for _ in range(1000))
    assert 0 < len(watch.heard().faults) < 100


@pytest.mark.parametrize("failure", [nvml.ERROR_GPU_IS_LOST, nvml.ERROR_FUNCTION_NOT_FOUND])
def test_whoever_cannot_hear_does_not_say_that_there_was_nothing_to_hear(board: Board, failure: int) -> None:
    watch = armed(board)
    assert set(watch.listened.values()) == {nvml.EVENT_XID}
    board.failure = failure
    assert watch.heard() == ((), False)
    assert set(watch.listened.values()) == {0}


def test_a_double_bit_ecc_error_is_named(board: Board) -> None:
    board.offered = nvml.EVENT_DOUBLE_BIT_ECC
    watch = armed(board)
    board._pending.append((0, nvml.EVENT_DOUBLE_BIT_ECC, 0))
    ((uuid, sentence),), _ = watch.heard()
    assert f"a double-bit ECC error on GPU {uuid}" in sentence
