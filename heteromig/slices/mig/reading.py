"""What is asked of NVML about one GPU before it is cut: how it may be, how it is, and who is on it."""

from __future__ import annotations

from typing import Any, NamedTuple

from heteromig.core.devices import Gpu, SliceKind, UnusableGpu
from heteromig.core.errors import PreflightError, UsageError
from heteromig.slices import nvml
from heteromig.slices.boards import Engines, Profile
from heteromig.slices.discovery import OF_THE_DRIVER, OpenGpu, read_gpu, read_slices
from heteromig.slices.mig import calls
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.mig.partition import WHOLE, ComputeInstance, Device, GpuInstance, Partition
from heteromig.slices.mig.planning import Offer
from heteromig.slices.mig.refusals import refusing
from heteromig.slices.nvml import Handle, NVMLError

_MIB_BYTES = 1 << 20


class IndexedGpu(NamedTuple):
    """A GPU with NVML's index, which nvidia-smi and the files of nvidia-mig-parted count by."""

    number: int
    open: OpenGpu


class Gpus(NamedTuple):
    """The GPUs of a machine: those that can be read, and those that cannot, which keep nobody from the others."""

    seen: tuple[IndexedGpu, ...]
    unusable: tuple[UnusableGpu, ...] = ()


class OpenCompute(NamedTuple):
    """A compute instance, its id within the GPU instance, and its handle."""

    compute: ComputeInstance
    id: int
    handle: Handle


class OpenInstance(NamedTuple):
    """A GPU instance, its id, its handle, and its compute instances in the order of their places."""

    instance: GpuInstance
    id: int
    handle: Handle
    computes: tuple[OpenCompute, ...]


class Look(NamedTuple):
    """One GPU as it is now, all of it read in one session of the library; handles are good until the next one."""

    number: int
    open: OpenGpu
    offer: Offer
    instances: tuple[OpenInstance, ...]
    devices: tuple[Device, ...]

    @property
    def gpu(self) -> Gpu:
        """The GPU itself."""
        return self.open.gpu

    @property
    def cut(self) -> Partition:
        """How it is cut."""
        return tuple(one.instance for one in self.instances)


def look(library: PartitionLibrary, wanted: str | None) -> Look:
    """Read the GPU of that UUID or index, see `choose_gpu`, in a new session.

    Raises:
        UsageError: there is no such GPU.
        PreflightError: NVML cannot say everything about it that is needed to cut it; says what to do.
    """
    chosen = choose_gpu(read_gpus(library), wanted)
    one = chosen.open
    with refusing("say how slices are and may be cut", one.gpu):
        offer = read_offer(library, one)
        instances = read_instances(library, one, offer)
        return Look(chosen.number, one, offer, instances, read_devices(library, one, instances))


def read_gpus(library: PartitionLibrary) -> Gpus:
    """Every GPU, in a new session of the library, so that it is seen as it is cut now.

    Raises:
        PreflightError: there is no driver, or no GPU.
    """
    nvml.reopen(library)
    try:
        count = nvml.required(library.nvmlDeviceGetCount)
        found = [_read_one(library, index) for index in range(count)]
    except NVMLError as error:
        raise PreflightError(
            f"NVML cannot enumerate the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
        ) from error
    if not found:
        raise PreflightError("NVIDIA's driver is loaded and sees no GPU: check nvidia-smi.")
    return Gpus(
        seen=tuple(one for one in found if isinstance(one, IndexedGpu)),
        unusable=tuple(one for one in found if isinstance(one, UnusableGpu)),
    )


def _read_one(library: PartitionLibrary, index: int) -> IndexedGpu | UnusableGpu:
    uuid: str | None = None
    try:
        handle = nvml.required(library.nvmlDeviceGetHandleByIndex, index)
        uuid = nvml.text(nvml.required(library.nvmlDeviceGetUUID, handle))
        return IndexedGpu(index, read_gpu(library, handle))
    except NVMLError as error:
        if error.value in OF_THE_DRIVER:
            raise
        named = f"GPU {index}" if uuid is None else f"GPU {index} ({uuid})"
        if error.value == nvml.ERROR_NO_PERMISSION:
            return UnusableGpu(index, uuid, f"This user may not use {named}: have it made accessible.")
        return UnusableGpu(
            index,
            uuid,
            f"NVML cannot read {named}: it says {str(error)!r}; see the kernel's log, and reset the GPU (sudo "
            f"nvidia-smi -i {index} --gpu-reset) or reboot.",
        )


def choose_gpu(gpus: Gpus, wanted: str | None) -> IndexedGpu:
    """The one with that UUID or index; without any, the only one that has MIG.

    Raises:
        UsageError: there is no such GPU, or several to choose from.
        PreflightError: it, or one that it may be, cannot be read; or none has MIG.
    """
    known = ", ".join(f"{one.number} ({one.open.gpu.name}, {one.open.gpu.uuid})" for one in gpus.seen)
    if wanted is not None:
        return _wanted_gpu(gpus, wanted, known)
    able = [one for one in gpus.seen if one.open.gpu.mig_current is not None]
    if gpus.unusable:  # which of them it would have been without --gpu, nobody knows
        instead = f" To cut another one, name it with --gpu, of {known}." if able else ""
        raise PreflightError(" ".join(one.message for one in gpus.unusable) + instead)
    if not able:
        raise PreflightError(f"No GPU of this machine has MIG: {known}. Try it on --slices sim:a100-sxm-80gb.")
    if len(able) > 1:
        raise UsageError(f"Several GPUs have MIG, and only one is cut at a time: choose it with --gpu, of {known}.")
    return able[0]


def _wanted_gpu(gpus: Gpus, wanted: str, known: str) -> IndexedGpu:
    for one in gpus.seen:
        if wanted in {str(one.number), one.open.gpu.uuid}:
            return one
    for silent in gpus.unusable:
        if wanted in {str(silent.index), silent.uuid}:
            raise PreflightError(silent.message)
    nameless = [silent.message for silent in gpus.unusable if silent.uuid is None]
    if nameless and not wanted.isdecimal():
        raise PreflightError(f"{wanted} is none of the GPUs that can be read. {' '.join(nameless)}")
    raise UsageError(f"--gpu {wanted} is none of the GPUs of this machine: {known}.")


def read_offer(library: PartitionLibrary, one: OpenGpu) -> Offer:
    """How the GPU may be cut, whether or not MIG is on. NVML tells places to privileged users only.

    Raises:
        NVMLError: it cannot be asked.
    """
    profiles: dict[int, Profile] = {}
    for number in range(calls.GPU_PROFILES):
        info = calls.profile_info(library, one.handle, number)
        if info is None:
            continue
        places = calls.possible_places(library, one.handle, info.id)
        if places:
            profiles.setdefault(
                info.id,
                Profile(
                    name=_profile_name(info),
                    profile_id=info.id,
                    starts=tuple(sorted(place.start for place in places)),
                    size=places[0].size,
                    compute_slices=info.sliceCount,
                    sm_count=info.multiprocessorCount,
                    memory_bytes=info.memorySizeMB * _MIB_BYTES,
                    max_instances=info.instanceCount,
                    engines=Engines(info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount),
                ),
            )
    if not profiles:
        raise PreflightError(f"{one.gpu.name} ({one.gpu.uuid}) has no MIG profile: it cannot be cut.")
    return Offer(f"{one.gpu.name} ({one.gpu.uuid})", tuple(profiles.values()))


def _profile_name(info: object) -> str:
    """Such as `1g.10gb`; drivers that tell no names have ids only, which are names as well."""
    name = nvml.text(getattr(info, "name", "")).removeprefix("MIG ").strip()
    return name or str(getattr(info, "id"))  # noqa: B009 - NVML's structures have no types


def read_instances(library: PartitionLibrary, one: OpenGpu, offer: Offer) -> tuple[OpenInstance, ...]:
    """The GPU instances there are, in the order of their places; none while MIG is off.

    Raises:
        NVMLError: it cannot be asked, such as by a user without privileges.
    """
    if not one.gpu.mig_current:
        return ()
    found = [
        _open_instance(library, handle, profile)
        for profile in offer.profiles
        for handle in calls.gpu_instances(library, one.handle, profile.profile_id)
    ]
    return tuple(sorted(found, key=lambda instance: instance.instance.start))


def _open_instance(library: PartitionLibrary, handle: Handle, profile: Profile) -> OpenInstance:
    info = library.nvmlGpuInstanceGetInfo(handle)
    slices = calls.compute_profiles(library, handle)
    computes = [
        _open_compute(library, compute, whole=slices[profile_id] == max(slices.values()))
        for profile_id in slices
        for compute in calls.compute_instances(library, handle, profile_id)
    ]
    computes.sort(key=lambda compute: (compute.compute.start or 0, compute.id))
    instance = GpuInstance(
        profile_id=profile.profile_id,
        profile=profile.name,
        start=info.placement.start,
        size=info.placement.size,
        computes=tuple(compute.compute for compute in computes),
    )
    return OpenInstance(instance, info.id, handle, tuple(computes))


def _open_compute(library: PartitionLibrary, handle: Handle, *, whole: bool) -> OpenCompute:
    info = library.nvmlComputeInstanceGetInfo(handle)
    part = ComputeInstance(info.profileId, info.placement.start, info.placement.size)
    return OpenCompute(WHOLE if whole else part, info.id, handle)


def whole_profile(library: PartitionLibrary, gpu_instance: Handle) -> int:
    """The id of the profile of compute instances that takes all of the GPU instance."""
    slices = calls.compute_profiles(library, gpu_instance)
    return min(slices, key=lambda profile_id: (-slices[profile_id], profile_id))


def read_devices(library: PartitionLibrary, one: OpenGpu, instances: tuple[OpenInstance, ...]) -> tuple[Device, ...]:
    """The MIG device of each compute instance, in the order of their places."""
    uuids = {
        (place.slice.gpu_instance_id, place.slice.compute_instance_id): place.slice.uuid
        for place in read_slices(library, one, SliceKind.MIG)
    }
    return tuple(
        Device(
            profile_id=instance.instance.profile_id,
            profile=instance.instance.profile,
            start=instance.instance.start,
            compute=compute.compute,
            uuid=uuids[instance.id, compute.id],
        )
        for instance in instances
        for compute in instance.computes
        if (instance.id, compute.id) in uuids
    )


def read_users(library: PartitionLibrary, one: OpenGpu) -> tuple[int, ...] | None:
    """Pids of all processes on the GPU or any part of it, None where NVML does not show them.

    A GPU in MIG mode may refuse to show them as a whole; that each of its devices shows them is enough.

    Raises:
        PreflightError: the library is too old to show any.
        NVMLError: it cannot be asked.
    """

    def computing(handle: Handle) -> list[Any]:
        return nvml.required(library.nvmlDeviceGetComputeRunningProcesses, handle)

    devices = [place.handle for place in read_slices(library, one, SliceKind.MIG)]
    whole = nvml.supported(computing, one.handle)
    if whole is None and not one.gpu.mig_current:
        return None
    pids = {process.pid for process in whole or ()}
    for handle in devices:
        processes = nvml.supported(computing, handle)
        if processes is None:
            return None
        pids.update(process.pid for process in processes)
    for call in (library.nvmlDeviceGetGraphicsRunningProcesses, library.nvmlDeviceGetMPSComputeRunningProcesses):
        for handle in (one.handle, *devices):
            pids.update(process.pid for process in nvml.supported(call, handle) or ())
    return tuple(sorted(pids))
