"""Findings about what this user may do with GPUs and slices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from heteromig.core.devices import Inventory, Slice, SliceKind
from heteromig.doctor.facts import GpuFacts
from heteromig.doctor.findings import Finding, ok, unknown, warning

_CAPABILITY = "/proc/driver/nvidia/capabilities/mig"
_MINORS = "proc/driver/nvidia-caps/mig-minors"
_ADMINISTRATOR = "run it as root (sudo), or have an administrator give access to the device of"

_CAP_SYS_ADMIN = 21
"""linux/capability.h."""


def about_permissions(gpus: tuple[GpuFacts, ...]) -> Iterator[Finding]:
    """Cutting, and reading GPUs as a whole: what NVML refuses to this user."""
    able = [one for one in gpus if one.gpu is not None and one.gpu.mig_current is not None and one.trouble is None]
    real = [one for one in able if one.health is not None]
    if not real:
        return
    refused = [one for one in real if one.cut.value is None]
    who = _who()
    if not refused:
        yield ok("cutting", f"this user ({who}) may cut MIG slices")
    elif all(one.cut.why == "no permission" for one in refused):
        yield warning(
            "cutting",
            f"this user ({who}) may not cut MIG slices; a run on those that there are can do without",
            f"To cut them, {_ADMINISTRATOR} {_CAPABILITY}/config.",
        )
    else:
        yield unknown("cutting", f"n/a: {refused[0].cut.why}")
    yield from _monitoring([one for one in real if one.gpu is not None and one.gpu.mig_current], who)


def _monitoring(cut: list[GpuFacts], who: str) -> Iterator[Finding]:
    if not cut:
        return
    blind = [one for one in cut if one.health is not None and one.health.whole_memory_bytes.value is None]
    if not blind:
        yield ok("monitoring", f"this user ({who}) may read what all slices of a GPU do together")
        return
    assert blind[0].health is not None  # noqa: S101 - as above
    why = blind[0].health.whole_memory_bytes.why
    if why == "no permission":
        yield warning(
            "monitoring",
            f"this user ({who}) may not read what all slices of a GPU do together; a run can do without",
            f"To see it, {_ADMINISTRATOR} {_CAPABILITY}/monitor.",
        )
    else:
        yield unknown("monitoring", f"n/a: {why}")


def _who() -> str:
    user = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    return user if _is_administrator() else f"{user}, no CAP_SYS_ADMIN"


def _is_administrator() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> _CAP_SYS_ADMIN & 1)


def about_nodes(inventory: Inventory, gpus: tuple[GpuFacts, ...], root: Path = Path("/")) -> Iterator[Finding]:
    """The device files without which no program computes on a slice."""
    if inventory.simulated:
        return
    minors = {one.gpu.uuid: one.health.minor.value for one in gpus if one.gpu is not None and one.health is not None}
    wanted = sorted({f"dev/nvidia{minors[gpu.uuid]}" for gpu in inventory.gpus if minors.get(gpu.uuid) is not None})
    slices = [one for one in inventory.slices if one.kind is SliceKind.MIG]
    if slices:
        numbers = _capability_numbers(root)
        if numbers is None:
            yield unknown("slice-access", f"n/a: /{_MINORS} cannot be read, which says what the devices of slices are")
            return
        wanted += [f"dev/nvidia-caps/nvidia-cap{one}" for one in _numbers(slices, minors, numbers)]
    nodes = [*wanted, "dev/nvidiactl", "dev/nvidia-uvm"]
    missing = [f"/{node}" for node in nodes if not os.access(root / node, os.F_OK)]
    closed = [f"/{node}" for node in nodes if f"/{node}" not in missing and not os.access(root / node, os.R_OK)]
    if closed:
        yield warning(
            "slice-access",
            f"this user may not open {_some(closed)}, so that programs cannot compute there",
            "Have an administrator give read access to them, or, in a container, ask for these devices.",
        )
    if missing:
        yield warning(
            "slice-access",
            f"there is no {_some(missing)}, so that programs may not find the device",
            "Run any CUDA program as root once, which makes them, or, in a container, ask for these devices.",
        )
    if not closed and not missing:
        yield ok("slice-access", f"this user may open the {len(nodes)} device files of the slices")


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"  # noqa: PLR2004 - enough to recognise them


def _capability_numbers(root: Path) -> dict[str, int] | None:
    """Which /dev/nvidia-caps/nvidia-cap<n> is for what: lines such as `gpu0/gi7/ci0/access 66`."""
    try:
        lines = (root / _MINORS).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004 - a pair


def _numbers(slices: list[Slice], minors: dict[str, int | None], numbers: dict[str, int]) -> list[int]:
    names = []
    for one in slices:
        instance = f"gpu{minors.get(one.gpu_uuid)}/gi{one.gpu_instance_id}"
        names += [f"{instance}/access", f"{instance}/ci{one.compute_instance_id}/access"]
    return sorted({numbers[name] for name in names if name in numbers})
