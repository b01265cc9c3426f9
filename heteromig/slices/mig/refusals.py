"""What NVML's refusals mean when a GPU is cut, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heteromig.core.devices import Gpu
from heteromig.core.errors import BusyError, PreflightError
from heteromig.slices import nvml
from heteromig.slices.mig import calls
from heteromig.slices.nvml import NVMLError

_REMEDIES = {
    calls.ERROR_IN_USE: (
        "somebody still uses it: stop what runs there (nvidia-smi shows processes), and services that hold GPUs open, "
        "such as DCGM and its exporter (sudo systemctl stop nvidia-dcgm dcgm-exporter), then try again"
    ),
    calls.ERROR_INSUFFICIENT_RESOURCES: (
        "the driver finds no room there, which its own list of places promised: see what is there with heteromig mig "
        "show, and ask for less"
    ),
    nvml.ERROR_NO_PERMISSION: (
        "this user may not cut GPUs: run it as root (sudo), or have an administrator give access to the device of "
        "/proc/driver/nvidia/capabilities/mig/config"
    ),
    nvml.ERROR_NOT_SUPPORTED: (
        "the driver does not do that here: MIG must be on (heteromig mig show says), and within a virtual machine it "
        "must be cut by the host"
    ),
    nvml.ERROR_GPU_IS_LOST: "the GPU fell off the bus: see the kernel's log; it takes a reset or a reboot",
    calls.ERROR_RESET_REQUIRED: "the GPU needs a reset first, which heteromig never does: sudo nvidia-smi --gpu-reset",
    calls.ERROR_FUNCTION_NOT_FOUND: "the driver is too old to be asked that: install a newer one",
}


def refusal(error: NVMLError, doing: str, gpu: Gpu) -> str:
    """A sentence for an error that NVML gave while `doing` something, which is said as in "cannot <doing>"."""
    remedy = _REMEDIES.get(error.value, "see nvidia-smi and the kernel's log")
    return f"NVML cannot {doing} on {gpu.name} ({gpu.uuid}): it says {str(error)!r}; {remedy}."


@contextmanager
def refusing(doing: str, gpu: Gpu) -> Iterator[None]:
    """Turn what NVML refuses within into a sentence, see `refusal`.

    Raises:
        BusyError: it is in use.
        PreflightError: NVML refused.
    """
    try:
        yield
    except NVMLError as error:
        kind = BusyError if error.value == calls.ERROR_IN_USE else PreflightError
        raise kind(refusal(error, doing, gpu)) from error
