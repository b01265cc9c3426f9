"""heteromig's own reading of devices, over the real pynvml and the stand-in library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pynvml
import pytest

from heteromig.core.devices import Inventory, SliceKind
from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.messages import Discovered, Faulted, Refused
from heteromig.slices.nvml import Library
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample
from tests.nvml_library import layout
from tests.nvml_library.fixtures import Build, Connect, MakeState, environment
from tests.nvml_library.layout import COMPUTE_PROCESS, MPS_PROCESS, FieldFault, Process
from tests.nvml_library.state import DOUBLE_BIT_ECC, GPU_UNAVAILABLE, MIG_CONFIG_CHANGE, XID, State
from tests.slices.conftest import Spawn, cut, spawn
from tests.slices.test_sampler import Sampler, argv
from tests.slices.waiting import until

__all__ = ["spawn"]

MIG = parse_slices("mig")
WHOLE = parse_slices("gpu")
CUT = "a100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb"

Open = Callable[..., Library]


@pytest.fixture
def open_nvml(connect: Connect) -> Open:
    """pynvml in a child process; heteromig cannot tell it from one in its own."""

    def start(state: State | None, **named: Any) -> Library:
        return cast("Library", connect(state, initialised=False, **named))

    return start


def test_slices_are_those_of_the_gpus_that_are_cut(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, "a30", "h200-sxm-141gb/", "h100-sxm-80gb/2x3g.40gb")
    inventory = take_inventory(open_nvml(state), MIG)
    assert not inventory.simulated
    assert [(gpu.name, gpu.uuid, gpu.driver) for gpu in inventory.gpus] == [
        ("NVIDIA A100-SXM4-80GB", state.gpu_uuid(0), "580.159.04"),
        ("NVIDIA H100 80GB HBM3", state.gpu_uuid(3), "580.159.04"),
    ]
    assert [one.uuid for one in inventory.slices] == [*state.slice_uuids(0), *state.slice_uuids(3)]
    found = [(one.profile, one.gpu_instance_id, one.compute_instance_id, one.sm_count) for one in inventory.slices]
    assert found == [
        ("3g.40gb", 2, 0, 42),
        ("2g.20gb", 3, 0, 28),
        ("1g.10gb", 9, 0, 14),
        ("1g.10gb", 10, 0, 14),
        ("3g.40gb", 1, 0, 60),
        ("3g.40gb", 2, 0, 60),
    ]
    assert {one.kind for one in inventory.slices} == {SliceKind.MIG}


def test_whole_gpus_are_those_that_are_not_in_mig_mode(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h200-sxm-141gb", CUT)
    (place,) = take_inventory(open_nvml(state), WHOLE).slices
    assert (place.uuid, place.profile, place.memory_bytes) == (state.gpu_uuid(), "nvidia-h200", 143771 << 20)


def test_holes_and_shares_are_enumerated(make_state: MakeState, open_nvml: Open, connect: Connect) -> None:
    state = make_state("a100-sxm-80gb/")
    admin = connect(state)
    gpu = admin.nvmlDeviceGetHandleByIndex(0)
    instance = admin.nvmlDeviceCreateGpuInstance(gpu, 9)
    for profile in (1, 0):
        admin.nvmlGpuInstanceCreateComputeInstance(instance, profile)
    with state.edit() as machine:
        machine.gpus[0].mig_holes = 0b0101
    inventory = take_inventory(open_nvml(state), MIG)
    assert [(one.profile, one.compute_instance_id) for one in inventory.slices] == [
        ("2c.3g.40gb", 0),
        ("1c.3g.40gb", 1),
    ]
    assert {one.gpu_instance_id for one in inventory.slices} == {2}


def test_an_unprivileged_user_sees_the_slices(make_state: MakeState, open_nvml: Open, spawn: Spawn) -> None:
    state = make_state(CUT)
    child = spawn(visible=state.slice_uuids()[2])
    state.deny()
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    sample = take_sample(library, inventory)
    assert [[occupant.pid for occupant in one.occupants or ()] for one in sample.slices] == [[], [], [child.pid], []]
    assert inventory.gpus[0].memory_bytes is None
    assert sample.gpus[0].power_w == pytest.approx(61.207)


def test_gpus_of_others_are_left_alone(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, CUT, CUT)
    library = open_nvml(state)
    # nvml.h: the count is that of all GPUs, even those whose handle this user may not have.
    forbidden = state.inject("nvmlDeviceGetHandleByIndex_v2", nvml.ERROR_NO_PERMISSION, skip=1, times=1)
    inventory = take_inventory(library, MIG)
    assert forbidden.hits == 1
    assert [gpu.uuid for gpu in inventory.gpus] == [state.gpu_uuid(0), state.gpu_uuid(2)]
    state.inject("nvmlDeviceGetHandleByIndex_v2", nvml.ERROR_NO_PERMISSION)
    with pytest.raises(PreflightError, match="may use none of the 3 GPUs"):
        take_inventory(library, MIG)


@pytest.mark.parametrize(
    ("boards", "pending", "says"),
    [
        (("a30",), 0, "MIG is off on NVIDIA A30"),
        (("a30",), 1, "is off and will be on after a reset"),
        (("a30/",), 1, "is not cut into slices"),
        ((), 0, "sees no GPU"),
    ],
)
def test_a_machine_that_is_not_ready_is_refused(
    make_state: MakeState, open_nvml: Open, boards: tuple[str, ...], pending: int, says: str
) -> None:
    state = make_state(*boards)
    with state.edit() as machine:
        machine.gpus[0].mig_pending = pending
    with pytest.raises(PreflightError, match=says):
        take_inventory(open_nvml(state), MIG)


def test_without_a_driver_it_is_said_so(open_nvml: Open) -> None:
    with pytest.raises(PreflightError, match=r"NVIDIA's driver does not answer \(NVML says: Driver Not Loaded\)"):
        take_inventory(open_nvml(None), MIG)


def test_readings_are_in_the_units_of_their_names(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h100-sxm-80gb")
    library = open_nvml(state)
    inventory = take_inventory(library, WHOLE)
    with state.edit() as machine:
        one = machine.gpus[0]
        one.power_mw, one.energy_mj, one.temperature_c, one.clocks_event_reasons = 412_345, 9_876_543, 71, 0x44
        one.clocks_mhz = (1111, 1755, 2619, 1)
    (gpu,) = take_sample(library, inventory).gpus
    assert gpu.power_w == pytest.approx(412.345)
    assert gpu.energy_j == pytest.approx(9876.543)
    assert (gpu.temperature_c, gpu.sm_clock_mhz, gpu.memory_clock_mhz, gpu.throttle_reasons) == (71.0, 1755, 2619, 0x44)
    for call in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature"):
        state.inject(call, nvml.ERROR_NOT_SUPPORTED)
    (gpu,) = take_sample(library, inventory).gpus
    assert (gpu.power_w, gpu.temperature_c, gpu.sm_clock_mhz) == (None, None, 1755)


def test_pids_that_mean_nothing_here_are_occupants_all_the_same(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT)
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    with state.edit() as machine:
        machine.gpus[0].processes[0] = Process(COMPUTE_PROCESS, 1 << 30, 3, 0, 1 << 20)
    sample = take_sample(library, inventory)
    assert [[occupant.pid for occupant in one.occupants or ()] for one in sample.slices] == [[], [1 << 30], [], []]
    assert sample.slices[1].memory_used_bytes == 14 << 20


def test_of_a_shared_gpu_it_is_known_who_is_on_it_and_not_on_which_share(
    make_state: MakeState, open_nvml: Open, spawn: Spawn
) -> None:
    state = make_state("a30/", "h100-sxm-80gb")
    library = open_nvml(state)
    source = parse_slices("mps:2x50")
    inventory = take_inventory(library, source)
    assert [(gpu.index, gpu.uuid) for gpu in inventory.gpus] == [(1, state.gpu_uuid(1))]
    child = spawn(visible=state.gpu_uuid(1))
    with state.edit() as machine:
        machine.gpus[1].processes[0] = Process(MPS_PROCESS, child.pid, layout.WHOLE_GPU, layout.WHOLE_GPU, 1 << 20)
        machine.gpus[1].processes[1] = Process(MPS_PROCESS, os.getpid(), layout.WHOLE_GPU, layout.WHOLE_GPU, 1 << 20)
    sample = take_sample(library, inventory)
    assert [(one.occupants, one.memory_used_bytes) for one in sample.slices] == [(None, None)] * 2
    (gpu,) = sample.gpus
    assert sorted(one.pid for one in gpu.occupants or ()) == sorted([os.getpid(), child.pid])
    assert cut(sample) == cut(inventory) != [None]
    (blind,) = take_sample(library, msgspec.structs.replace(inventory, pids_resolve=False)).gpus
    assert blind.occupants is None
    state.inject("nvmlDeviceGetMPSComputeRunningProcesses_v3", nvml.ERROR_NOT_SUPPORTED)
    (gpu,) = take_sample(library, inventory).gpus
    assert [one.pid for one in gpu.occupants or ()] == [child.pid]
    state.inject("nvmlDeviceGetComputeRunningProcesses_v3", nvml.ERROR_NO_PERMISSION)
    (gpu,) = take_sample(library, inventory).gpus
    assert gpu.occupants is None


def test_a_lost_gpu_keeps_nobody_from_sharing_another(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h100-sxm-80gb", "h100-sxm-80gb")
    library = open_nvml(state)
    state.lose(0)
    source = parse_slices("mps:2x50")
    inventory = take_inventory(library, source)
    assert [gpu.uuid for gpu in inventory.gpus] == [state.gpu_uuid(1)]
    assert [one.index for one in inventory.unusable] == [0]
    with pytest.raises(PreflightError, match="NVML cannot read GPU 0: it says 'GPU is lost'"):
        take_inventory(library, source, "0")


def test_a_list_of_processes_that_cannot_be_had_is_unknown(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT)
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    # So many processes came between pynvml's two calls that its room for them, twice as much and five, is too little.
    state.inject("nvmlDeviceGetComputeRunningProcesses_v3", pynvml.NVML_ERROR_INSUFFICIENT_SIZE, skip=1, times=2)
    assert [one.occupants for one in take_sample(library, inventory).slices] == [(), None, (), ()]


def test_a_change_is_seen_in_a_new_session(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT)
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    state.remake(inventory.slices[1].uuid)
    stale = take_sample(library, inventory)
    assert cut(stale) == cut(inventory)
    assert [one.occupants for one in stale.slices] == [(), None, (), ()]
    nvml.reopen(library)
    assert cut(take_sample(library, inventory)) != cut(inventory)


def test_a_pending_mode_is_seen_at_once_and_is_no_other_geometry(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT)
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    with state.edit() as machine:
        machine.gpus[0].mig_pending = 0
    sample = take_sample(library, inventory)
    assert (sample.gpus[0].mig_current, sample.gpus[0].mig_pending) == (True, False)
    assert cut(sample) == cut(inventory)


def test_events_are_understood(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, "a30/")
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    watch = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
    watch.arm()
    assert watch.heard() == ((), False)
    for kind, data in ((XID, 31), (XID, 79), (GPU_UNAVAILABLE, 0), (DOUBLE_BIT_ECC, 0), (MIG_CONFIG_CHANGE, 0)):
        state.post(kind, data)
    state.post(XID, 48, gpu=1)  # is not watched
    heard = watch.heard()
    assert heard.repartitioned
    xid, unavailable, ecc = heard.faults
    assert {fault.gpu_uuid for fault in heard.faults} == {state.gpu_uuid()}
    assert f"Xid 79 on GPU {state.gpu_uuid()}" in xid.message
    assert f"GPU {state.gpu_uuid()} became unavailable" in unavailable.message
    assert f"double-bit ECC error on GPU {state.gpu_uuid()}" in ecc.message
    assert watch.listened == {state.gpu_uuid(): XID | GPU_UNAVAILABLE | DOUBLE_BIT_ECC}


def test_a_lost_gpu_makes_deaf_to_itself_alone(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, CUT)
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    watch = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
    watch.arm()
    state.lose(0)
    state.post(XID, 79, gpu=1)
    (fault,) = watch.heard().faults
    assert fault.gpu_uuid == state.gpu_uuid(1)
    assert [bool(watch.listened[gpu.uuid]) for gpu in inventory.gpus] == [False, True]
    nvml.reopen(library)
    watch.arm()
    state.post(XID, 79, gpu=1)
    assert len(watch.heard().faults) == 1


def test_of_a_lost_gpu_there_is_no_reading_and_of_the_others_there_is(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, "a30/2x2g.12gb")
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    state.lose(0)
    sample = take_sample(library, inventory)
    lost, healthy = sample.gpus
    assert f"NVML cannot read GPU {state.gpu_uuid(0)} any more: it says 'GPU is lost'" in (lost.unreadable or "")
    assert (lost.geometry, lost.power_w, healthy.unreadable) == (None, None, None)
    assert cut(sample)[1] == cut(inventory)[1] is not None
    assert [one.occupants for one in sample.slices] == [None, None, None, None, (), ()]


def test_gpus_that_cannot_be_used_keep_nobody_from_the_others(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(CUT, CUT, "a30/4x1g.6gb")
    state.lose(0)
    with state.edit() as machine:
        machine.gpus[1].mig_pending = 0
    library = open_nvml(state)
    inventory = take_inventory(library, MIG)
    assert [(gpu.index, gpu.uuid) for gpu in inventory.gpus] == [(2, state.gpu_uuid(2))]
    assert [one.uuid for one in inventory.slices] == state.slice_uuids(2)
    lost, pending = inventory.unusable
    assert (lost.index, lost.uuid, pending.index, pending.uuid) == (0, None, 1, state.gpu_uuid(1))
    assert "NVML cannot read GPU 0: it says 'GPU is lost'" in lost.message
    assert "is on and will be off after a reset" in pending.message
    state.lose(2)
    with pytest.raises(PreflightError, match=r"cannot read GPU 0: .* after a reset.* cannot read GPU 2: "):
        take_inventory(library, MIG)


def test_slowdowns_are_counted_by_reason(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h100-sxm-80gb")
    library = open_nvml(state)
    inventory = take_inventory(library, WHOLE)
    with state.edit() as machine:
        one = machine.gpus[0]
        one.sw_thermal_ns, one.hw_thermal_ns, one.hw_power_brake_ns = 11, 22, 33
        one.violation_ns[0], one.violation_ns[1] = 44, 55
    (gpu,) = take_sample(library, inventory).gpus
    assert (gpu.sw_thermal_slowdown_ns, gpu.hw_thermal_slowdown_ns, gpu.power_brake_ns) == (11, 22, 33)
    assert (gpu.power_cap_ns, gpu.thermal_slowdown_ns) == (44, None)
    with state.edit() as machine:
        machine.gpus[0].field_faults[0] = FieldFault(270, nvml.ERROR_NOT_SUPPORTED)
    (gpu,) = take_sample(library, inventory).gpus
    assert (gpu.sw_thermal_slowdown_ns, gpu.hw_thermal_slowdown_ns, gpu.thermal_slowdown_ns) == (11, None, 55)
    state.inject("nvmlDeviceGetFieldValues", nvml.ERROR_NOT_SUPPORTED)
    (gpu,) = take_sample(library, inventory).gpus
    assert (gpu.sw_thermal_slowdown_ns, gpu.thermal_slowdown_ns, gpu.power_brake_ns) == (None, None, None)


@pytest.mark.parametrize(
    "without",
    [
        ("nvmlEventSetCreate",),
        ("nvmlEventSetWait_v2",),
        ("nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"),
    ],
)
def test_an_old_library_without_events_is_left_in_peace(
    make_state: MakeState, open_nvml: Open, build_library: Build, without: tuple[str, ...]
) -> None:
    library = open_nvml(make_state(CUT), library=build_library(*without))
    inventory = take_inventory(library, MIG)
    watch = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
    watch.arm()
    assert watch.heard() == ((), False)
    assert watch.listened == {inventory.gpus[0].uuid: 0}
    watch.disarm()


def test_readings_that_an_old_library_lacks_are_unknown(
    make_state: MakeState, open_nvml: Open, build_library: Build
) -> None:
    without = (
        *("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"),
        *("nvmlDeviceGetCurrentClocksEventReasons", "nvmlSystemGetDriverVersion"),
    )
    library = open_nvml(make_state(CUT), library=build_library(*without))
    inventory = take_inventory(library, MIG)
    assert {(one.sm_count, one.memory_bytes) for one in inventory.slices} == {(None, None)}
    assert [one.profile for one in inventory.slices] == ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
    assert inventory.gpus[0].driver.startswith("n/a: library too old")
    sample = take_sample(library, inventory)
    assert (sample.gpus[0].power_w, sample.gpus[0].energy_j, sample.gpus[0].throttle_reasons) == (None, None, None)
    assert sample.gpus[0].temperature_c == 39.0


# Child processes


@pytest.fixture
def machine(make_state: MakeState, library_dir: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """What children of this test find as their NVML."""
    state = make_state(CUT)
    for name, value in environment(library_dir, state).items():
        monkeypatch.setenv(name, value)
    return state


def heteromig(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "heteromig", *arguments), capture_output=True, text=True, env=os.environ, check=False
    )


def test_the_command_lists_slices_and_who_is_on_them(machine: State, spawn: Spawn) -> None:
    child = spawn(visible=machine.slice_uuids()[1])
    listed = heteromig("slices", "--slices", "mig")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    assert machine.gpu_uuid() in lines[0]
    assert [uuid in line for uuid, line in zip(machine.slice_uuids(), lines[1:5], strict=True)] == [True] * 4
    assert f"pid {child.pid} (sleep 600)" in lines[2]
    answer = msgspec.json.decode(heteromig("slices", "--slices", "mig", "--json").stdout)
    inventory = msgspec.convert(answer["inventory"], Inventory)
    assert [one.uuid for one in inventory.slices] == machine.slice_uuids()


def test_the_command_says_what_is_wrong(machine: State) -> None:
    machine.lose()
    refused = heteromig("slices", "--slices", "mig")
    assert refused.returncode == 7
    assert "GPU is lost" in refused.stderr
    assert "Traceback" not in refused.stderr


Start = Callable[..., Sampler]


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path, machine: State) -> Start:
    assert machine.path.exists()  # it is in the environment

    def begin(**named: Any) -> Sampler:
        return Sampler(spawn(argv(tmp_path, slices="mig", **named), stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    return begin


def test_the_sampler_sees_who_comes_and_goes(start: Start, machine: State, spawn: Spawn) -> None:
    sampler = start()
    inventory = sampler.inventory()
    assert [one.uuid for one in inventory.slices] == machine.slice_uuids()
    assert [one.occupants for one in sampler.sample().slices] == [()] * 4
    child = spawn(visible=machine.slice_uuids()[3])
    sampler.ask()
    (occupant,) = sampler.sample().slices[3].occupants or ()
    assert (occupant.pid, occupant.command, occupant.ancestors[0]) == (child.pid, "sleep 600", os.getpid())
    child.kill()
    child.wait()
    sampler.ask()
    assert sampler.sample().slices[3].occupants == ()
    assert sampler.leave() == 0


@pytest.mark.parametrize("announced", [True, False])
def test_the_sampler_sees_a_new_partitioning(start: Start, machine: State, *, announced: bool) -> None:
    sampler = start(period_ms=20 if announced else 600_000)
    inventory = sampler.inventory()
    assert cut(sampler.sample()) == cut(inventory)
    machine.recut("7x1g.10gb", announced=announced)
    if announced:  # it is not even asked
        until(lambda: cut(sampler.sample()) != cut(inventory), "it notices")
    else:
        sampler.ask()
        assert cut(sampler.sample()) != cut(inventory)
    assert sampler.leave() == 0


def test_the_sampler_reports_faults_once_and_goes_on(start: Start, machine: State) -> None:
    sampler = start()
    inventory = sampler.inventory()
    sampler.sample()
    machine.post(XID, 79)
    sampler.ask()
    message = sampler.hear()
    assert isinstance(message, Faulted)
    assert "Xid 79" in message.message
    sampler.sample()
    machine.lose()
    sampler.ask()
    (lost,) = sampler.sample().gpus
    assert "GPU is lost" in (lost.unreadable or "")
    machine.lose(lost=False)
    sampler.ask()
    assert cut(sampler.sample()) == cut(inventory)
    assert sampler.leave() == 0


def test_the_sampler_can_hang_and_be_killed(start: Start, machine: State) -> None:
    sampler = start()
    sampler.inventory()
    sampler.sample()
    hang = machine.inject("nvmlDeviceGetMigMode", sleep_s=600, times=1)
    sampler.ask()
    until(lambda: hang.hits > 0, "it hangs")
    sampler.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        sampler.process.wait(0.2)
    sampler.process.kill()
    sampler.process.wait()
    successor = start()
    successor.inventory()
    successor.sample()
    assert successor.leave() == 0


def test_the_sampler_refuses_what_cannot_be(start: Start, machine: State) -> None:
    machine.inject("nvmlInitWithFlags", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, times=1)
    message = start().hear()
    assert isinstance(message, Refused)
    assert (message.exit_code, "version mismatch" in message.message) == (7, True)
    assert isinstance(start().hear(), Discovered)
