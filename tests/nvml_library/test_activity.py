"""What slices do, and why readings are missing: heteromig's own code over the real pynvml and the stand-in library."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from heteromig.core.devices import Activity, DeviceSample, Inventory, Reading, Shared, SliceKind, Unavailable
from heteromig.core.units import NS_PER_S
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.gpm import SHORTEST_NS, Gpm, Scope
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.series import Series
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample
from tests.nvml_library.fixtures import Build, Connect, MakeState, environment
from tests.nvml_library.layout import Gpu, GpuInstance
from tests.nvml_library.state import State
from tests.slices.conftest import Spawn, spawn
from tests.slices.test_sampler import Sampler, argv
from tests.slices.waiting import until

__all__ = ["spawn"]

MIG = parse_slices("mig")
WHOLE = parse_slices("gpu")
HALVES = "h100-sxm-80gb/2x3g.40gb"
NO_GPM = "this GPU has no GPM counters, which come with Hopper"
TOO_OLD = "library too old: a newer driver has it"
GPM_SYMBOLS = (
    *("nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleFree", "nvmlGpmSampleGet"),
    *("nvmlGpmMigSampleGet", "nvmlGpmMetricsGet"),
)
ROOM_FOR_SAMPLES = 64
LONG_ENOUGH_S = SHORTEST_NS / NS_PER_S + 0.01

Open = Callable[..., Library]


def sm_percent(sample: DeviceSample) -> list[float | None]:
    return [None if one.activity is None else one.activity.sm_percent for one in sample.slices]


def busy(whose: Gpu | GpuInstance, **percent: float) -> None:
    """Counters of one GPU or GPU instance by the names that they answer with."""
    for metric in whose.metrics:
        name = metric.name.decode()
        if name in percent:
            metric.value = percent[name]


def lacking(whose: Gpu | GpuInstance, name: str) -> None:
    for metric in whose.metrics:
        if metric.name.decode() == name:
            metric.id = 0


@pytest.fixture
def open_nvml(connect: Connect) -> Open:
    def start(state: State, **named: Any) -> Library:
        return cast("Library", connect(state, initialised=False, **named))

    return start


class Watched:
    """A library that is sampled again and again."""

    def __init__(self, library: Library, source: Any) -> None:
        self.library = library
        self.inventory = take_inventory(library, source)
        self.series = Series(library, self.inventory)
        self.last: DeviceSample | None = None

    def sample(self, **named: Any) -> DeviceSample:
        taken = take_sample(self.library, self.inventory, series=self.series, **named)
        self.last = taken.after(self.last)
        return taken

    def reopen(self, *, trusted: bool = True) -> None:
        self.series.end_session(trusted=trusted)
        nvml.reopen(self.library)

    def activity(self) -> list[Activity | None]:
        """The next one of each slice; None of those that have none."""
        found: dict[str, Activity] = {}

        def there() -> bool:
            sample = self.sample()
            found.update({one.slice_uuid: one.activity for one in sample.slices if one.activity is not None})
            lacking = {uuid for uuid, reasons in self.reasons().items() if "activity" in reasons}
            return len(found) > 0 and found.keys() | lacking >= {one.slice_uuid for one in sample.slices}

        until(there, "two samples of each are far enough apart")
        return [found.get(one.uuid) for one in self.inventory.slices]

    def reasons(self) -> dict[str, dict[str, str]]:
        """Why which reading is missing, by its scope and name."""
        assert self.last is not None
        found: dict[str, dict[str, str]] = {}
        for one in self.last.unavailable or ():
            for scope in one.scopes:
                found.setdefault(scope, {}).update({reading.value: one.reason for reading in one.readings})
        return found


def test_a_whole_gpu_is_measured_between_two_samples(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h200-sxm-141gb")
    watched = Watched(open_nvml(state), WHOLE)
    with state.edit() as machine:
        busy(machine.gpus[0], smutil=63.456, mmaact=41.0, dram=30.25, pcitx=1.5, pcirx=2048.0)
    first = watched.sample()
    assert [one.activity for one in first.slices] == [None]
    assert first.unavailable == ()
    assert watched.activity() == [Activity(63.46, 41.0, 30.25, 1_572_864, 2 << 30)]
    assert watched.sample().unavailable is None


def test_each_slice_does_what_its_gpu_instance_does(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(HALVES)
    watched = Watched(open_nvml(state), MIG)
    with state.edit() as machine:
        first, second, *_ = machine.gpus[0].gpu_instances
        busy(first, smutil=11.0)
        busy(second, smutil=22.0)
        busy(machine.gpus[0], smutil=99.0)
    assert [one and one.sm_percent for one in watched.activity()] == [11.0, 22.0]
    assert watched.last is not None
    assert watched.last.shared == ()


def test_slices_of_one_gpu_instance_show_its_readings_and_that_is_said(
    make_state: MakeState, open_nvml: Open, connect: Connect
) -> None:
    state = make_state("h100-sxm-80gb/")
    admin = connect(state)
    gpu = admin.nvmlDeviceGetHandleByIndex(0)
    instance = admin.nvmlDeviceCreateGpuInstance(gpu, 9)
    for profile in (1, 0):
        admin.nvmlGpuInstanceCreateComputeInstance(instance, profile)
    with state.edit() as machine:
        busy(machine.gpus[0].gpu_instances[0], smutil=55.0)
    watched = Watched(open_nvml(state), MIG)
    (shared,) = watched.sample().shared or ()
    assert sorted(shared.slices) == sorted(one.uuid for one in watched.inventory.slices)
    assert shared.of == f"GPU instance 2 of GPU {state.gpu_uuid()}"
    assert shared.readings == (Reading.MEMORY, Reading.ACTIVITY)
    assert [one and one.sm_percent for one in watched.activity()] == [55.0, 55.0]
    assert watched.sample().shared is None


def test_shares_under_mps_show_what_their_gpu_does_and_nothing_of_their_own(
    make_state: MakeState, open_nvml: Open
) -> None:
    state = make_state("h100-sxm-80gb")
    with state.edit() as machine:
        busy(machine.gpus[0], smutil=55.0)
    watched = Watched(open_nvml(state), WHOLE)
    (whole,) = watched.inventory.slices
    shares = tuple(replace(whole, uuid=f"MPS-{whole.uuid}/{number}", kind=SliceKind.MPS) for number in range(3))
    watched.inventory = replace(watched.inventory, slices=shares)
    watched.series = Series(watched.library, watched.inventory)
    assert [one and one.sm_percent for one in watched.activity()] == [55.0] * 3
    assert watched.last is not None
    uuids = tuple(share.uuid for share in shares)
    assert watched.last.shared == (Shared(uuids, (Reading.ACTIVITY,), f"GPU {state.gpu_uuid()}"),)
    unseen = "NVML does not show shares under MPS one by one"
    assert watched.last.unavailable == (Unavailable(uuids, (Reading.OCCUPANTS, Reading.MEMORY), unseen),)


def test_what_a_board_does_not_count_is_missing_and_not_zero(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h100-sxm-80gb")
    with state.edit() as machine:
        busy(machine.gpus[0], smutil=50.0, dram=math.nan, pcitx=-1.0)
        lacking(machine.gpus[0], "mmaact")
    watched = Watched(open_nvml(state), WHOLE)
    assert watched.activity() == [Activity(sm_percent=50.0, pcie_rx_bytes_per_s=0)]
    assert watched.reasons() == {
        state.gpu_uuid(): {
            "activity.tensor_percent": "this board has no such counter",
            "activity.dram_percent": "NVML gave no number, as it does of counters that were just started",
            "activity.pcie_tx_bytes_per_s": "NVML gave no number, as it does of counters that were just started",
        }
    }
    with state.edit() as machine:
        busy(machine.gpus[0], dram=12.0, pcitx=1.0)
    assert [one and one.dram_percent for one in watched.activity()] == [12.0]
    assert list(watched.reasons()[state.gpu_uuid()]) == ["activity.tensor_percent"]


def test_a_counter_that_fails_takes_no_other_with_it(
    make_state: MakeState, open_nvml: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = 400
    monkeypatch.setattr("heteromig.slices.gpm._ASKED", (nvml.GPM_SM, unknown, nvml.GPM_DRAM, nvml.GPM_PCIE_TX, unknown))
    watched = Watched(open_nvml(make_state("h100-sxm-80gb")), WHOLE)
    assert watched.activity() == [Activity(sm_percent=0.0, dram_percent=0.0, pcie_tx_bytes_per_s=0)]
    (reasons,) = watched.reasons().values()
    assert list(reasons) == ["activity.tensor_percent", "activity.pcie_rx_bytes_per_s"]
    assert set(reasons.values()) == {"NVML says: Invalid Argument"}


def test_boards_before_hopper_have_no_activity(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("a30/2x2g.12gb", HALVES)
    watched = Watched(open_nvml(state), MIG)
    assert [one is None for one in watched.activity()] == [True, True, False, False]
    assert watched.last is not None
    assert watched.last.unavailable == (Unavailable(tuple(state.slice_uuids()), (Reading.ACTIVITY,), NO_GPM),)


@pytest.mark.parametrize("without", [GPM_SYMBOLS, *((name,) for name in GPM_SYMBOLS if name != "nvmlGpmSampleFree")])
def test_an_old_library_has_no_activity_and_everything_else(
    make_state: MakeState, open_nvml: Open, build_library: Build, without: tuple[str, ...]
) -> None:
    state = make_state("h100-sxm-80gb" if without == ("nvmlGpmSampleGet",) else HALVES)
    source = WHOLE if without == ("nvmlGpmSampleGet",) else MIG
    watched = Watched(open_nvml(state, library=build_library(*without)), source)
    watched.sample()
    time.sleep(LONG_ENOUGH_S)
    watched.sample()
    assert watched.reasons() == {one.uuid: {"activity": TOO_OLD} for one in watched.inventory.slices}
    sample = watched.sample()
    assert {one.activity for one in sample.slices} == {None}
    assert None not in {one.memory_used_bytes for one in sample.slices}
    watched.reopen()
    watched.sample()


def test_samples_too_close_together_measure_nothing_and_are_not_missing(
    make_state: MakeState, open_nvml: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heteromig.slices.gpm.SHORTEST_NS", 10**18)
    watched = Watched(open_nvml(make_state(HALVES)), MIG)
    for _ in range(3):
        assert [one.activity for one in watched.sample().slices] == [None, None]
    assert watched.reasons() == {}


def test_a_session_ends_with_a_reading_that_the_next_one_hands_out(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(HALVES)
    watched = Watched(open_nvml(state), MIG)
    watched.sample()
    with state.edit() as machine:
        busy(machine.gpus[0].gpu_instances[0], smutil=33.0)
        busy(machine.gpus[0].gpu_instances[1], smutil=44.0)
    time.sleep(LONG_ENOUGH_S)
    watched.reopen()
    with state.edit() as machine:
        busy(machine.gpus[0].gpu_instances[0], smutil=0.0)
    assert sm_percent(watched.sample()) == [33.0, 44.0]
    assert [one and one.sm_percent for one in watched.activity()] == [0.0, 44.0]
    assert shortly_after(watched) == [None, None]
    assert watched.reasons() == {}


def shortly_after(watched: Watched) -> list[float | None]:
    """What a session hands over that was too short to measure anything: tried until this machine was quick enough."""
    while True:
        begun_ns = time.monotonic_ns()
        watched.reopen()
        watched.sample()
        watched.reopen()
        handed_over = sm_percent(watched.sample())
        if time.monotonic_ns() - begun_ns < SHORTEST_NS:
            return handed_over


def test_samples_are_given_back(make_state: MakeState, open_nvml: Open) -> None:
    watched = Watched(open_nvml(make_state(HALVES)), MIG)
    watched.activity()
    watched.series.end_session()
    taken = [watched.library.nvmlGpmSampleAlloc() for _ in range(ROOM_FOR_SAMPLES)]
    with pytest.raises(NVMLError):
        watched.library.nvmlGpmSampleAlloc()
    nvml.reopen(watched.library)
    del taken


@pytest.mark.parametrize("call", ["nvmlGpmSampleAlloc", "nvmlGpmMigSampleGet"])
def test_what_could_not_begin_keeps_no_sample(make_state: MakeState, open_nvml: Open, call: str) -> None:
    state = make_state(HALVES)
    watched = Watched(open_nvml(state), MIG)
    refused = state.inject(call, nvml.ERROR_NO_PERMISSION, skip=1)  # of the two that each scope needs, or of the two
    watched.sample()
    assert watched.reasons()[state.slice_uuids()[1]]["activity"].startswith("this user may not read it: run as root")
    refused.clear()
    watched.activity()
    watched.activity()
    assert watched.reasons() == {}
    watched.series.end_session()
    taken = [watched.library.nvmlGpmSampleAlloc() for _ in range(ROOM_FOR_SAMPLES)]
    assert len(taken) == ROOM_FOR_SAMPLES


def test_an_instance_made_again_under_its_id_is_not_compared_with_the_one_before(
    make_state: MakeState, open_nvml: Open
) -> None:
    state = make_state(HALVES)
    library = open_nvml(state)
    take_inventory(library, MIG)
    gpm = Gpm(library)

    def scope() -> Scope:
        return Scope(state.gpu_uuid(), 2, frozenset(state.slice_uuids()[1:]))

    old = scope()
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    assert gpm.measure(old, gpu) is None
    until(lambda: gpm.measure(old, gpu) is not None, "they are far enough apart")
    state.recut("2x3g.40gb")
    assert scope() != old
    gpm.end_session(trusted=True)  # nobody was told
    nvml.reopen(library)
    assert gpm.measure(scope(), library.nvmlDeviceGetHandleByIndex(0)) is None


def test_readings_change_only_with_what_is_told_of_them(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state("h100-sxm-80gb")
    watched = Watched(open_nvml(state), WHOLE)
    assert watched.sample().unavailable == ()
    assert watched.sample().unavailable is None
    power = state.inject("nvmlDeviceGetPowerUsage", nvml.ERROR_NOT_SUPPORTED)
    energy = state.inject("nvmlDeviceGetTotalEnergyConsumption", nvml.ERROR_NO_PERMISSION)
    told = watched.sample(energy=False).unavailable
    lacks = "this board or its driver does not have it"
    assert told == (Unavailable((state.gpu_uuid(),), (Reading.POWER,), lacks),)
    watched.sample()
    assert watched.reasons()[state.gpu_uuid()]["energy_j"].startswith("this user may not read it")
    assert watched.sample(energy=False).unavailable is None  # which does not say that it can be read now
    power.clear()
    energy.clear()
    assert [one.reason[:14] for one in watched.sample(energy=False).unavailable or ()] == ["this user may "]
    assert watched.sample().unavailable == ()
    watched.series.repeat()
    repeated = watched.sample()
    assert (repeated.unavailable, repeated.shared) == ((), ())


def test_a_slice_that_is_gone_says_so(make_state: MakeState, open_nvml: Open) -> None:
    state = make_state(HALVES)
    watched = Watched(open_nvml(state), MIG)
    watched.sample()
    state.remake(watched.inventory.slices[1].uuid)
    watched.reopen()
    watched.sample()
    gone = "the slice is not there any more"
    assert watched.reasons() == {
        watched.inventory.slices[1].uuid: {"occupants": gone, "memory_used_bytes": gone, "activity": gone}
    }


def test_counters_of_a_gpu_that_is_lost_keep_nobody_from_reading_the_others(
    make_state: MakeState, open_nvml: Open
) -> None:
    state = make_state(HALVES, HALVES)
    watched = Watched(open_nvml(state), MIG)
    watched.activity()
    lost = state.inject("nvmlGpmMigSampleGet", nvml.ERROR_GPU_IS_LOST, gpu=0, times=1)
    until(lambda: watched.sample().gpus[0].unreadable is not None, "it is lost")
    assert lost.hits == 1
    first, *_ = watched.inventory.slices
    assert watched.reasons()[first.uuid]["activity"] == "the GPU cannot be read any more"
    assert watched.last is not None
    assert watched.last.gpus[1].unreadable is None
    until(lambda: watched.sample().gpus[0].unreadable is None and watched.reasons() == {}, "it is read again")
    state.inject("nvmlGpmMetricsGet", nvml.ERROR_GPU_IS_LOST)
    time.sleep(LONG_ENOUGH_S)
    watched.reopen()  # in which nothing is raised
    assert sm_percent(watched.sample()) == [None] * 4


# Child processes


@pytest.fixture
def machine(make_state: MakeState, library_dir: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    state = make_state(HALVES)
    for name, value in environment(library_dir, state).items():
        monkeypatch.setenv(name, value)
    return state


def test_the_sampler_goes_on_measuring_over_its_sessions(machine: State, spawn: Spawn, tmp_path: Path) -> None:
    command = argv(tmp_path, slices="mig", period_ms=150)
    sampler = Sampler(spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    sampler.inventory()
    first = sampler.sample()
    assert (first.unavailable, first.shared) == ((), ())
    with machine.edit() as shared:
        busy(shared.gpus[0].gpu_instances[0], smutil=64.0)
    until(lambda: sm_percent(sampler.sample()) == [64.0, 0.0], "it measures")
    sampler.ask()  # which ends the session
    found = [sm_percent(sampler.sample()) for _ in range(4)]
    assert [64.0, 0.0] in found
    assert sampler.leave() == 0


def test_the_sampler_trusts_no_counter_of_a_gpu_that_was_cut_anew(machine: State, spawn: Spawn, tmp_path: Path) -> None:
    command = argv(tmp_path, slices="mig")
    sampler = Sampler(spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    sampler.inventory()
    sampler.sample()

    time.sleep(LONG_ENOUGH_S)
    sampler.ask()  # so each session ends after a sample that is old enough
    assert sm_percent(sampler.sample()) == [0.0, 0.0]
    time.sleep(LONG_ENOUGH_S)
    uuids = machine.slice_uuids()
    machine.recut("2x3g.40gb")
    with machine.edit() as shared:  # a driver that gives them the UUIDs that they had
        for uuid, one in zip(uuids, shared.gpus[0].compute_instances, strict=False):
            one.uuid = uuid.encode()
        for one in shared.gpus[0].gpu_instances:
            busy(one, smutil=77.0)
    sampler.ask()
    assert sm_percent(sampler.sample()) == [None, None]
    assert sampler.leave() == 0


def test_the_command_tells_everything_as_json(machine: State) -> None:
    with machine.edit() as shared:
        busy(shared.gpus[0].gpu_instances[1], smutil=25.0)
        lacking(shared.gpus[0].gpu_instances[0], "mmaact")
    machine.inject("nvmlDeviceGetPowerUsage", nvml.ERROR_NOT_SUPPORTED)
    argv = (sys.executable, "-m", "heteromig", "slices", "--slices", "mig", "--json")
    answer = msgspec.json.decode(subprocess.run(argv, capture_output=True, check=True).stdout)
    inventory = msgspec.convert(answer["inventory"], Inventory)
    sample = msgspec.convert(answer["sample"], DeviceSample)
    assert sm_percent(sample) == [0.0, 25.0]
    assert [one.memory_total_bytes for one in sample.slices] == [40448 << 20] * 2
    assert sample.shared == ()
    assert {(one.scopes, one.readings) for one in sample.unavailable or ()} == {
        ((inventory.gpus[0].uuid,), (Reading.POWER,)),
        ((inventory.slices[0].uuid,), (Reading.TENSOR,)),
    }
