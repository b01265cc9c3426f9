from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pynvml
import pytest

from heteromig.core.devices import DeviceSample, Inventory, Unavailable
from heteromig.slices import census as census_module
from heteromig.slices import nvml
from heteromig.slices.census import Census
from heteromig.slices.discovery import take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library
from heteromig.slices.series import Series
from heteromig.slices.source import SliceSource, parse_slices
from heteromig.slices.telemetry import take_sample
from tests.slices.conftest import Spawn
from tests.slices.waiting import until


def pids(sample: DeviceSample) -> list[list[int]]:
    return [[occupant.pid for occupant in one.occupants or ()] for one in sample.slices]


def test_a_process_is_seen_on_its_slice_and_nobody_else_is(
    library: Library, inventory: Inventory, spawn: Spawn
) -> None:
    child = spawn(visible=inventory.slices[1].uuid)
    spawn(visible=f"{inventory.slices[2].uuid},{inventory.slices[3].uuid}")  # CUDA would take the first; we want one
    spawn(visible="MIG-of-somebody-else")
    spawn(visible="")
    spawn()
    until(lambda: pids(take_sample(library, inventory)) == [[], [child.pid], [], []], "it is seen")
    sample = take_sample(library, inventory)
    occupants = sample.slices[1].occupants
    assert occupants is not None
    assert occupants[0].ancestors[0] == os.getpid()
    assert occupants[0].command == "sleep 600"
    assert (sample.slices[1].memory_used_bytes or 0) > 0
    assert sample.slices[0].memory_used_bytes == 0
    child.kill()
    child.wait()
    assert pids(take_sample(library, inventory)) == [[], [], [], []]


def test_who_has_just_ended_is_on_no_slice(library: Library, inventory: Inventory, spawn: Spawn) -> None:
    child = spawn(visible=inventory.slices[1].uuid)
    until(lambda: pids(take_sample(library, inventory))[1] == [child.pid], "it is seen")
    handle = library.nvmlDeviceGetHandleByUUID(inventory.slices[1].uuid)
    assert [process.pid for process in library.nvmlDeviceGetComputeRunningProcesses(handle)] == [child.pid]
    child.kill()
    child.wait()
    assert library.nvmlDeviceGetComputeRunningProcesses(handle) == []  # though all were counted a moment ago


def test_children_that_only_fork_are_on_the_slice_of_their_parent(
    library: Library, inventory: Inventory, spawn: Spawn
) -> None:
    forking = "import os, time; pid = os.fork() or os.getpid(); time.sleep(600)"
    parent = spawn([sys.executable, "-c", forking], visible=inventory.slices[0].uuid, start_new_session=True)
    until(lambda: len(pids(take_sample(library, inventory))[0]) == 2, "both are seen")
    sample = take_sample(library, inventory)
    child = next(one for one in sample.slices[0].occupants or () if one.pid != parent.pid)
    assert child.ancestors[:2] == (parent.pid, os.getpid())
    os.killpg(parent.pid, 9)


def test_a_process_that_executes_something_else_moves_to_where_its_new_environment_says(
    library: Library, inventory: Inventory, spawn: Spawn
) -> None:
    first, second = inventory.slices[0].uuid, inventory.slices[1].uuid
    # Each line on its input makes it execute itself anew, with the next argument as its only slice.
    program = (
        "import os, sys; sys.stdin.readline(); next, *rest = sys.argv[2:] or [''];"
        "os.execve(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[1], *rest],"
        " {'CUDA_VISIBLE_DEVICES': next})"
    )
    child = spawn([sys.executable, "-c", program, program, second], visible=first, stdin=subprocess.PIPE)
    assert child.stdin is not None
    there = [child.pid]
    stations: list[list[list[int]]] = [[there, [], [], []], [[], there, [], []], [[], [], [], []]]
    for expected in stations:
        until(partial(_is_at, library, inventory, expected), f"it is at {expected}")
        child.stdin.write(b"\n")
        child.stdin.flush()


def _is_at(library: Library, inventory: Inventory, expected: list[list[int]]) -> bool:
    return pids(take_sample(library, inventory)) == expected


def test_a_zombie_is_on_no_slice(library: Library, inventory: Inventory, spawn: Spawn) -> None:
    child = spawn(visible=inventory.slices[0].uuid)
    until(lambda: pids(take_sample(library, inventory))[0] == [child.pid], "it is seen")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert pids(take_sample(library, inventory))[0] == []


def test_it_works_when_no_file_can_be_kept_open(
    library: Library, inventory: Inventory, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "_KEPT_OPEN_AT_MOST", 0)
    child = spawn(visible=inventory.slices[0].uuid)
    until(lambda: pids(take_sample(library, inventory))[0] == [child.pid], "it is seen")


def test_a_kernel_thread_is_skipped_only_as_long_as_it_lives() -> None:
    census = Census()
    census._kernel_threads.add("never a pid")
    census.processes("MIG-a")
    assert "never a pid" not in census._kernel_threads


def test_nothing_that_is_not_measured_is_reported(library: Library, inventory: Inventory) -> None:
    (gpu,) = take_sample(library, inventory).gpus
    assert gpu.gpu_uuid == inventory.gpus[0].uuid
    readings = (
        gpu.power_w,
        gpu.energy_j,
        gpu.temperature_c,
        gpu.sm_clock_mhz,
        gpu.memory_clock_mhz,
        gpu.throttle_reasons,
    )
    assert readings == (None,) * 6


def test_the_whole_gpu_holds_what_its_slices_hold(library: Library, inventory: Inventory, spawn: Spawn) -> None:
    children = [spawn(visible=inventory.slices[index].uuid) for index in (0, 2)]
    until(lambda: [len(one) for one in pids(take_sample(library, inventory))] == [1, 0, 1, 0], "both are seen")
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    assert {one.pid for one in library.nvmlDeviceGetComputeRunningProcesses(gpu)} == {one.pid for one in children}
    memory = library.nvmlDeviceGetMemoryInfo(gpu)
    assert 0 < memory.used < memory.total == memory.used + memory.free


def test_a_process_on_another_gpu_is_seen_there_and_nowhere_else(
    tmp_path: Path, two: SliceSource, spawn: Spawn
) -> None:
    library = open_library(two, tmp_path)
    inventory = take_inventory(library, two)
    first, second = inventory.gpus
    child = spawn(visible=[one.uuid for one in inventory.slices if one.gpu_uuid == second.uuid][2])
    until(lambda: pids(take_sample(library, inventory)) == [[], [], [], [], [child.pid], []], "it is seen")
    used = [
        library.nvmlDeviceGetMemoryInfo(library.nvmlDeviceGetHandleByUUID(gpu.uuid)).used for gpu in (first, second)
    ]
    assert used[0] == 0 < used[1]
    processes = [
        [one.pid for one in library.nvmlDeviceGetComputeRunningProcesses(library.nvmlDeviceGetHandleByIndex(index))]
        for index in range(library.nvmlDeviceGetCount())
    ]
    assert processes == [[], [child.pid]]
    child.kill()
    child.wait()
    assert pids(take_sample(library, inventory)) == [[], [], [], [], [], []]


def test_slices_are_found_only_by_their_own_gpu(tmp_path: Path, two: SliceSource) -> None:
    library = open_library(two, tmp_path)
    inventory = take_inventory(library, two)
    gpus = [library.nvmlDeviceGetHandleByIndex(index) for index in (0, 1)]
    uuids = [
        [library.nvmlDeviceGetUUID(library.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)) for index in range(slices)]
        for gpu, slices in zip(gpus, (2, 4), strict=True)
    ]
    assert uuids == [[one.uuid for one in inventory.slices if one.gpu_uuid == gpu.uuid] for gpu in inventory.gpus]
    with pytest.raises(pynvml.NVMLError_NotFound):
        library.nvmlDeviceGetMigDeviceHandleByIndex(gpus[0], 2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlDeviceGetHandleByIndex(2)
    library.nvmlShutdown()
    library.nvmlInit()
    for gpu in gpus:
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            library.nvmlDeviceGetUUID(gpu)


def test_errors_are_those_of_nvml(library: Library, inventory: Inventory) -> None:
    gpu = library.nvmlDeviceGetHandleByUUID(inventory.gpus[0].uuid)
    one = library.nvmlDeviceGetHandleByUUID(inventory.slices[0].uuid)
    with pytest.raises(pynvml.NVMLError_NotFound):
        library.nvmlDeviceGetHandleByUUID("GPU-nobody")
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlDeviceGetHandleByIndex(1)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlDeviceGetMigMode(one)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlDeviceGetAttributes(gpu)
    with pytest.raises(pynvml.NVMLError_NotFound):
        library.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 4)
    event_set = library.nvmlEventSetCreate()
    with pytest.raises(pynvml.NVMLError_NotSupported):
        library.nvmlDeviceRegisterEvents(gpu, 1, event_set)
    with pytest.raises(pynvml.NVMLError_Timeout):
        library.nvmlEventSetWait(event_set, 1)
    library.nvmlEventSetFree(event_set)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlEventSetWait(event_set, 0)


def test_attributes_have_the_fields_of_pynvml(library: Library, inventory: Inventory) -> None:
    one = library.nvmlDeviceGetHandleByUUID(inventory.slices[0].uuid)
    real = dict(pynvml.c_nvmlDeviceAttributes._fields_)
    assert vars(library.nvmlDeviceGetAttributes(one)).keys() <= real.keys()
    assert all(issubclass(kind, ctypes._SimpleCData) for kind in real.values())


def test_two_runs_directories_do_not_see_each_other(tmp_path: Path, spawn: Spawn) -> None:
    source = parse_slices("sim:a30")
    libraries = [open_library(source, tmp_path / name) for name in ("one", "two")]
    inventories = [take_inventory(library, source) for library in libraries]
    child = spawn(visible=inventories[0].slices[0].uuid)
    until(lambda: pids(take_sample(libraries[0], inventories[0]))[0] == [child.pid], "the first sees it")
    assert pids(take_sample(libraries[1], inventories[1])) == [[], [], [], []]


# Counters


class Counted:
    """A simulated board that is sampled again and again."""

    def __init__(self, slices: str, runs_dir: Path) -> None:
        source = parse_slices(slices)
        self.library = open_library(source, runs_dir)
        self.inventory = take_inventory(self.library, source)
        self.series = Series(self.library, self.inventory)

    def sample(self) -> DeviceSample:
        return take_sample(self.library, self.inventory, series=self.series)

    def sm_percent(self) -> list[float | None]:
        return [None if one.activity is None else one.activity.sm_percent for one in self.sample().slices]


def test_a_slice_is_as_busy_as_its_processes_keep_a_processor(tmp_path: Path, spawn: Spawn) -> None:
    board = Counted("sim:h100-sxm-80gb/2x3g.40gb", tmp_path)
    assert board.sm_percent() == [None, None]
    for _ in range(3):
        spawn(["sh", "-c", "while :; do :; done"], visible=board.inventory.slices[1].uuid)
    found: list[float | None] = []

    def is_busy() -> bool:
        found[:] = board.sm_percent()
        return (found[1] or 0) > 10

    until(is_busy, "it is seen")
    assert found[0] == 0
    assert (found[1] or 0) <= 100


def test_only_boards_with_counters_have_one_and_it_is_the_only_one(tmp_path: Path) -> None:
    board = Counted("sim:a30/4g.24gb;h200-sxm-141gb/7g.141gb;b200-sxm-180gb/7g.180gb", tmp_path)
    told: list[Unavailable] = []

    def has_told() -> bool:
        sample = board.sample()
        told[:] = sample.unavailable or told
        return sample.slices[1].activity is not None

    until(has_told, "they are counted")
    reasons = {one.scopes: (len(one.readings), one.reason) for one in told}
    first, *others = (place.uuid for place in board.inventory.slices)
    assert reasons[first,] == (1, "this GPU has no GPM counters, which come with Hopper")
    assert reasons[tuple(others)] == (4, "the simulator measures no such thing")


def test_slices_of_one_gpu_instance_count_together(tmp_path: Path, spawn: Spawn) -> None:
    board = Counted("sim:h100-sxm-80gb/2x3g.40gb", tmp_path)
    gpu = board.library.nvmlDeviceGetHandleByIndex(0)
    library = board.library
    for place in board.inventory.slices:
        spawn(["sh", "-c", "while :; do :; done"], visible=place.uuid)
    first, second = (library.nvmlGpmSampleAlloc() for _ in range(2))
    until(lambda: all(pids(board.sample())), "they run")
    library.nvmlGpmSampleGet(gpu, first)

    def both_run() -> bool:
        board.sample()
        library.nvmlGpmSampleGet(gpu, second)
        (sm,) = library.nvmlGpmMetricsGet(nvml.gpm_request(first, second, (nvml.GPM_SM,))).metrics[:1]
        return bool(sm.value > 10)

    until(both_run, "they are busy")
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlGpmMigSampleGet(gpu, 9, second)


def test_counters_follow_the_rules_of_nvml(tmp_path: Path) -> None:
    library = Counted("sim:h100-sxm-80gb/7g.80gb", tmp_path).library
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    empty, one = library.nvmlGpmSampleAlloc(), library.nvmlGpmSampleAlloc()
    library.nvmlGpmSampleGet(gpu, one)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlGpmMetricsGet(nvml.gpm_request(empty, one, (nvml.GPM_SM,)))
    (sm, tensor) = library.nvmlGpmMetricsGet(nvml.gpm_request(one, one, (nvml.GPM_SM, nvml.GPM_TENSOR))).metrics[:2]
    assert math.isnan(sm.value)
    assert (tensor.nvmlReturn, tensor.value, tensor.metricInfo.shortName) == (0, 0, None)
    library.nvmlGpmSampleFree(empty)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlGpmSampleFree(empty)
    nvml.reopen(library)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlGpmSampleGet(library.nvmlDeviceGetHandleByIndex(0), one)


def test_boards_without_counters_take_no_sample(library: Library) -> None:
    nvml.reopen(library)
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    assert library.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice == 0
    with pytest.raises(pynvml.NVMLError_NotSupported):
        library.nvmlGpmSampleGet(gpu, library.nvmlGpmSampleAlloc())


def test_counting_reads_no_process_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    count = Census._count

    def counting(census: Census) -> None:
        counts.append(1)
        count(census)

    monkeypatch.setattr(Census, "_count", counting)
    monkeypatch.setattr("heteromig.slices.simulator._STILL_GOOD_NS", 10**18)  # however slow this machine is
    monkeypatch.setattr("heteromig.slices.census._LIFETIME_NS", 10**18)
    monkeypatch.setattr("heteromig.slices.gpm.SHORTEST_NS", 0)
    board = Counted("sim:h100-sxm-80gb", tmp_path)
    counts.clear()
    for number in range(1, 4):
        board.sample()
        assert len(counts) == number
    board.series.end_session()
    nvml.reopen(board.library)
    board.sample()
    assert len(counts) <= 4
