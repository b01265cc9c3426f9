"""The slices of a machine as a tree: each GPU above its slices, and who is using them."""

from __future__ import annotations

from rich.text import Text

from heteromig.core.devices import DeviceSample, Gpu, Inventory, Slice, SliceKind, SliceSample
from heteromig.core.units import format_bytes
from heteromig.views.text import fit, printable

_BRANCH = "├─ "
_LAST_BRANCH = "└─ "


def slices_tree(inventory: Inventory, sample: DeviceSample | None) -> Text:
    """`inventory` with what `sample` says of processes and memory; UUIDs are whole, to be copied.

    Where there are several GPUs each has its index, which `--gpu` takes.
    """
    readings = {reading.slice_uuid: reading for reading in sample.slices} if sample is not None else {}
    text = Text()
    for index, gpu in enumerate(inventory.gpus):
        if len(inventory.gpus) > 1:
            text.append(f"GPU {index:>{len(str(len(inventory.gpus) - 1))}}  ")
        _append_gpu(text, gpu, simulated=inventory.simulated)
        slices = [place for place in inventory.slices if place.gpu_uuid == gpu.uuid]
        ids = [_instance(place) for place in slices]
        profiles = [printable(place.profile) for place in slices]
        id_width, profile_width = max(map(len, ids), default=0), max(map(len, profiles), default=0)
        for place, instance, profile in zip(slices, ids, profiles, strict=True):
            text.append(_LAST_BRANCH if place is slices[-1] else _BRANCH, "dim")
            text.append(fit(profile, profile_width), "cyan")
            text.append(f"  {fit(instance, id_width)}  {_size(place):<17}  {printable(place.uuid)}  ")
            _append_users(text, readings.get(place.uuid))
            text.append("\n")
        if not slices:
            text.append(f"{_LAST_BRANCH}no slices\n", "dim")
    if not inventory.gpus:
        text.append("no GPU\n")
    count = len(inventory.slices)
    text.append(f"{count} slice{'' if count == 1 else 's'} on {len(inventory.gpus)} GPU(s)")
    if inventory.simulated:
        text.append("; SIMULATED: no GPU is involved", "yellow")
    if any(place.kind is SliceKind.MPS for place in inventory.slices):
        text.append("; isolation: soft, under an MPS daemon that a run starts and ends", "yellow")
    return text


def _append_gpu(text: Text, gpu: Gpu, *, simulated: bool) -> None:
    text.append(printable(gpu.name), "bold")
    text.append(f"  {printable(gpu.uuid)}")
    if gpu.memory_bytes is not None:
        text.append(f"  {format_bytes(gpu.memory_bytes)}")
    text.append(f"  driver {printable(gpu.driver)}  {_mig(gpu)}")
    if simulated:
        text.append("  SIMULATED", "bold yellow")
    text.append("\n")


def _mig(gpu: Gpu) -> str:
    if gpu.mig_current is None:
        return "no MIG"
    now = "MIG on" if gpu.mig_current else "MIG off"
    if gpu.mig_pending is None or gpu.mig_pending == gpu.mig_current:
        return now
    return f"{now}, {'on' if gpu.mig_pending else 'off'} after the next reset"


def _instance(place: Slice) -> str:
    if place.gpu_instance_id is None:
        return place.kind.value
    compute = "?" if place.compute_instance_id is None else str(place.compute_instance_id)
    return f"GI {place.gpu_instance_id:>2}  CI {compute}"


def _size(place: Slice) -> str:
    memory = "memory n/a" if place.memory_bytes is None else format_bytes(place.memory_bytes)
    return memory if place.sm_count is None else f"{memory:>8}  {place.sm_count:>3} SMs"


def _append_users(text: Text, reading: SliceSample | None) -> None:
    if reading is None:
        text.append("use unknown (not read)", "dim")
        return
    used = "" if reading.memory_used_bytes is None else f"{format_bytes(reading.memory_used_bytes)} used, "
    if reading.occupants is None:
        text.append(f"{used}processes n/a (the device does not show them per slice)", "dim")
    elif not reading.occupants:
        text.append(f"{used}idle", "green")
    else:
        who = ", ".join(f"pid {occupant.pid} ({printable(occupant.command)})" for occupant in reading.occupants)
        text.append(f"{used}{who}", "yellow")
