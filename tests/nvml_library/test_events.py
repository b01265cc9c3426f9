from __future__ import annotations

import pynvml
import pytest

from tests.nvml_library.fixtures import Connect, MakeState
from tests.nvml_library.layout import MAX_EVENTS, WHOLE_GPU, Event
from tests.nvml_library.remote import Handle, Remote
from tests.nvml_library.state import GPU_UNAVAILABLE, MIG_CONFIG_CHANGE, XID

DOUBLE_BIT = 0x2


def listen(nvml: Remote, *types: int, gpus: tuple[int, ...] = (0,)) -> Handle:
    listening: Handle = nvml.nvmlEventSetCreate()
    for gpu in gpus:
        nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(gpu), sum(types), listening)
    return listening


def heard(nvml: Remote, listening: Handle) -> list[tuple[int, int]]:
    """Type and data of everything that is there."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            event = nvml.nvmlEventSetWait(listening, 0)
        except pynvml.NVMLError_Timeout:
            return found
        found.append((event.eventType, event.eventData))


def test_an_event_says_what_happened_where(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30", "a30/4x1g.6gb")
    nvml = connect(state)
    listening = listen(nvml, XID, gpus=(0, 1))
    state.post(XID, 79, gpu=1)
    event = nvml.nvmlEventSetWait(listening, 1000)
    assert vars(event) == {
        "device": nvml.nvmlDeviceGetHandleByIndex(1),
        "eventType": XID,
        "eventData": 79,
        "gpuInstanceId": WHOLE_GPU,
        "computeInstanceId": WHOLE_GPU,
    }
    with pytest.raises(pynvml.NVMLError_Timeout):
        nvml.nvmlEventSetWait(listening, 10)


def test_what_came_before_is_not_heard_and_the_rest_is_in_order(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    nvml = connect(state)
    state.post(XID, 1)
    first = listen(nvml, XID, GPU_UNAVAILABLE)
    state.post(XID, 2)
    second = listen(nvml, XID)
    for data in (3, 4):
        state.post(XID, data)
    state.post(GPU_UNAVAILABLE)
    state.post(DOUBLE_BIT)
    assert heard(nvml, first) == [(XID, 2), (XID, 3), (XID, 4), (GPU_UNAVAILABLE, 0)]
    assert heard(nvml, second) == [(XID, 3), (XID, 4)]
    assert heard(nvml, first) == []


def test_an_event_reaches_a_process_that_waits_for_it(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30/4x1g.6gb")
    nvml, other = connect(state), connect(state)
    listening = listen(nvml, XID, MIG_CONFIG_CHANGE)
    nvml.begin("nvmlEventSetWait", listening, 60_000)
    gpu = other.nvmlDeviceGetHandleByIndex(0)
    instance = other.nvmlDeviceGetGpuInstanceById(gpu, 4)
    other.nvmlComputeInstanceDestroy(*other.compute_instances(instance, 0))
    event = nvml.finish()
    assert (event.eventType, event.eventData) == (MIG_CONFIG_CHANGE, 0)
    other.nvmlGpuInstanceDestroy(instance)
    other.nvmlGpuInstanceCreateComputeInstance(other.nvmlDeviceCreateGpuInstance(gpu, 14), 0)
    assert heard(nvml, listening) == [(MIG_CONFIG_CHANGE, 0)] * 3


def test_only_what_the_board_offers_is_heard(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    with state.edit() as machine:
        machine.gpus[0].supported_events = XID
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetSupportedEventTypes(gpu) == XID
    listening = listen(nvml, XID, MIG_CONFIG_CHANGE)
    state.post(MIG_CONFIG_CHANGE)
    assert heard(nvml, listening) == []
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceRegisterEvents(gpu, 0x10000, listening)


def test_a_set_without_a_gpu_or_that_is_gone(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30/4x1g.6gb"))
    listening = nvml.nvmlEventSetCreate()
    with pytest.raises(pynvml.NVMLError_Timeout):
        nvml.nvmlEventSetWait(listening, 5)
    mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(nvml.nvmlDeviceGetHandleByIndex(0), 0)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):  # events are of GPUs
        nvml.nvmlDeviceRegisterEvents(mig, XID, listening)
    nvml.nvmlEventSetFree(listening)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlEventSetFree(listening)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlEventSetWait(listening, 0)
    kept = nvml.nvmlEventSetCreate()
    nvml.nvmlShutdown()
    nvml.nvmlInit()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlEventSetWait(kept, 0)


def test_a_lost_gpu_is_not_silent(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30", "a30")
    nvml = connect(state)
    both, one = listen(nvml, XID, gpus=(0, 1)), listen(nvml, XID, gpus=(1,))
    nvml.begin("nvmlEventSetWait", both, 60_000)
    state.lose()
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        nvml.finish()
    assert heard(nvml, one) == []


def test_instances_are_told_of_to_those_who_may_know(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30/4x1g.6gb")
    nvml = connect(state)
    listening = listen(nvml, XID)

    def happens() -> tuple[int, int]:
        with state.edit() as machine:
            machine.last_sequence += 1
            machine.events[machine.last_sequence % MAX_EVENTS] = Event(machine.last_sequence, XID, 31, 0, 4, 0)
        event = nvml.nvmlEventSetWait(listening, 0)
        return event.gpuInstanceId, event.computeInstanceId

    assert happens() == (4, 0)
    state.deny()
    assert happens() == (WHOLE_GPU, WHOLE_GPU)


def test_of_a_storm_the_last_events_are_kept(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    nvml = connect(state)
    listening = listen(nvml, XID)
    for data in range(MAX_EVENTS + 10):
        state.post(XID, data)
    assert heard(nvml, listening) == [(XID, data) for data in range(10, MAX_EVENTS + 10)]
