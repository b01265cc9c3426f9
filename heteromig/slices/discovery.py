"""Enumerating devices: GPUs, their slices, and a digest of how each is cut."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from heteromig.core.devices import Gpu, Inventory, Slice, SliceKind, UnusableGpu
from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.mps.shares import choose_gpu, share_out
from heteromig.slices.nvml import Handle, Library, NVMLError, Unread
from heteromig.slices.source import EXAMPLE_SIMULATOR, SliceSource

_MIB_BYTES = 1 << 20
OF_THE_DRIVER = (nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_FUNCTION_NOT_FOUND)
"""Errors that say nothing of one GPU: all of them are out of reach."""

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

    Only GPUs that have slices to run on are part of it; those that cannot be used are said to be, and keep nobody from
    the others. Slices come in the order of NVML, GPU by GPU, which for a simulated board is that of their placement.
    `gpu` is the UUID or index of the one to share under MPS, and means nothing for other sources.

    Raises:
        UsageError: there is no such GPU to share.
        PreflightError: there is nothing to run on; says what is missing.
        NVMLError: the driver is in trouble.
    """
    nvml.reopen(library)
    count = nvml.required(library.nvmlDeviceGetCount)
    if not count:
        raise PreflightError(
            "NVIDIA's driver is loaded and sees no GPU: check nvidia-smi (in a container, that it was started with "
            f"GPUs), or, to see a run without a GPU, use {EXAMPLE_SIMULATOR}."
        )
    seen = [_look(library, index, source.kind) for index in range(count)]
    found = [one.gpu for one in seen if isinstance(one, _Seen)]
    unusable = tuple(one for one in seen if isinstance(one, UnusableGpu))
    if found and not source.simulated:
        _demand_processes(library, found[0].handle)
    if source.kind is SliceKind.MPS and found:
        return _share(source, [one.gpu for one in found], unusable, gpu)
    slices = [place for one in seen if isinstance(one, _Seen) for place in one.slices]
    if not slices:
        raise PreflightError(_why_none(found, unusable, count, source.kind))
    by_gpu = {one.gpu.uuid: [each.slice for each in slices if each.slice.gpu_uuid == one.gpu.uuid] for one in found}
    return Inventory(
        simulated=source.simulated,
        gpus=tuple(_with_geometry(one.gpu, by_gpu[one.gpu.uuid]) for one in found if by_gpu[one.gpu.uuid]),
        slices=tuple(one.slice for one in slices),
        unusable=unusable,
    )


def _demand_processes(library: Library, handle: Handle) -> None:
    """Without the call that lists processes nobody could tell a stranger.

    What else keeps it from listing is not said here: the guards say what they cannot observe.

    Raises:
        PreflightError: the library has no such call.
    """
    with contextlib.suppress(NVMLError):
        nvml.required(library.nvmlDeviceGetComputeRunningProcesses, handle)


def _share(source: SliceSource, gpus: list[Gpu], unusable: tuple[UnusableGpu, ...], wanted: str | None) -> Inventory:
    """One GPU, shared by nobody else."""
    for one in unusable:
        if wanted is not None and wanted in {one.uuid, str(one.index)}:
            raise PreflightError(one.message)
    chosen = choose_gpu([(gpu.index or 0, gpu) for gpu in gpus], wanted)
    shares = share_out(source, chosen)
    return Inventory(simulated=False, gpus=(_with_geometry(chosen, shares),), slices=shares, unusable=unusable)


def _with_geometry(gpu: Gpu, slices: Iterable[Slice]) -> Gpu:
    return msgspec.structs.replace(gpu, geometry=geometry_digest(gpu, slices))


class _Seen(NamedTuple):
    """A GPU that answers, and the places to run on it."""

    gpu: OpenGpu
    slices: list[OpenSlice]


def _look(library: Library, index: int, kind: SliceKind) -> _Seen | UnusableGpu | None:
    """One GPU by NVML's index; None where it is not for this user.

    NVML counts those as well that, say, a control group keeps from us (nvml.h).
    """
    uuid: str | None = None
    try:
        handle = nvml.required(library.nvmlDeviceGetHandleByIndex, index)
        one = read_gpu(library, handle, index)
        uuid = one.gpu.uuid
        if kind is SliceKind.MPS:
            return _Seen(one, [])  # which GPU is shared, and whether it can be, is chosen among all
        if one.gpu.mig_current != one.gpu.mig_pending:
            return UnusableGpu(index, uuid, _pending(one.gpu))
        usable = bool(one.gpu.mig_current) is not (kind is SliceKind.GPU)
        return _Seen(one, read_slices(library, one, kind) if usable else [])
    except NVMLError as error:
        if error.value == nvml.ERROR_NO_PERMISSION:
            return None
        if error.value in OF_THE_DRIVER:
            raise
        named = f"GPU {index}" if uuid is None else f"GPU {index} ({uuid})"
        return UnusableGpu(
            index,
            uuid,
            f"NVML cannot read {named}: it says {str(error)!r}; see the kernel's log, and reset the GPU (sudo "
            f"nvidia-smi -i {index} --gpu-reset) or reboot.",
        )


def _why_none(found: list[OpenGpu], unusable: tuple[UnusableGpu, ...], count: int, kind: SliceKind) -> str:
    """Why there is nothing to run on: what is wrong with those that cannot be used, and what with those that can."""
    reasons = [gpu.message for gpu in unusable]
    if found:
        reasons.append(_why_not_whole() if kind is SliceKind.GPU else _why_no_mig([one.gpu for one in found]))
    return " ".join(reasons) or (
        f"This user may use none of the {count} GPUs of this machine: have them made accessible (in a container or "
        f"a batch job, by asking for GPUs), or, to see a run without a GPU, use {EXAMPLE_SIMULATOR}."
    )


def _why_not_whole() -> str:
    return (
        "Every GPU of this machine is in MIG mode, where none can be used as a whole: use --slices mig, or turn "
        "MIG off (sudo nvidia-smi -mig 0)."
    )


def _why_no_mig(gpus: list[Gpu]) -> str:
    capable = [gpu for gpu in gpus if gpu.mig_current is not None]
    if not capable:
        names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
        return (
            f"No GPU of this machine has MIG ({names}): use whole GPUs (--slices gpu), or, to see a run without MIG, "
            f"use {EXAMPLE_SIMULATOR}."
        )
    enabled = [gpu for gpu in capable if gpu.mig_current]
    names = ", ".join(f"{gpu.name} ({gpu.uuid})" for gpu in enabled or capable)
    if enabled:
        return (
            f"MIG is enabled on {names}, and it is not cut into slices: create GPU instances with their compute "
            f"instances (sudo nvidia-smi mig -cgi <profile>,... -C), or, to see a run without a GPU, use "
            f"{EXAMPLE_SIMULATOR}."
        )
    return (
        f"MIG is off on {names}: turn it on and cut the GPU into slices (sudo nvidia-smi -mig 1, then "
        "sudo nvidia-smi mig -cgi <profile>,... -C), use whole GPUs (--slices gpu), or, to see a run without MIG, "
        f"use {EXAMPLE_SIMULATOR}."
    )


def geometry_digest(gpu: Gpu, slices: Iterable[Slice]) -> str:
    """A digest that is equal as long as nobody cut the GPU anew; the order of enumeration does not matter.

    Shares under MPS are no part of how a GPU is cut.
    """
    facts = sorted(
        f"{one.gpu_uuid} {one.gpu_instance_id} {one.compute_instance_id} {one.profile} {one.uuid}"
        for one in slices
        if one.kind is not SliceKind.MPS
    )
    return hashlib.sha256("\n".join([f"{gpu.uuid} mode {gpu.mig_current}", *facts]).encode()).hexdigest()


def read_gpu(library: Library, handle: Handle, index: int | None = None) -> OpenGpu:
    """One physical GPU as it is now; `index` is NVML's, where it is known.

    Raises:
        PreflightError: the library is too old.
        NVMLError: the GPU or the driver is in trouble, or the GPU is not for this user.
    """
    current, pending = _mig_mode(library, handle)
    memory = nvml.supported(library.nvmlDeviceGetMemoryInfo, handle)
    driver = nvml.reading(library.nvmlSystemGetDriverVersion)
    gpu = Gpu(
        uuid=nvml.text(nvml.required(library.nvmlDeviceGetUUID, handle)),
        name=nvml.text(nvml.required(library.nvmlDeviceGetName, handle)),
        driver=f"n/a: {driver.reason}" if isinstance(driver, Unread) else nvml.text(driver),
        memory_bytes=None if memory is None else memory.total,
        mig_current=current,
        mig_pending=pending,
        index=index,
    )
    return OpenGpu(gpu, handle)


def _mig_mode(library: Library, handle: Handle) -> tuple[bool, bool] | tuple[None, None]:
    """Current and pending; None where the board has no MIG, which no other error means."""
    try:
        current, pending = nvml.required(library.nvmlDeviceGetMigMode, handle)
    except NVMLError as error:
        if error.value == nvml.ERROR_NOT_SUPPORTED:
            return None, None
        raise
    return bool(current), bool(pending)


def read_slices(library: Library, parent: OpenGpu, kind: SliceKind) -> list[OpenSlice]:
    """The places to run on one GPU as NVML shows them: its MIG devices, or itself. It shows no shares under MPS."""
    if kind is SliceKind.MPS:
        return []
    if kind is SliceKind.GPU:
        return [OpenSlice(_whole(parent.gpu), parent.handle)]
    found = []
    for index in range(nvml.required(library.nvmlDeviceGetMaxMigDeviceCount, parent.handle)):
        try:
            handle = nvml.required(library.nvmlDeviceGetMigDeviceHandleByIndex, parent.handle, index)
            found.append(OpenSlice(_mig_slice(library, parent.gpu, handle, kind), handle))
        except NVMLError as error:  # noqa: PERF203 - each index fails on its own
            if error.value not in _NO_DEVICE_THERE:
                raise
            # A hole, with more devices after it; or one that was destroyed under our eyes.
    return found


def _mig_slice(library: Library, gpu: Gpu, handle: Handle, kind: SliceKind) -> Slice:
    name = nvml.text(nvml.required(library.nvmlDeviceGetName, handle))
    attributes = nvml.supported(library.nvmlDeviceGetAttributes, handle)
    return Slice(
        uuid=nvml.text(nvml.required(library.nvmlDeviceGetUUID, handle)),
        kind=kind,
        profile=name.rpartition(" MIG ")[2],
        gpu_uuid=gpu.uuid,
        gpu_instance_id=nvml.required(library.nvmlDeviceGetGpuInstanceId, handle),
        compute_instance_id=nvml.required(library.nvmlDeviceGetComputeInstanceId, handle),
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


def _pending(gpu: Gpu) -> str:
    return (
        f"The MIG mode of {gpu.name} ({gpu.uuid}) is {_on_off(gpu.mig_current)} and will be "
        f"{_on_off(gpu.mig_pending)} after a reset: reset the GPU (sudo nvidia-smi --gpu-reset, or reboot) or "
        "set the mode back, then try again."
    )


def _on_off(mode: bool | None) -> str:  # noqa: FBT001 - a mode is a boolean
    return "on" if mode else "off"
