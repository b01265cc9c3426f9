from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from heteromig.core.errors import UsageError
from heteromig.slices import nvml
from heteromig.slices.boards import BOARDS
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.mig import calls
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.mig.reading import look, read_users
from heteromig.slices.nvml import NVMLError
from tests.slices.conftest import Spawn
from tests.slices.mig.bench import Bench
from tests.slices.waiting import until

BUSY = """
import sys
from pathlib import Path
from heteromig.slices.mig import calls
from tests.slices.mig.bench import Bench
library = Bench("sim:a30", Path(sys.argv[1])).library
library.nvmlInit()
gpu = library.nvmlDeviceGetHandleByIndex(0)
for _ in range(40):
    instance = calls.create_gpu_instance(library, gpu, 14, int(sys.argv[2]), 1)
    library.nvmlGpuInstanceDestroy(instance)
instance = calls.create_gpu_instance(library, gpu, 14, int(sys.argv[2]), 1)
calls.create_compute_instance(library, instance, 0, None)
"""
"""Makes and destroys an instance again and again, and leaves one."""


def opened(bench: Bench) -> PartitionLibrary:
    library = bench.library
    library.nvmlInit()
    return library


def refused(call: Callable[[], object]) -> int:
    with pytest.raises(NVMLError) as error:
        call()
    return int(error.value.value)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_offers_what_its_table_says(name: str, tmp_path: Path) -> None:
    seen = Bench(f"sim:{name}", tmp_path).look
    by_id = {profile.profile_id: profile for profile in BOARDS[name].profiles}
    assert {profile.profile_id: profile for profile in seen.offer.profiles} == by_id


def test_nothing_is_written_until_it_is_cut(a30: Bench) -> None:
    assert a30.cut == "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
    assert list(a30.runs_dir.iterdir()) == []


def test_a_cut_is_there_for_everybody_from_their_next_session_on(a30: Bench) -> None:
    other = opened(a30)
    before = a30.uuids
    a30.clear()
    a30.make("2g.12gb", 2, (0, 2))
    gpu = other.nvmlDeviceGetHandleByIndex(0)
    stale = [other.nvmlDeviceGetUUID(other.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)) for index in range(4)]
    assert stale == list(before.values())
    assert [device.uuid for device in look(other, "0").devices] == list(a30.uuids.values())
    program = (
        "import sys; from pathlib import Path; from heteromig.slices.access import enumerate_slices\n"
        "print(*(one.uuid for one in enumerate_slices(sys.argv[1], Path(sys.argv[2]))[0].slices))"
    )
    argv = [sys.executable, "-c", program, a30.slices, str(a30.runs_dir)]
    done = subprocess.run(argv, capture_output=True, check=True, text=True)
    assert done.stdout.split() == list(a30.uuids.values())


def test_a_host_that_is_cut_otherwise_by_its_name_is_another_machine(a30: Bench) -> None:
    a30.clear()
    assert a30.cut == "nothing"
    assert Bench("sim:a30/4x1g.6gb", a30.runs_dir).cut == "nothing"
    assert Bench("sim:a30/2x2g.12gb", a30.runs_dir).cut == "2g.12gb@0,2g.12gb@2"
    assert Bench("sim:2xa30", a30.runs_dir).cut == "nothing"


def test_what_is_made_again_has_another_uuid(a30: Bench) -> None:
    seen = {frozenset(a30.uuids.values())}
    for _ in range(3):
        a30.clear()
        a30.make("1g.6gb", 0, (0, 1))
        seen.add(frozenset(a30.uuids.values()))
    assert len(seen) == 4


def test_whoever_watches_is_told_of_a_new_cut_once(a30: Bench) -> None:
    library = opened(a30)
    watch = FaultWatch(library, [a30.uuid])
    watch.arm()
    assert not watch.heard().repartitioned
    a30.clear()
    assert watch.heard().repartitioned
    assert not watch.heard().repartitioned


def test_instances_must_fit(a30: Bench) -> None:
    a30.clear()
    library = opened(a30)
    gpu = library.nvmlDeviceGetHandleByIndex(0)

    def create(profile_id: int, start: int, size: int) -> Callable[[], object]:
        return lambda: calls.create_gpu_instance(library, gpu, profile_id, start, size)

    assert refused(create(99, 0, 1)) == nvml.ERROR_INVALID_ARGUMENT
    assert refused(create(5, 1, 2)) == nvml.ERROR_INVALID_ARGUMENT
    assert refused(create(5, 0, 1)) == nvml.ERROR_INVALID_ARGUMENT
    create(6, 0, 2)()
    assert refused(create(14, 1, 1)) == calls.ERROR_INSUFFICIENT_RESOURCES
    assert refused(create(21, 2, 1)) == calls.ERROR_INSUFFICIENT_RESOURCES  # the first has the media engines
    assert refused(create(6, 2, 2)) == calls.ERROR_INSUFFICIENT_RESOURCES
    create(5, 2, 2)()
    assert a30.cut == "2g.12gb+me@0(no compute instance),2g.12gb@2(no compute instance)"


def test_compute_instances_share_their_gpu_instance(h100: Bench) -> None:
    h100.clear()
    h100.make("3g.40gb", 4, (1, 2), (0, 1))
    assert h100.cut == "3g.40gb@4(1c+2c)"
    library = opened(h100)
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    parts = [library.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1)]
    assert [library.nvmlDeviceGetName(part) for part in parts] == [
        "Simulated H100 80GB HBM3 MIG 1c.3g.40gb",
        "Simulated H100 80GB HBM3 MIG 2c.3g.40gb",
    ]
    assert [library.nvmlDeviceGetAttributes(part).multiprocessorCount for part in parts] == [20, 40]
    assert {library.nvmlDeviceGetGpuInstanceId(part) for part in parts} == {2}
    assert [library.nvmlDeviceGetComputeInstanceId(part) for part in parts] == [1, 0]
    (instance,) = calls.gpu_instances(library, gpu, 9)
    assert calls.compute_profiles(library, instance) == {0: 1, 1: 2, 2: 3}
    for profile_id, place, error in (
        (0, None, calls.ERROR_INSUFFICIENT_RESOURCES),
        (0, (0, 1), calls.ERROR_INSUFFICIENT_RESOURCES),
        (0, (3, 1), nvml.ERROR_INVALID_ARGUMENT),
        (0, (0, 2), nvml.ERROR_INVALID_ARGUMENT),
        (3, None, nvml.ERROR_INVALID_ARGUMENT),
    ):
        assert refused(lambda p=profile_id, w=place: calls.create_compute_instance(library, instance, p, w)) == error  # type: ignore[misc]  # bound now
    (small,) = calls.compute_instances(library, instance, 0)
    library.nvmlComputeInstanceDestroy(small)
    calls.create_compute_instance(library, instance, 0, None)
    assert h100.cut == "3g.40gb@4(1c+2c)"


def test_what_is_in_use_is_not_destroyed(a30: Bench, spawn: Spawn) -> None:
    child = spawn(visible=a30.uuids["1g.6gb@1"])
    library = opened(a30)
    seen = look(library, "0")
    until(lambda: read_users(library, seen.open) == (child.pid,), "it is seen")
    instance = seen.instances[1]
    assert refused(lambda: library.nvmlGpuInstanceDestroy(instance.handle)) == calls.ERROR_IN_USE
    assert refused(lambda: library.nvmlComputeInstanceDestroy(instance.computes[0].handle)) == calls.ERROR_IN_USE
    child.kill()
    child.wait()
    library.nvmlComputeInstanceDestroy(instance.computes[0].handle)
    library.nvmlGpuInstanceDestroy(instance.handle)
    assert a30.cut == "1g.6gb@0,1g.6gb@2,1g.6gb@3"
    assert refused(lambda: library.nvmlGpuInstanceDestroy(instance.handle)) == nvml.ERROR_NOT_FOUND
    assert refused(lambda: library.nvmlComputeInstanceDestroy(instance.computes[0].handle)) == nvml.ERROR_NOT_FOUND
    assert refused(lambda: library.nvmlGpuInstanceGetInfo(ctypes.c_void_p(0))) == nvml.ERROR_INVALID_ARGUMENT


def test_the_mig_mode_changes_at_once_only_where_it_takes_no_reset(a30: Bench, h100: Bench) -> None:
    for bench, status, mode in (
        (h100, 0, (False, False)),
        (Bench("sim:a30", a30.runs_dir), calls.ERROR_RESET_REQUIRED, (True, False)),
    ):
        library = opened(bench)
        gpu = library.nvmlDeviceGetHandleByIndex(0)
        assert refused(lambda library=library, gpu=gpu: library.nvmlDeviceSetMigMode(gpu, 0)) == calls.ERROR_IN_USE  # type: ignore[misc]  # bound now
        bench.clear()
        assert library.nvmlDeviceSetMigMode(gpu, 0) == status
        assert bench.mode == mode
        (field,) = library.nvmlDeviceGetFieldValues(gpu, [calls.FIELD_RESETLESS_MIG])
        assert (field.nvmlReturn, field.value.uiVal) == (0, int(status == 0))


def test_without_mig_there_is_nothing_to_cut(h100: Bench) -> None:
    h100.clear()
    library = opened(h100)
    library.nvmlDeviceSetMigMode(library.nvmlDeviceGetHandleByIndex(0), 0)
    nvml.reopen(library)
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    assert library.nvmlDeviceGetMigMode(gpu) == [0, 0]
    assert library.nvmlDeviceGetMaxMigDeviceCount(gpu) == 0
    assert refused(lambda: calls.gpu_instances(library, gpu, 19)) == nvml.ERROR_NOT_SUPPORTED
    assert refused(lambda: calls.create_gpu_instance(library, gpu, 19, 0, 1)) == nvml.ERROR_NOT_SUPPORTED
    assert len(h100.look.offer.profiles) == 7


def test_processes_that_cut_at_the_same_time_do_not_undo_each_other(a30: Bench) -> None:
    a30.clear()
    children = [subprocess.Popen([sys.executable, "-c", BUSY, str(a30.runs_dir), str(start)]) for start in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert a30.cut == "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
    assert len(set(a30.uuids.values())) == 4


def test_a_state_that_is_none_is_refused(a30: Bench) -> None:
    a30.clear()
    (state,) = (a30.runs_dir / ".simulated").glob("*.json")
    state.write_text('{"instances": [], "colour": "blue"}')
    with pytest.raises(UsageError, match="remove the file, and the GPU is cut as --slices says"):
        a30.library.nvmlInit()
    state.unlink()
    assert a30.cut == "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"


def test_profiles_are_asked_for_by_numbers_that_are_not_their_ids(a30: Bench) -> None:
    library = opened(a30)
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    found = {
        number: info.name
        for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT)
        if (info := calls.profile_info(library, gpu, number)) is not None
    }
    assert found == {
        pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE: "MIG 1g.6gb",
        pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE: "MIG 2g.12gb",
        pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE: "MIG 4g.24gb",
        pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1: "MIG 1g.6gb+me",
        pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1: "MIG 2g.12gb+me",
    }
