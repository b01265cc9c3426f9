from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import pynvml
import pytest

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.errors import UsageError
from heteromig.core.units import NS_PER_S
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library
from heteromig.slices.rehearsal import Rehearsal, RehearsalFile
from heteromig.slices.source import SliceSource, parse_slices
from heteromig.slices.telemetry import take_sample
from tests.slices.conftest import cut


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults.json"


@pytest.fixture
def library(a30: SliceSource, tmp_path: Path, faults: Path) -> Library:
    return open_library(a30, tmp_path, faults)


@pytest.fixture
def watch(library: Library, inventory: Inventory) -> FaultWatch:
    watch = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
    watch.arm()
    return watch


def rehearse(path: Path, **what: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(what))
    fresh.replace(path)


def test_the_file_is_read_when_it_is_there_changes_or_goes(faults: Path) -> None:
    file = RehearsalFile(faults)
    assert file.changed() is None
    rehearse(faults, xid=79)
    assert file.changed() == Rehearsal(xid=79)
    assert file.changed() is None
    rehearse(faults, gpu_lost=True)
    assert file.changed() == Rehearsal(gpu_lost=True)
    file.remove()
    assert file.changed() == Rehearsal()
    assert file.changed() is None
    assert RehearsalFile(None).changed() is None


@pytest.mark.parametrize("text", ['{"xidd": 79}', '{"xid": "79"}', '{"xid"', "[]"])
def test_a_file_that_cannot_be_understood_is_refused_once(faults: Path, text: str) -> None:
    file = RehearsalFile(faults)
    faults.write_text(text)
    with pytest.raises(UsageError, match="write JSON such as"):
        file.changed()
    assert file.changed() is None


def test_a_slice_made_again_is_seen_only_in_a_new_session(
    library: Library, inventory: Inventory, watch: FaultWatch, faults: Path
) -> None:
    rehearse(faults, geometry_changed=True)
    assert cut(take_sample(library, inventory)) == cut(inventory)
    assert watch.heard().repartitioned
    nvml.reopen(library)
    sample = take_sample(library, inventory)
    assert cut(sample) != cut(inventory)
    assert [one.occupants for one in sample.slices] == [(), (), (), None]
    assert sample.slices[3].memory_used_bytes is None


def test_an_xid_is_heard_once(watch: FaultWatch, faults: Path, inventory: Inventory) -> None:
    assert watch.heard() == ((), False)
    rehearse(faults, xid=79)
    ((uuid, sentence),), repartitioned = watch.heard()
    assert f"Xid 79 on GPU {uuid}" in sentence
    assert uuid == inventory.gpus[0].uuid
    assert not repartitioned
    assert watch.heard() == ((), False)


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_xids_of_programs_are_left_to_the_programs(watch: FaultWatch, faults: Path, xid: int) -> None:
    rehearse(faults, xid=xid)
    assert watch.heard() == ((), False)


def test_a_watch_that_is_not_armed_hears_nothing(watch: FaultWatch, faults: Path) -> None:
    watch.disarm()
    watch.disarm()
    rehearse(faults, xid=79)
    assert watch.heard() == ((), False)


def test_a_lost_gpu_answers_nothing(library: Library, inventory: Inventory, faults: Path) -> None:
    rehearse(faults, gpu_lost=True)
    sample = take_sample(library, inventory)
    assert f"{inventory.gpus[0].uuid} any more: it says 'GPU is lost'" in (sample.gpus[0].unreadable or "")
    assert {(one.occupants, one.memory_used_bytes) for one in sample.slices} == {(None, None)}
    faults.unlink()
    assert cut(take_sample(library, inventory)) == cut(inventory)


def test_a_hang_happens_once_and_removes_its_file(library: Library, inventory: Inventory, faults: Path) -> None:
    rehearse(faults, hang_s=0.2)
    before_ns = time.monotonic_ns()
    assert cut(take_sample(library, inventory)) == cut(inventory)
    assert time.monotonic_ns() - before_ns >= 0.2 * NS_PER_S
    assert not faults.exists()
    assert library.nvmlDeviceGetHandleByUUID(inventory.gpus[0].uuid)


class Pair(NamedTuple):
    """Two GPUs, of which the second has trouble."""

    library: Library
    inventory: Inventory
    watch: FaultWatch

    def sample(self) -> DeviceSample:
        return take_sample(self.library, self.inventory)


@pytest.fixture
def pair(two: SliceSource, tmp_path: Path, faults: Path) -> Pair:
    library = open_library(two, tmp_path, faults)
    inventory = take_inventory(library, two)
    watch = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
    watch.arm()
    return Pair(library, inventory, watch)


def test_a_slice_made_again_on_one_gpu_is_missing_there_only(pair: Pair, faults: Path) -> None:
    rehearse(faults, geometry_changed=True, gpu=1)
    assert pair.watch.heard() == ((), True)
    nvml.reopen(pair.library)
    sample = pair.sample()
    assert [now == then for now, then in zip(cut(sample), cut(pair.inventory), strict=True)] == [True, False]
    assert [one.occupants for one in sample.slices] == [(), (), (), (), (), None]


def test_partitionings_that_change_together_are_both_announced(pair: Pair, faults: Path) -> None:
    rehearse(faults, geometry_changed=True)
    assert pair.watch.heard().repartitioned
    rehearse(faults, geometry_changed=True, gpu=1)
    assert pair.watch.heard().repartitioned
    nvml.reopen(pair.library)
    assert [one.occupants for one in pair.sample().slices] == [(), (), (), (), (), None]
    faults.unlink()
    nvml.reopen(pair.library)
    pair.watch.arm()
    assert pair.watch.heard().repartitioned
    assert cut(pair.sample()) == cut(pair.inventory)


@pytest.mark.parametrize("index", [0, 1])
def test_an_xid_is_that_of_one_gpu(pair: Pair, faults: Path, index: int) -> None:
    rehearse(faults, xid=79, gpu=index)
    (((uuid, sentence),), _) = pair.watch.heard()
    assert uuid == pair.inventory.gpus[index].uuid
    assert pair.inventory.gpus[1 - index].uuid not in sentence


def test_an_xid_is_not_heard_where_only_other_gpus_are_listened_to(pair: Pair, faults: Path) -> None:
    watch = FaultWatch(pair.library, [pair.inventory.gpus[0].uuid])
    watch.arm()
    rehearse(faults, xid=79, gpu=1)
    assert watch.heard() == ((), False)


def test_the_other_gpus_answer_while_one_is_lost(pair: Pair, faults: Path) -> None:
    healthy, lost = pair.inventory.gpus
    handles = [pair.library.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in (healthy, lost)]
    rehearse(faults, gpu_lost=True, gpu=1)
    assert pair.library.nvmlDeviceGetHandleByUUID(healthy.uuid) is handles[0]
    assert pair.library.nvmlDeviceGetUUID(handles[0]) == healthy.uuid
    for uuid in (lost.uuid, pair.inventory.slices[-1].uuid):
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pair.library.nvmlDeviceGetHandleByUUID(uuid)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pair.library.nvmlDeviceGetMigMode(handles[1])
    sample = pair.sample()
    assert [gpu.unreadable is None for gpu in sample.gpus] == [True, False]
    assert [one.occupants for one in sample.slices] == [(), (), None, None, None, None]


def test_only_the_gpu_that_was_meant_hangs(pair: Pair, faults: Path) -> None:
    rehearse(faults, hang_s=0.2, gpu=1)
    library = pair.library
    healthy, hanging = (library.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in pair.inventory.gpus)
    assert library.nvmlDeviceGetComputeRunningProcesses(healthy) == []
    assert faults.exists()
    assert library.nvmlDeviceGetComputeRunningProcesses(hanging) == []
    assert not faults.exists()


def test_trouble_of_a_gpu_that_is_not_there_is_refused(pair: Pair, faults: Path) -> None:
    rehearse(faults, gpu_lost=True, gpu=2)
    with pytest.raises(UsageError, match="means GPU 2, and the last one is 1"):
        pair.watch.heard()
    assert cut(pair.sample()) == cut(pair.inventory)
    rehearse(faults, gpu_lost=True, gpu=-1)
    with pytest.raises(UsageError, match="write JSON such as"):
        pair.watch.heard()


def test_real_devices_do_not_rehearse(tmp_path: Path, faults: Path) -> None:
    with pytest.raises(UsageError, match="only works on simulated devices"):
        open_library(parse_slices("mig"), tmp_path, faults)


def test_real_sources_get_the_real_library(tmp_path: Path) -> None:
    assert open_library(parse_slices("mig"), tmp_path) is pynvml


def test_nothing_is_rehearsed_without_a_file(tmp_path: Path, a30: SliceSource, faults: Path) -> None:
    rehearse(faults, gpu_lost=True)
    assert len(take_inventory(open_library(a30, tmp_path), a30).slices) == 4
