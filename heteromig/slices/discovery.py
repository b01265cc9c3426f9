"""Enumerating devices: GPUs, their slices, and a digest of how they are cut."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from heteromig.core.devices import Gpu, Inventory, Slice, SliceKind
from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.mps.shares import choose_gpu, share_out
from heteromig.slices.nvml import Handle, Library, NVMLError
from heteromig.slices.source import EXAMPLE_SIMULATOR, SliceSource

_MIB_BYTES = 1 << 20
_NO_DEVICE_THERE = (nvml.ERROR_NOT_FOUND, nvml.ERROR_INVALID_ARGUMENT)  # as NVIDIA's go-nvlib takes both


class OpenGpu(NamedTuple):
    """A GPU and its handle, good until the library is opened anew."""

    gpu: Gpu
    handle: Handle


class OpenSlice(NamedTuple):
    """A slice and its handle, good until the library is opened anew."""

    slice: Slice
    handle: Handle


def take_inventory(library: Library, source: SliceSource, gpu: str | None = None) -> Inventory:
    """Enumerate every slice of the source, in a new session of the library, which is left open.

    Only GPUs that have slices to run on are part of it. Slices come in the order of NVML, GPU by GPU, which for a
    simulated board is that of their placement. `gpu` is the UUID or index of the one to share under MPS, and means
    nothing for other sources.

    Raises:
        UsageError: there is no such GPU to share.
        PreflightError: there is nothing to run on; says what is missing.
        NVMLError: a device is in trouble, such as a lost GPU.
    """
    nvml.reopen(library)
    count = library.nvmlDeviceGetCount()
    handles = dict(_usable_handles(library, count))
    found = [read_gpu(library, handle) for handle in handles.values()]
    if count and not found:
        raise PreflightError(
            f"This user may use none of the {count} GPUs of this machine: have them made accessible (in a container or "
            f"a batch job, by asking for GPUs), or, to see a run without a GPU, use {EXAMPLE_SIMULATOR}."
        )
    if not found:
        raise PreflightError(
            "NVIDIA's driver is loaded and sees no GPU: check nvidia-smi (in a container, that it was started with "
            f"GPUs), or, to see a run without a GPU, use {EXAMPLE_SIMULATOR}."
        )
    if source.kind is SliceKind.MPS:
        chosen = choose_gpu([(index, one.gpu) for index, one in zip(handles, found, strict=True)], gpu)
        shares = share_out(source, chosen)
        return Inventory(simulated=False, gpus=(chosen,), slices=shares, geometry=geometry_digest((chosen,), shares))
    usable = _whole_gpus(found) if source.kind is SliceKind.GPU else _mig_gpus(found)
    slices = [place for one in usable for place in read_slices(library, one, source.kind)]
    if not slices:
        names = ", ".join(f"{one.gpu.name} ({one.gpu.uuid})" for one in usable)
        raise PreflightError(
            f"MIG is enabled on {names}, and it is not cut into slices: create GPU instances with their compute "
            f"instances (sudo nvidia-smi mig -cgi <profile>,... -C), or, to see a run without a GPU, use "
            f"{EXAMPLE_SIMULATOR}."
        )
    with_slices = {one.slice.gpu_uuid for one in slices}
    gpus = tuple(one.gpu for one in usable if one.gpu.uuid in with_slices)
    return Inventory(
        simulated=source.simulated,
        gpus=gpus,
        slices=tuple(one.slice for one in slices),
        geometry=geometry_digest(gpus, (one.slice for one in slices)),
    )


def _usable_handles(library: Library, count: int) -> Iterator[tuple[int, Handle]]:
    """The GPUs that this user may use, by index.

    NVML counts those as well that, say, a control group keeps from us (nvml.h).
    """
    for index in range(count):
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
        except NVMLError as error:  # noqa: PERF203 - each index fails on its own
            if error.value != nvml.ERROR_NO_PERMISSION:
                raise
        else:
            yield index, handle


def geometry_digest(gpus: Iterable[Gpu], slices: Iterable[Slice]) -> str:
    """A digest that is equal as long as nobody changed the partitioning; the order of enumeration does not matter."""
    facts = sorted(f"{gpu.uuid} mode {gpu.mig_current} pending {gpu.mig_pending}" for gpu in gpus)
    facts += sorted(
        f"{one.gpu_uuid} {one.gpu_instance_id} {one.compute_instance_id} {one.profile} {one.uuid}" for one in slices
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read_gpu(library: Library, handle: Handle) -> OpenGpu:
    """One physical GPU as it is now."""
    modes = nvml.supported(library.nvmlDeviceGetMigMode, handle)
    current, pending = (None, None) if modes is None else (bool(modes[0]), bool(modes[1]))
    memory = nvml.supported(library.nvmlDeviceGetMemoryInfo, handle)
    gpu = Gpu(
        uuid=nvml.text(library.nvmlDeviceGetUUID(handle)),
        name=nvml.text(library.nvmlDeviceGetName(handle)),
        driver=nvml.text(library.nvmlSystemGetDriverVersion()),
        memory_bytes=None if memory is None else memory.total,
        mig_current=current,
        mig_pending=pending,
    )
    return OpenGpu(gpu, handle)


def read_slices(library: Library, parent: OpenGpu, kind: SliceKind) -> list[OpenSlice]:
    """The places to run on one GPU as NVML shows them: its MIG devices, or itself. It shows no shares under MPS."""
    if kind is SliceKind.MPS:
        return []
    if kind is SliceKind.GPU:
        return [OpenSlice(_whole(parent.gpu), parent.handle)]
    found = []
    for index in range(library.nvmlDeviceGetMaxMigDeviceCount(parent.handle)):
        try:
            handle = library.nvmlDeviceGetMigDeviceHandleByIndex(parent.handle, index)
            found.append(OpenSlice(_mig_slice(library, parent.gpu, handle, kind), handle))
        except NVMLError as error:  # noqa: PERF203 - each index fails on its own
            if error.value not in _NO_DEVICE_THERE:
                raise
            # A hole, with more devices after it; or one that was destroyed under our eyes.
    return found


def _mig_slice(library: Library, gpu: Gpu, handle: Handle, kind: SliceKind) -> Slice:
    name = nvml.text(library.nvmlDeviceGetName(handle))
    attributes = nvml.supported(library.nvmlDeviceGetAttributes, handle)
    return Slice(
        uuid=nvml.text(library.nvmlDeviceGetUUID(handle)),
        kind=kind,
        profile=name.rpartition(" MIG ")[2],
        gpu_uuid=gpu.uuid,
        gpu_instance_id=library.nvmlDeviceGetGpuInstanceId(handle),
        compute_instance_id=library.nvmlDeviceGetComputeInstanceId(handle),
        memory_bytes=None if attributes is None else attributes.memorySizeMB * _MIB_BYTES,
        sm_count=None if attributes is None else attributes.multiprocessorCount,
    )


def _whole(gpu: Gpu) -> Slice:
    """The GPU as one place to run. Its profile is its model, such as `nvidia-h100-80gb-hbm3`.

    NVML has no call for the multiprocessors of a whole GPU (a `7g` profile has fewer: 98 of the 108 of an A100).
    """
    return Slice(
        uuid=gpu.uuid,
        kind=SliceKind.GPU,
        profile=re.sub(r"[^a-z0-9.+]+", "-", gpu.name.lower()).strip("-"),
        gpu_uuid=gpu.uuid,
        memory_bytes=gpu.memory_bytes,
    )


def _whole_gpus(found: list[OpenGpu]) -> list[OpenGpu]:
    _refuse_pending(found)
    whole = [one for one in found if not one.gpu.mig_current]
    if not whole:
        raise PreflightError(
            "Every GPU of this machine is in MIG mode, where none can be used as a whole: use --slices mig, or turn "
            "MIG off (sudo nvidia-smi -mig 0)."
        )
    return whole


def _mig_gpus(found: list[OpenGpu]) -> list[OpenGpu]:
    if all(one.gpu.mig_current is None for one in found):
        names = ", ".join(dict.fromkeys(one.gpu.name for one in found))
        raise PreflightError(
            f"No GPU of this machine has MIG ({names}): use whole GPUs (--slices gpu), or, to see a run without MIG, "
            f"use {EXAMPLE_SIMULATOR}."
        )
    _refuse_pending(found)
    enabled = [one for one in found if one.gpu.mig_current]
    if not enabled:
        names = ", ".join(f"{one.gpu.name} ({one.gpu.uuid})" for one in found if one.gpu.mig_current is not None)
        raise PreflightError(
            f"MIG is off on {names}: turn it on and cut the GPU into slices (sudo nvidia-smi -mig 1, then "
            "sudo nvidia-smi mig -cgi <profile>,... -C), use whole GPUs (--slices gpu), or, to see a run without MIG, "
            f"use {EXAMPLE_SIMULATOR}."
        )
    return enabled


def _refuse_pending(found: list[OpenGpu]) -> None:
    for gpu, _ in found:
        if gpu.mig_current != gpu.mig_pending:
            raise PreflightError(
                f"The MIG mode of {gpu.name} ({gpu.uuid}) is {_on_off(gpu.mig_current)} and will be "
                f"{_on_off(gpu.mig_pending)} after a reset: reset the GPU (sudo nvidia-smi --gpu-reset, or reboot) or "
                "set the mode back, then try again."
            )


def _on_off(mode: bool | None) -> str:  # noqa: FBT001 - a mode is a boolean
    return "on" if mode else "off"
