from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from heteromig.core.devices import Inventory
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.nvml import NVMLError
from heteromig.slices.occupants import computing, occupants
from heteromig.slices.processes import Ancestry, is_there
from heteromig.slices.simulator import SimulatedLibrary
from heteromig.slices.source import SliceSource
from heteromig.slices.telemetry import take_sample
from tests.slices.conftest import Spawn, cut


class Measuring(SimulatedLibrary):
    """A board with sensors, whose driver shows processes only where `shown` says so."""

    shown = True

    def nvmlDeviceGetPowerUsage(self, handle: nvml.Handle) -> int:  # noqa: N802 - NVML's name
        self._check_gpu(handle)
        return 102_345

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: nvml.Handle) -> int:  # noqa: N802 - NVML's name
        self._check_gpu(handle)
        return 2_269_047

    def nvmlDeviceGetTemperature(self, handle: nvml.Handle, sensor: int) -> int:  # noqa: N802 - NVML's name
        self._check_gpu(handle)
        return 40 if sensor == pynvml.NVML_TEMPERATURE_GPU else -1

    def nvmlDeviceGetClockInfo(self, handle: nvml.Handle, type: int) -> int:  # noqa: A002, N802 - NVML's names
        self._check_gpu(handle)
        return {pynvml.NVML_CLOCK_SM: 345, pynvml.NVML_CLOCK_MEM: 2619}[type]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: nvml.Handle) -> int:  # noqa: N802 - NVML's name
        self._check_gpu(handle)
        return 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: nvml.Handle) -> list[Any]:  # noqa: N802 - NVML's name
        self._check_slice(handle)
        if not self.shown:
            raise NVMLError(nvml.ERROR_NO_PERMISSION)
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None), SimpleNamespace(pid=1 << 30, usedGpuMemory=None)]


@pytest.fixture
def board(a30: SliceSource, tmp_path: Path) -> Measuring:
    return Measuring(a30.layouts, tmp_path)


@pytest.fixture
def inventory(board: Measuring, a30: SliceSource) -> Inventory:
    return take_inventory(board, a30)


def test_readings_come_in_the_units_of_their_names(board: Measuring, inventory: Inventory) -> None:
    before_ns = time.monotonic_ns()
    sample = take_sample(board, inventory)
    assert before_ns <= sample.taken_ns <= time.monotonic_ns()
    (gpu,) = sample.gpus
    assert gpu.power_w == pytest.approx(102.345)
    assert gpu.energy_j == pytest.approx(2269.047)
    assert (gpu.temperature_c, gpu.sm_clock_mhz, gpu.memory_clock_mhz, gpu.throttle_reasons) == (40.0, 345, 2619, 0)


def test_the_costly_counter_is_read_only_on_demand(board: Measuring, inventory: Inventory) -> None:
    (gpu,) = take_sample(board, inventory, energy=False).gpus
    assert gpu.energy_j is None
    assert gpu.power_w is not None


def test_a_pid_that_means_nothing_here_is_reported_without_ancestors(board: Measuring, inventory: Inventory) -> None:
    ours, unknown = take_sample(board, inventory).slices[0].occupants or ()
    assert ours.ancestors[0] == os.getppid()
    assert (unknown.pid, unknown.ancestors, unknown.command) == (1 << 30, (), "")


class Listing(Measuring):
    """A driver that lists these processes, and does something before anybody can look at them."""

    def __init__(self, a30: SliceSource, runs_dir: Path, pids: list[int], then: Callable[[], object]) -> None:
        super().__init__(a30.layouts, runs_dir)
        self.pids = pids
        self.then = then
        self.calls = 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: nvml.Handle) -> list[Any]:  # noqa: N802 - NVML's name
        del handle
        self.calls += 1
        listed = [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.pids if is_there(pid)]
        self.then()
        return listed


def test_a_process_that_ends_before_it_is_looked_at_is_nobody(a30: SliceSource, tmp_path: Path, spawn: Spawn) -> None:
    child = spawn()

    def end() -> None:
        child.kill()
        child.wait()

    board = Listing(a30, tmp_path, [os.getpid(), child.pid], end)
    sample = take_sample(board, take_inventory(board, a30))
    assert {tuple(one.pid for one in place.occupants or ()) for place in sample.slices} == {(os.getpid(),)}
    assert board.calls == 1 + len(sample.slices)  # again where somebody was gone, and nowhere else


def test_an_orphan_has_the_ancestors_that_it_has_now(a30: SliceSource, tmp_path: Path, spawn: Spawn) -> None:
    middle = spawn(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
    assert middle.stdout is not None
    inner = int(middle.stdout.readline())
    ancestry = Ancestry()
    assert ancestry._parent(inner) == middle.pid
    middle.kill()
    middle.wait()
    assert ancestry.is_cut(inner)
    (occupant,) = occupants(Listing(a30, tmp_path, [inner], lambda: None), None, ancestry, computing) or ()
    os.kill(inner, signal.SIGKILL)
    assert occupant.ancestors[-1] == 1
    assert middle.pid not in occupant.ancestors


def test_processes_that_the_driver_does_not_show_are_unknown_and_not_none_there(
    board: Measuring, inventory: Inventory
) -> None:
    board.shown = False
    assert {one.occupants for one in take_sample(board, inventory).slices} == {None}


def test_the_geometry_of_a_sample_is_that_of_the_inventory(board: Measuring, inventory: Inventory) -> None:
    assert cut(take_sample(board, inventory)) == cut(inventory)
