"""Why a GPU cannot be shared now: how it is set, and who is on it. Nothing of that is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol, cast

from heteromig.core.devices import Gpu
from heteromig.core.errors import PreflightError
from heteromig.slices import nvml
from heteromig.slices.mps.control import NAME, PIPES, PROGRAM
from heteromig.slices.nvml import Handle, Library, NVMLError
from heteromig.slices.processes import has_environment, read_command, read_name, read_variable

COMPUTE_MODE_PROHIBITED = 2
"""nvml.h, NVML_COMPUTEMODE_PROHIBITED. Of the others MPS takes any: in the exclusive modes the one process that may
use the GPU is its server (CUDA MPS documentation)."""

_DEVICES = b"CUDA_VISIBLE_DEVICES"
_DAEMON_OPTIONS = frozenset({"-d", "--daemon", "-f", "--forground", "--foreground"})
"""What `nvidia-cuda-mps-control` is called with where it is to be a daemon, and not to ask one. The second last is how
the help of driver 580 spells it."""


class SharingLibrary(Library, Protocol):
    """What is asked of NVML beside the rest. Every call may raise `NVMLError`."""

    def nvmlDeviceGetComputeMode(self, handle: Handle) -> int:  # noqa: N802 - the name is NVML's
        """Who may use the GPU."""
        ...

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:  # noqa: N802 - as above
        """Clients of any MPS server, like nvmlDeviceGetComputeRunningProcesses."""
        ...


def require_shareable(library: Library, gpu: Gpu) -> None:
    """Check that nobody uses the GPU and that its mode lets a server use it, in the session that is open.

    Raises:
        PreflightError: somebody does, or it does not.
    """
    asked = cast("SharingLibrary", library)
    who = f"{gpu.name} ({gpu.uuid})"
    try:
        handle = asked.nvmlDeviceGetHandleByUUID(gpu.uuid)
        if nvml.supported(asked.nvmlDeviceGetComputeMode, handle) == COMPUTE_MODE_PROHIBITED:
            raise PreflightError(
                f"{who} is in compute mode PROHIBITED, where no program can use it: have that set back "
                f"(sudo nvidia-smi -i {gpu.uuid} -c DEFAULT), which heteromig never does."
            )
        users = tuple(_users(asked, handle))
    except NVMLError as error:
        raise PreflightError(
            f"NVML cannot say who uses {who}: it says {str(error)!r}; check nvidia-smi and the kernel's log."
        ) from error
    if users:
        names = ", ".join(f"pid {pid} ({read_command(pid) or 'not visible here'})" for pid in users)
        raise PreflightError(
            f"{who} is in use by {names}, and is not shared while others compute on it: end them, wait, or choose "
            "another GPU with --gpu."
        )
    for pid in _daemons(gpu):
        pipes = read_variable(pid, PIPES.encode())
        where = f"{PIPES}={pipes.decode(errors='replace')} " if pipes else ""
        raise PreflightError(
            f"{who} is shared by another MPS daemon, pid {pid}, whose clients could come at any time: end it "
            f"(echo quit | {where}{PROGRAM}), or choose another GPU with --gpu."
        )


def _users(library: SharingLibrary, handle: Handle) -> Iterator[int]:
    """Who computes there. The controller does not, though its user may have given it a GPU in its environment."""
    compute = nvml.supported(lambda: nvml.required(library.nvmlDeviceGetComputeRunningProcesses, handle)) or []
    clients = nvml.supported(library.nvmlDeviceGetMPSComputeRunningProcesses, handle) or []
    yield from sorted({process.pid for process in (*compute, *clients)} - {os.getppid(), os.getpid()})


def _daemons(gpu: Gpu) -> Iterator[int]:
    """Daemons that may start a server on the GPU at any time, as far as their environment may be read.

    NVML shows servers, those of other users as well, but no daemon that has none yet.
    """
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are enough
        if not name.isdigit() or read_name(name) != NAME or not has_environment(name):
            continue
        said = read_variable(name, _DEVICES)
        is_daemon = not _DAEMON_OPTIONS.isdisjoint(read_command(int(name)).split())
        if is_daemon and may_see(None if said is None else said.decode(errors="replace"), gpu.uuid):
            yield int(name)


def may_see(devices: str | None, gpu_uuid: str) -> bool:
    """Whether a process with that CUDA_VISIBLE_DEVICES, None where it is not set, may see the GPU.

    Numbers are counted in an order of CUDA's own, so that any may mean this GPU; UUIDs may be cut short.
    """
    if devices is None:
        return True
    names = [name.strip() for name in devices.split(",")]
    return any(name.isdigit() or (name != "" and gpu_uuid.startswith(name)) for name in names)
