"""What shares of a GPU there are: as many as were asked for, of one GPU that is not cut."""

from __future__ import annotations

from collections.abc import Sequence

from heteromig.core.devices import Gpu, Slice, SliceKind
from heteromig.core.errors import PreflightError, UsageError
from heteromig.slices.source import EXAMPLE_SIMULATOR, SliceSource

IndexedGpu = tuple[int, Gpu]
"""A GPU with NVML's index, which nvidia-smi counts by."""


def choose_gpu(gpus: Sequence[IndexedGpu], wanted: str | None) -> Gpu:
    """The GPU to share: that of this UUID or index, else the first that is not in MIG mode.

    Raises:
        UsageError: there is no such GPU.
        PreflightError: it, or every one, is in MIG mode or will be.
    """
    known = ", ".join(f"{index} ({gpu.name}, {gpu.uuid})" for index, gpu in gpus)
    if wanted is None:
        free = next((gpu for _, gpu in gpus if not gpu.mig_current and not gpu.mig_pending), None)
        if free is None:
            raise PreflightError(
                f"Every GPU of this machine is in MIG mode, where MPS cannot share one as a whole: {known}. Use its "
                f"slices (--slices mig), turn MIG off (sudo nvidia-smi -mig 0), or, to see a run without a GPU, use "
                f"{EXAMPLE_SIMULATOR}."
            )
        return free
    chosen = next((gpu for index, gpu in gpus if wanted in {str(index), gpu.uuid}), None)
    if chosen is None:
        raise UsageError(f"--gpu {wanted} is none of the GPUs of this machine: {known}.")
    if chosen.mig_current or chosen.mig_pending:
        when = "is" if chosen.mig_current else "will be after a reset"
        raise PreflightError(
            f"{chosen.name} ({chosen.uuid}) {when} in MIG mode, where MPS cannot share it as a whole: use its slices "
            f"(--slices mig), turn MIG off (sudo nvidia-smi -i {chosen.uuid} -mig 0), or choose another one with --gpu."
        )
    return chosen


def share_out(source: SliceSource, gpu: Gpu) -> tuple[Slice, ...]:
    """The shares of one GPU, alike but for their numbers.

    Their number of multiprocessors is unknown: the percentage is a limit, which the driver rounds as it likes. Raises
    UsageError where there is less memory than the limits add up to.
    """
    assert source.mps_shares is not None  # noqa: S101 - it is an MPS source
    wanted_bytes = source.mps_shares * (source.mps_memory_bytes or 0)
    if gpu.memory_bytes is not None and wanted_bytes > gpu.memory_bytes:
        raise UsageError(
            f"--slices {source}: {gpu.name} ({gpu.uuid}) has {gpu.memory_bytes >> 20} MiB of memory, and the shares "
            f"want {wanted_bytes >> 20} MiB in all: give each less, or leave the limit out."
        )
    return tuple(
        Slice(
            uuid=f"MPS-{gpu.uuid}/{number}",
            kind=SliceKind.MPS,
            profile=f"mps-{source.mps_percent}",
            gpu_uuid=gpu.uuid,
            memory_bytes=source.mps_memory_bytes,
        )
        for number in range(source.mps_shares)
    )


def share_environment(source: SliceSource, gpu_uuid: str, pipes: str, logs: str) -> dict[str, str]:
    """What a process has to find in its environment to run on a share (CUDA MPS documentation, environment variables).

    `pipes` and `logs` are the directories of the control daemon. The GPU goes by its UUID, which means the same whether
    or not the daemon sees all GPUs; within the daemon's it is number 0, of which the limit of memory speaks.
    """
    limit_bytes = source.mps_memory_bytes
    return {
        "CUDA_VISIBLE_DEVICES": gpu_uuid,
        "CUDA_MPS_PIPE_DIRECTORY": pipes,
        "CUDA_MPS_LOG_DIRECTORY": logs,
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(source.mps_percent),
        **({} if limit_bytes is None else {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={limit_bytes >> 20}M"}),
    }
