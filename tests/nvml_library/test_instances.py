from __future__ import annotations

import pynvml
import pytest

from tests.nvml_library.boards import DRIVEN, enumerator
from tests.nvml_library.fixtures import Connect, MakeState
from tests.nvml_library.remote import Handle, Remote

A100 = "a100-sxm-80gb"
H200 = "h200-sxm-141gb"

G1, G1_ME, G1_DOUBLE, G2, G3, G4, G7 = 19, 20, 15, 14, 9, 5, 0
"""Ids of profiles on boards with seven compute slices."""

ENUMERATORS = range(0x13)


def first(nvml: Remote) -> Handle:
    found: Handle = nvml.nvmlDeviceGetHandleByIndex(0)
    return found


def ids(nvml: Remote, instances: list[Handle]) -> list[int]:
    return [nvml.nvmlGpuInstanceGetInfo(one).id for one in instances]


@pytest.mark.parametrize("name", DRIVEN)
@pytest.mark.parametrize("version", [1, 2])
def test_profiles_are_those_of_the_board(make_state: MakeState, connect: Connect, name: str, version: int) -> None:
    nvml = connect(make_state(name))  # profiles are known with MIG off
    gpu = first(nvml)
    profiles = {enumerator(profile): profile for profile in DRIVEN[name].board.profiles}
    for number in set(ENUMERATORS) - profiles.keys():
        missing = pynvml.NVMLError_InvalidArgument if number > 0x10 else pynvml.NVMLError_NotSupported
        with pytest.raises(missing):
            nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, version=version)
    for number, profile in profiles.items():
        info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, version=version)
        assert (info.id, info.sliceCount, info.instanceCount, info.multiprocessorCount, info.memorySizeMB << 20) == (
            profile.profile_id,
            profile.compute_slices,
            profile.max_instances,
            profile.sm_count,
            profile.memory_bytes,
        )
        assert info.isP2pSupported == 0
        if version == 2:
            assert (info.version, info.name) == (0, f"MIG {profile.name}")
        assert nvml.placements(gpu, profile.profile_id) == [(start, profile.size) for start in profile.starts]
        assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, profile.profile_id) == profile.max_instances
        assert nvml.gpu_instances(gpu, profile.profile_id) == []


def test_an_h200_has_the_engines_that_a_real_one_has(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(H200))
    gpu = first(nvml)
    found = {}
    for profile in (0, 1, 2, 3, 4, 7, 9):
        info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, profile)
        found[info.name] = (info.copyEngineCount, info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount)
    assert found == {
        "MIG 1g.18gb": (1, 1, 0, 1, 0),
        "MIG 2g.35gb": (2, 2, 0, 2, 0),
        "MIG 3g.71gb": (3, 3, 0, 3, 0),
        "MIG 4g.71gb": (4, 4, 0, 4, 0),
        "MIG 7g.141gb": (8, 7, 0, 7, 1),
        "MIG 1g.18gb+me": (1, 1, 0, 1, 1),
        "MIG 1g.35gb": (1, 1, 0, 1, 0),
    }


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ([G1] * 7, [13, 11, 12, 7, 8, 9, 10]),
        ([G1, G2, G4], [13, 5, 1]),
        ([G3, G2, G1, G1], [2, 3, 9, 10]),
        ([G3, G3], [2, 1]),
        ([G4, G3], [1, 2]),
        ([G7], [0]),
        ([G1_DOUBLE] * 4, [6, 5, 3, 4]),
        ([G1_ME, G1], [13, 11]),
    ],
)
def test_a_driver_places_instances_as_the_user_guide_shows(
    make_state: MakeState, connect: Connect, profiles: list[int], expected: list[int]
) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    assert ids(nvml, [nvml.nvmlDeviceCreateGpuInstance(gpu, profile) for profile in profiles]) == expected


def test_room_that_is_scattered_is_no_room(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    for profile in (G1, G1, G2):
        nvml.nvmlDeviceCreateGpuInstance(gpu, profile)
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, G3) == 0
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, G2) == 1
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        nvml.nvmlDeviceCreateGpuInstance(gpu, G3)
    (one, _) = nvml.gpu_instances(gpu, G1)
    nvml.nvmlGpuInstanceDestroy(one)
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, G3) == 0
    (one,) = nvml.gpu_instances(gpu, G1)
    nvml.nvmlGpuInstanceDestroy(one)
    assert ids(nvml, [nvml.nvmlDeviceCreateGpuInstance(gpu, G3)]) == [2]


def test_an_instance_goes_where_it_is_told_to(make_state: MakeState, connect: Connect) -> None:
    state = make_state(f"{A100}/")
    nvml = connect(state)
    gpu = first(nvml)
    one = nvml.create_at(gpu, G3, 0, 4)
    info = nvml.nvmlGpuInstanceGetInfo(one)
    assert (info.device, info.id, info.profileId) == (gpu, 1, G3)
    assert (info.placement.start, info.placement.size) == (0, 4)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        nvml.create_at(gpu, G2, 2, 2)
    for start, size in ((1, 2), (6, 2), (4, 1), (40, 2)):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.create_at(gpu, G2, start, size)
    nvml.create_at(gpu, G2, 4, 2)
    nvml.create_at(gpu, G1, 6, 1)
    assert state.geometry() == [("3g.40gb", 1, 0, 0), ("2g.20gb", 5, 4, 0), ("1g.10gb", 13, 6, 0)]
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        nvml.nvmlDeviceCreateGpuInstance(gpu, G1)


def test_there_is_one_set_of_media_engines(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    nvml.nvmlDeviceCreateGpuInstance(gpu, G1_ME)
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, G1_ME) == 0
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        nvml.nvmlDeviceCreateGpuInstance(gpu, G1_ME)
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, G1) == 6


def test_profiles_of_other_boards_are_not_supported(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    for call in (nvml.placements, nvml.nvmlDeviceGetGpuInstanceRemainingCapacity, nvml.nvmlDeviceCreateGpuInstance):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            call(gpu, 21)
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            call(gpu, 77)
    assert nvml.gpu_instances(gpu, 21) == []
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.gpu_instances(gpu, 77)


def test_instances_are_found_by_profile_and_id(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/3g.40gb,2g.20gb,2x1g.10gb"))
    gpu = first(nvml)
    assert [sorted(ids(nvml, nvml.gpu_instances(gpu, profile))) for profile in (G3, G2, G1, G7)] == [
        [2],
        [3],
        [9, 10],
        [],
    ]
    assert nvml.nvmlGpuInstanceGetInfo(nvml.nvmlDeviceGetGpuInstanceById(gpu, 10)).profileId == G1
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetGpuInstanceById(gpu, 7)


def test_mig_must_be_on_to_cut(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(A100))
    gpu = first(nvml)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceCreateGpuInstance(gpu, G1)
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetGpuInstanceById(gpu, 7)
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) == 0


def shares(nvml: Remote, instance: Handle) -> dict[str, tuple[int, int, int, list[tuple[int, int]]]]:
    found = {}
    for number in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0)
        except pynvml.NVMLError_NotSupported:
            continue
        places = nvml.compute_placements(instance, info.id)
        found[info.name] = (info.id, info.sliceCount, info.multiprocessorCount, places)
        older = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0, version=1)
        assert vars(older).items() <= vars(info).items()
        assert info.instanceCount == len(places)
        assert nvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance, info.id) == len(places)
    return found


def test_a_gpu_instance_is_cut_into_shares(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/", f"{H200}/"))
    four = nvml.nvmlDeviceCreateGpuInstance(first(nvml), G4)
    three = nvml.nvmlDeviceCreateGpuInstance(first(nvml), G3)
    seven = nvml.nvmlDeviceCreateGpuInstance(nvml.nvmlDeviceGetHandleByIndex(1), G7)
    assert shares(nvml, four) == {
        "MIG 1c.4g.40gb": (0, 1, 14, [(0, 1), (1, 1), (2, 1), (3, 1)]),
        "MIG 2c.4g.40gb": (1, 2, 28, [(0, 2), (2, 2)]),
        "MIG 4g.40gb": (3, 4, 56, [(0, 4)]),
    }
    assert shares(nvml, three) == {
        "MIG 1c.3g.40gb": (0, 1, 14, [(0, 1), (1, 1), (2, 1)]),
        "MIG 2c.3g.40gb": (1, 2, 28, [(0, 2)]),
        "MIG 3g.40gb": (2, 3, 42, [(0, 3)]),
    }
    assert shares(nvml, seven) == {
        "MIG 1c.7g.141gb": (0, 1, 16, [(start, 1) for start in range(7)]),
        "MIG 2c.7g.141gb": (1, 2, 32, [(0, 2), (2, 2), (4, 2)]),
        "MIG 3c.7g.141gb": (2, 3, 48, [(0, 3), (4, 3)]),
        "MIG 4c.7g.141gb": (3, 4, 64, [(0, 4)]),
        "MIG 7g.141gb": (4, 7, 132, [(0, 7)]),
    }
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(four, 0, 1)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(four, 9, 0)


def test_shares_of_an_instance_are_mig_devices_of_their_own(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    parent = nvml.nvmlDeviceCreateGpuInstance(gpu, G3)
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) == 7
    with pytest.raises(pynvml.NVMLError_NotFound):  # nothing to run on before there is a compute instance
        nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    last = nvml.compute_create_at(parent, 0, 2, 1)
    rest = nvml.nvmlGpuInstanceCreateComputeInstance(parent, 1)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        nvml.nvmlGpuInstanceCreateComputeInstance(parent, 0)
    for start, size in ((2, 2), (0, 3), (9, 1)):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.compute_create_at(parent, 0, start, size)
    infos = [nvml.nvmlComputeInstanceGetInfo(one) for one in (last, rest)]
    assert [(one.device, one.gpuInstance, one.id, one.profileId) for one in infos] == [
        (gpu, parent, 0, 0),
        (gpu, parent, 1, 1),
    ]
    assert [(one.placement.start, one.placement.size) for one in infos] == [(2, 1), (0, 2)]
    devices = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1)]
    assert [nvml.nvmlDeviceGetName(one).rpartition(" MIG ")[2] for one in devices] == ["1c.3g.40gb", "2c.3g.40gb"]
    attributes = [nvml.nvmlDeviceGetAttributes(one) for one in devices]
    assert [
        (one.multiprocessorCount, one.computeInstanceSliceCount, one.gpuInstanceSliceCount) for one in attributes
    ] == [
        (14, 1, 3),
        (28, 2, 3),
    ]
    assert nvml.compute_instances(parent, 1) == [rest]
    assert nvml.nvmlGpuInstanceGetComputeInstanceById(parent, 0) == last
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlGpuInstanceGetComputeInstanceById(parent, 2)
    nvml.nvmlComputeInstanceDestroy(last)
    again = nvml.nvmlGpuInstanceCreateComputeInstance(parent, 0)
    assert nvml.nvmlComputeInstanceGetInfo(again).id == 0


def test_what_is_in_use_is_not_destroyed(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/"))
    gpu = first(nvml)
    parent = nvml.nvmlDeviceCreateGpuInstance(gpu, G2)
    child = nvml.nvmlGpuInstanceCreateComputeInstance(parent, 1)
    with pytest.raises(pynvml.NVMLError_InUse):
        nvml.nvmlGpuInstanceDestroy(parent)
    nvml.nvmlComputeInstanceDestroy(child)
    nvml.nvmlGpuInstanceDestroy(parent)
    for call, gone in (
        (nvml.nvmlComputeInstanceDestroy, child),
        (nvml.nvmlComputeInstanceGetInfo, child),
        (nvml.nvmlGpuInstanceDestroy, parent),
        (nvml.nvmlGpuInstanceGetInfo, parent),
    ):
        with pytest.raises(pynvml.NVMLError_NotFound):
            call(gone)
    assert nvml.gpu_instances(gpu, G2) == []


def test_who_may_not_cut_may_not_look_either(make_state: MakeState, connect: Connect) -> None:
    state = make_state(f"{A100}/7x1g.10gb", A100)
    nvml = connect(state)
    gpu, uncut = first(nvml), nvml.nvmlDeviceGetHandleByIndex(1)
    instance = nvml.gpu_instances(gpu, G1)[0]
    device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    state.deny()
    for call, *arguments in (
        (nvml.gpu_instances, gpu, G1),
        (nvml.nvmlDeviceGetGpuInstanceById, gpu, 7),
        (nvml.placements, gpu, G1),
        (nvml.nvmlDeviceGetGpuInstanceRemainingCapacity, gpu, G1),
        (nvml.nvmlDeviceCreateGpuInstance, gpu, G1),
        (nvml.nvmlGpuInstanceGetInfo, instance),
        (nvml.nvmlGpuInstanceDestroy, instance),
        (nvml.nvmlDeviceSetMigMode, gpu, 0),
        (nvml.nvmlDeviceGetMemoryInfo, gpu),
        (nvml.nvmlDeviceGetComputeRunningProcesses, gpu),
    ):
        with pytest.raises(pynvml.NVMLError_NoPermission):
            call(*arguments)
    assert nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, 0).id == G1
    assert nvml.nvmlDeviceGetMemoryInfo(device).total == 9728 << 20
    assert nvml.nvmlDeviceGetComputeRunningProcesses(device) == []
    assert nvml.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert len(nvml.placements(uncut, G1)) == 7


def set_mode(nvml: Remote, mode: int) -> tuple[int, list[int]]:
    return nvml.nvmlDeviceSetMigMode(first(nvml), mode), nvml.nvmlDeviceGetMigMode(first(nvml))


def test_the_mode_of_a_hopper_changes_at_once(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(H200))
    assert set_mode(nvml, 1) == (0, [1, 1])
    assert nvml.nvmlDeviceGetMaxMigDeviceCount(first(nvml)) == 7
    instance = nvml.nvmlDeviceCreateGpuInstance(first(nvml), G7)
    assert set_mode(nvml, 0) == (pynvml.NVML_ERROR_IN_USE, [1, 0])
    assert set_mode(nvml, 1) == (0, [1, 1])
    nvml.nvmlGpuInstanceDestroy(instance)
    assert set_mode(nvml, 0) == (0, [0, 0])
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceSetMigMode(first(nvml), 2)


def test_the_mode_of_an_ampere_waits_for_a_reset_and_for_clients(make_state: MakeState, connect: Connect) -> None:
    state = make_state(A100)
    nvml = connect(state)
    with state.edit() as machine:
        machine.gpus[0].held_open = 1
    assert set_mode(nvml, 1) == (pynvml.NVML_ERROR_IN_USE, [0, 1])
    with state.edit() as machine:
        machine.gpus[0].held_open = 0
    assert set_mode(nvml, 1) == (pynvml.NVML_ERROR_RESET_REQUIRED, [0, 1])
    with state.edit() as machine:
        machine.gpus[0].mig_current = 1
    assert nvml.nvmlDeviceGetMigMode(first(nvml)) == [1, 1]


def test_a_board_may_have_no_mig(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    with state.edit() as machine:
        machine.gpus[0].mig_capable = 0
    nvml = connect(state)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetMigMode(first(nvml))
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceSetMigMode(first(nvml), 1)
