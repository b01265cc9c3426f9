"""Performing the steps from one cut to another, and turning MIG on and off; each is verified in a new session."""

from __future__ import annotations

from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.mig import calls
from heteromig.slices.mig.calls import FIELD_RESETLESS_MIG, PartitionLibrary
from heteromig.slices.mig.partition import (
    ComputeInstance,
    CreateCompute,
    CreateGpu,
    DestroyCompute,
    Partition,
    Step,
    differences,
    steps,
)
from heteromig.slices.mig.reading import Look, look, whole_profile
from heteromig.slices.mig.refusals import refusal, refusing
from heteromig.slices.nvml import Handle, NVMLError


def cut_gpu(library: PartitionLibrary, seen: Look, wanted: Partition) -> Look:
    """Take the steps from how the GPU was seen to how it should be, and see it again.

    Raises:
        PreflightError: NVML refused a step, or the GPU is not cut as it should be after all of them.
    """
    instances = {one.instance.place: one.handle for one in seen.instances}
    computes = {
        (one.instance.place, compute.compute): compute.handle for one in seen.instances for compute in one.computes
    }
    for step in steps(seen.cut, wanted):
        with refusing(str(step), seen.gpu):
            _perform(library, seen.open.handle, instances, computes, step)
    after = look(library, seen.gpu.uuid)
    wrong = differences(after.cut, wanted)
    if wrong:
        raise PreflightError(
            f"{seen.gpu.name} ({seen.gpu.uuid}) is not cut as it was told to be: NVML reported no error, and it is now "
            f"{wrong}. Somebody else may be cutting it at the same time."
        )
    return after


def _perform(
    library: PartitionLibrary,
    device: Handle,
    instances: dict[tuple[int, int], Handle],
    computes: dict[tuple[tuple[int, int], ComputeInstance], Handle],
    step: Step,
) -> None:
    place = step.instance.place
    if isinstance(step, DestroyCompute):
        library.nvmlComputeInstanceDestroy(computes[place, step.compute])
    elif isinstance(step, CreateGpu):
        instances[place] = calls.create_gpu_instance(library, device, *place, step.instance.size)
    elif isinstance(step, CreateCompute):
        part = step.compute
        profile_id = whole_profile(library, instances[place]) if part.profile_id is None else part.profile_id
        where = None if part.start is None or part.size is None else (part.start, part.size)
        calls.create_compute_instance(library, instances[place], profile_id, where)
    else:
        library.nvmlGpuInstanceDestroy(instances[place])


def turn_mig_on(library: PartitionLibrary, seen: Look) -> Look:
    """Turn MIG on, and see the GPU again.

    Raises:
        PreflightError: it cannot be, or not without a reset of the GPU.
    """
    if not _is_resetless(library, seen.open.handle):
        raise PreflightError(
            f"MIG is off on {seen.gpu.name} ({seen.gpu.uuid}), and turning it on takes a reset of the GPU, which "
            f"heteromig never does: sudo nvidia-smi -i {seen.number} -mig 1, then sudo nvidia-smi -i {seen.number} "
            "--gpu-reset."
        )
    return _set_mode(library, seen, on=True)


def turn_mig_off(library: PartitionLibrary, seen: Look) -> Look:
    """Turn MIG off again, and see the GPU again.

    Raises:
        PreflightError: it cannot be.
    """
    return _set_mode(library, seen, on=False)


def _is_resetless(library: PartitionLibrary, device: Handle) -> bool:
    """Whether the driver says that the mode changes without a reset, which it does from Hopper on."""
    fields = nvml.supported(library.nvmlDeviceGetFieldValues, device, [FIELD_RESETLESS_MIG])
    return fields is not None and fields[0].nvmlReturn == 0 and bool(fields[0].value.uiVal)


def _set_mode(library: PartitionLibrary, seen: Look, *, on: bool) -> Look:
    doing = f"turn MIG {'on' if on else 'off'}"
    with refusing(doing, seen.gpu):
        status = library.nvmlDeviceSetMigMode(seen.open.handle, int(on))
    if status:
        raise PreflightError(refusal(NVMLError(status), doing, seen.gpu))
    after = look(library, seen.gpu.uuid)
    if after.gpu.mig_current != on or after.gpu.mig_pending != on:
        raise PreflightError(
            f"MIG should be {'on' if on else 'off'} on {seen.gpu.name} ({seen.gpu.uuid}) now, and NVML says that it is "
            f"not in force: see nvidia-smi -i {seen.number} -q, under MIG Mode."
        )
    return after
