"""What a run would be refused for: its own core, told what the probe has seen, with nothing done about what it asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample
from heteromig.core.errors import HeteromigError
from heteromig.core.machine import Run
from heteromig.core.plan import Plan
from heteromig.core.spec import RunSpec
from heteromig.doctor.probing import Probed
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.source import SliceSource


class Rehearsed(Struct, frozen=True):
    """How discovering would go.

    `notes` are strangers on slices that the run would not use, or on any where there is no plan. `gpu_uuids` are the
    GPUs that it would lock.
    """

    plan: Plan | None = None
    plan_refusal: str | None = None
    occupied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gpu_uuids: tuple[str, ...] = ()


def rehearse(spec: RunSpec, probed: Probed) -> Rehearsed:
    """Discovering, as the core goes through it with this inventory and this sample."""
    if probed.inventory is None:
        return Rehearsed()
    # What the run would do to the GPU first is not done, so that it is judged as it is.
    run = Run(msgspec.structs.replace(spec, preparation=None, layout=""))
    now_ns = time.monotonic_ns()
    run.handle(ev.RunStarted(at_ns=now_ns, at_utc_ns=time.time_ns(), controller_pid=os.getpid()))
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    asked = run.handle(ev.SlicesDiscovered(at_ns=now_ns, inventory=probed.inventory, cpus=cpus))
    if run.view.plan is None:
        failure = run.view.plan_failure
        return Rehearsed(
            plan_refusal=None if failure is None else failure.sentence,
            notes=tuple(_strangers(run, probed.sample)),
            gpu_uuids=tuple(gpu.uuid for gpu in probed.inventory.gpus),
        )
    planned = run.view.reasons
    if probed.sample is not None:
        run.handle(ev.SampleTaken(at_ns=probed.sample.taken_ns, sample=probed.sample))
    return Rehearsed(
        plan=run.view.plan,
        occupied=tuple(reason.sentence for reason in run.view.reasons if reason not in planned),
        notes=run.view.notes,
        gpu_uuids=tuple(uuid for effect in asked if isinstance(effect, ef.LockGpus) for uuid in effect.gpu_uuids),
    )


def _strangers(run: Run, sample: DeviceSample | None) -> Iterator[str]:
    for reading in () if sample is None else sample.slices:
        for occupant in reading.occupants or ():
            if not run.view.is_ours(occupant):
                yield f"Slice {reading.slice_uuid} is used by pid {occupant.pid} ({occupant.command})."


def refused_locks(source: SliceSource, runs_dir: Path, gpu_uuids: tuple[str, ...]) -> Iterator[str]:
    """Why each GPU cannot be locked, where it cannot. Locks are held for a moment only, and nothing is made for them.

    A run that begins in that very moment would be refused; there is no other way to know.
    """
    directory = lock_directory(source, runs_dir)
    for uuid in gpu_uuids:
        if _was_never_locked(directory, uuid):
            continue
        try:
            lock_gpus([uuid], directory).close()
        except HeteromigError as error:
            yield str(error)


def _was_never_locked(directory: Path, uuid: str) -> bool:
    """Whether there is no lock, and one could be made."""
    place = directory
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    there = os.access(directory / f"{uuid}.lock", os.F_OK)
    return not there and os.access(place, os.W_OK | os.X_OK)
