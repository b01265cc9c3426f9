from __future__ import annotations

import msgspec

from heteromig.core.devices import DeviceSample, Inventory, Occupant, SliceKind, SliceSample
from heteromig.views.slices_view import slices_tree
from tests.views.stories import Story, make_inventory


def lines_of(inventory: Inventory, sample: DeviceSample | None) -> list[str]:
    return [line.rstrip() for line in slices_tree(inventory, sample).plain.splitlines()]


def test_each_gpu_is_above_its_slices_with_who_uses_them() -> None:
    story = Story(inventory=make_inventory(slices=2, gpus=2)).discover().build(engines=0, of=0).start()
    lines = lines_of(story.inventory, story.run.view.sample)
    gpu = (
        "NVIDIA A100-SXM4-80GB  GPU-{}c0ffee-1111-2222-3333-444444444444  80.0 GiB  driver 535.54.03  MIG on  SIMULATED"
    )
    place = "1g.10gb  GI  {}  CI 0   9.5 GiB   14 SMs  MIG-{}beef-aaaa-5bbb-8ccc-dddddddddddd"
    used = "512.0 MiB used, pid {} (python)"
    assert lines == [
        gpu.format("00"),
        f"├─ {place.format(7, '0000')}  idle",
        f"└─ {place.format(8, '0001')}  {used.format(2011)}",
        gpu.format("01"),
        f"├─ {place.format(7, '0100')}  {used.format(2021)}",
        f"└─ {place.format(8, '0101')}  {used.format(2031)}",
        "4 slices on 2 GPU(s); SIMULATED: no GPU is involved",
    ]


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    inventory = make_inventory(slices=2, simulated=False)
    gpu = msgspec.structs.replace(inventory.gpus[0], memory_bytes=None, mig_current=True, mig_pending=False)
    whole, partial = inventory.slices
    whole = msgspec.structs.replace(whole, kind=SliceKind.GPU, gpu_instance_id=None, memory_bytes=None, sm_count=None)
    partial = msgspec.structs.replace(partial, compute_instance_id=None, sm_count=None)
    inventory = msgspec.structs.replace(inventory, gpus=(gpu,), slices=(whole, partial))
    blind = DeviceSample(0, "", (SliceSample(whole.uuid, None, 1024),), ())
    lines = lines_of(inventory, blind)
    assert lines[0].endswith("driver 535.54.03  MIG on, off after the next reset")
    assert "  gpu          memory n/a         MIG-0000beef" in lines[1]
    assert lines[1].endswith("1.0 KiB used, processes n/a (the device does not show them per slice)")
    assert "  GI  8  CI ?  9.5 GiB  " in lines[2]
    assert lines[2].endswith("use unknown (not read)")
    assert lines[3] == "2 slices on 1 GPU(s)"


def test_gpus_without_slices_and_machines_without_gpus() -> None:
    inventory = make_inventory(slices=0, simulated=False)
    gpu = msgspec.structs.replace(inventory.gpus[0], mig_current=None)
    assert lines_of(msgspec.structs.replace(inventory, gpus=(gpu,)), None)[0].endswith("no MIG")
    off = msgspec.structs.replace(gpu, mig_current=False, mig_pending=False)
    lines = lines_of(msgspec.structs.replace(inventory, gpus=(off,)), None)
    assert lines[0].endswith("MIG off")
    assert lines[1:] == ["└─ no slices", "0 slices on 1 GPU(s)"]
    assert lines_of(Inventory(simulated=False, gpus=(), slices=(), geometry=""), None) == [
        "no GPU",
        "0 slices on 0 GPU(s)",
    ]


def test_a_process_cannot_name_itself_into_the_terminal() -> None:
    inventory = make_inventory(slices=1)
    occupants = (Occupant(1, (), "\x1b[31m[red]evil"), Occupant(2, (), "other"))
    sample = DeviceSample(0, "", (SliceSample(inventory.slices[0].uuid, occupants),), ())
    assert lines_of(inventory, sample)[1].endswith("pid 1 ([red]evil), pid 2 (other)")
