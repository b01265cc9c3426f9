from __future__ import annotations

from pathlib import Path

import msgspec

from heteromig.core.devices import DeviceSample, Inventory, Occupant, SliceKind, SliceSample, UnusableGpu
from heteromig.slices.access import enumerate_slices
from heteromig.views.slices_view import slices_tree
from tests.views.stories import make_inventory


def lines_of(inventory: Inventory, sample: DeviceSample | None) -> list[str]:
    return [line.rstrip() for line in slices_tree(inventory, sample).plain.splitlines()]


def test_each_gpu_is_above_its_slices_with_who_uses_them() -> None:
    inventory = make_inventory(slices=2, gpus=2)
    users: tuple[tuple[Occupant, ...], ...] = ((), (Occupant(2011, (), "python"),), (Occupant(2021, (), "python"),), ())
    readings = tuple(
        SliceSample(place.uuid, occupants, (512 << 20) * len(occupants))
        for place, occupants in zip(inventory.slices, users, strict=True)
    )
    lines = lines_of(inventory, DeviceSample(0, readings, ()))
    gpu = (
        "GPU {}  NVIDIA A100-SXM4-80GB  GPU-0{}c0ffee-1111-2222-3333-444444444444  80.0 GiB  driver 535.54.03  MIG on"
        "  SIMULATED"
    )
    place = "1g.10gb  GI  {}  CI 0   9.5 GiB   14 SMs  MIG-{}beef-aaaa-5bbb-8ccc-dddddddddddd"
    used = "512.0 MiB used, pid {} (python)"
    assert lines == [
        gpu.format(0, 0),
        f"├─ {place.format(7, '0000')}  0 B used, idle",
        f"└─ {place.format(8, '0001')}  {used.format(2011)}",
        gpu.format(1, 1),
        f"├─ {place.format(7, '0100')}  {used.format(2021)}",
        f"└─ {place.format(8, '0101')}  0 B used, idle",
        "4 slices on 2 GPU(s); SIMULATED: no GPU is involved",
    ]


def test_gpus_that_are_cut_differently_each_have_their_own_columns(tmp_path: Path) -> None:
    inventory, sample = enumerate_slices("sim:a30/2g.12gb,2x1g.6gb;h100-sxm-80gb/7g.80gb", tmp_path)
    lines = [line.replace("SIM-", "") for line in lines_of(inventory, sample)]
    gpus, slices = [gpu.uuid[4:] for gpu in inventory.gpus], [place.uuid[4:] for place in inventory.slices]
    assert lines == [
        f"GPU 0  Simulated A30  {gpus[0]}  24.0 GiB  driver simulated  MIG on  SIMULATED",
        f"├─ 2g.12gb  GI  1  CI 0  11.7 GiB   28 SMs  {slices[0]}  0 B used, idle",
        f"├─ 1g.6gb   GI  5  CI 0   5.8 GiB   14 SMs  {slices[1]}  0 B used, idle",
        f"└─ 1g.6gb   GI  6  CI 0   5.8 GiB   14 SMs  {slices[2]}  0 B used, idle",
        f"GPU 1  Simulated H100 80GB HBM3  {gpus[1]}  79.6 GiB  driver simulated  MIG on  SIMULATED",
        f"└─ 7g.80gb  GI  0  CI 0  79.2 GiB  132 SMs  {slices[3]}  0 B used, idle",
        "4 slices on 2 GPU(s); SIMULATED: no GPU is involved",
    ]


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    inventory = make_inventory(slices=2, simulated=False)
    gpu = msgspec.structs.replace(inventory.gpus[0], memory_bytes=None, mig_current=True, mig_pending=False)
    whole, partial = inventory.slices
    whole = msgspec.structs.replace(whole, kind=SliceKind.GPU, gpu_instance_id=None, memory_bytes=None, sm_count=None)
    partial = msgspec.structs.replace(partial, compute_instance_id=None, sm_count=None)
    inventory = msgspec.structs.replace(inventory, gpus=(gpu,), slices=(whole, partial))
    blind = DeviceSample(0, (SliceSample(whole.uuid, None, 1024),), ())
    lines = lines_of(inventory, blind)
    assert lines[0].endswith("driver 535.54.03  MIG on, off after the next reset")
    assert "  gpu          memory n/a         MIG-0000beef" in lines[1]
    assert lines[1].endswith("1.0 KiB used, processes n/a (the device does not show them per slice)")
    assert "  GI  8  CI ?  9.5 GiB  " in lines[2]
    assert lines[2].endswith("use unknown (not read)")
    assert lines[3] == "2 slices on 1 GPU(s)"


def test_gpus_that_cannot_be_used_are_named_with_their_index() -> None:
    inventory = make_inventory(slices=1, simulated=False)
    gpu = msgspec.structs.replace(inventory.gpus[0], index=11)
    lost = UnusableGpu(2, None, "NVML cannot read GPU 2: it says 'GPU is lost'.")
    inventory = msgspec.structs.replace(inventory, gpus=(gpu,), unusable=(lost,))
    lines = lines_of(inventory, None)
    assert lines[0].startswith("GPU 11  NVIDIA A100-SXM4-80GB  ")
    assert lines[2:] == [
        "GPU  2  not usable: NVML cannot read GPU 2: it says 'GPU is lost'.",
        "1 slice on 1 GPU(s)",
    ]
    alone = msgspec.structs.replace(inventory, unusable=())
    assert lines_of(alone, None)[0].startswith("GPU 11  "), "it is what --gpu takes"
    unknown = msgspec.structs.replace(gpu, index=None)
    assert lines_of(msgspec.structs.replace(inventory, gpus=(unknown,)), None)[0].startswith("GPU ?  ")


def test_gpus_without_slices_and_machines_without_gpus() -> None:
    inventory = make_inventory(slices=0, simulated=False)
    gpu = msgspec.structs.replace(inventory.gpus[0], mig_current=None)
    assert lines_of(msgspec.structs.replace(inventory, gpus=(gpu,)), None)[0].endswith("no MIG")
    off = msgspec.structs.replace(gpu, mig_current=False, mig_pending=False)
    lines = lines_of(msgspec.structs.replace(inventory, gpus=(off,)), None)
    assert lines[0].endswith("MIG off")
    assert lines[1:] == ["└─ no slices", "0 slices on 1 GPU(s)"]
    assert lines_of(Inventory(simulated=False, gpus=(), slices=()), None) == [
        "no GPU",
        "0 slices on 0 GPU(s)",
    ]


def test_a_process_cannot_name_itself_into_the_terminal() -> None:
    inventory = make_inventory(slices=1)
    occupants = (Occupant(1, (), "\x1b[31m[red]evil"), Occupant(2, (), "other"))
    sample = DeviceSample(0, (SliceSample(inventory.slices[0].uuid, occupants),), ())
    assert lines_of(inventory, sample)[1].endswith("pid 1 ([red]evil), pid 2 (other)")
