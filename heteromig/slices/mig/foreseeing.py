"""What a run with a layout would find, without cutting anything."""

from __future__ import annotations

from pathlib import Path

from heteromig.core.devices import Inventory, Slice, SliceKind
from heteromig.slices.libraries import open_library
from heteromig.slices.mig.applying import Planned, plan_seen
from heteromig.slices.mig.calls import partitionable
from heteromig.slices.mig.partition import WHOLE
from heteromig.slices.mig.reading import Look, look
from heteromig.slices.source import parse_slices


def foresee_layout(slices: str, runs_dir: Path, gpu: str | None, layout: str) -> tuple[Planned, Inventory]:
    """What would be done to the GPU of that UUID or index, and the slices there would be then.

    Slices that are there already have their UUIDs, all others stand-ins such as `<3g.40gb@4>`. Their order is that in
    which they will be enumerated: on real GPUs by the ids that drivers give to GPU instances, the largest first and
    those of a size by their places; on simulated ones by their places.

    Raises:
        UsageError: there is no such GPU, or the layout cannot be on it.
        PreflightError: NVML cannot say what is needed.
    """
    source = parse_slices(slices)
    library = partitionable(open_library(source, runs_dir))
    seen = look(library, gpu)
    planned = plan_seen(library, seen, layout)
    found = _slices(seen, planned, SliceKind.SIM if source.simulated else SliceKind.MIG)
    return planned, Inventory(source.simulated, (seen.gpu,), found)


def _slices(seen: Look, planned: Planned, kind: SliceKind) -> tuple[Slice, ...]:
    there = {device.place: device.uuid for device in seen.devices}
    found = []
    by_place = kind is SliceKind.SIM
    for one in sorted(planned.wanted, key=lambda instance: (0 if by_place else -instance.size, instance.start)):
        profile = seen.offer.profile(one.profile)
        found.append(
            Slice(
                uuid=there.get((one.profile_id, one.start, WHOLE), f"<{one}>"),
                kind=kind,
                profile=one.profile,
                gpu_uuid=seen.gpu.uuid,
                memory_bytes=profile.memory_bytes if profile else None,
                sm_count=profile.sm_count if profile else None,
            )
        )
    return tuple(found)
