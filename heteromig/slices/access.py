"""One look at the devices from within this process, for commands that print and are done."""

from __future__ import annotations

from pathlib import Path

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.errors import PreflightError
from heteromig.slices.discovery import take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import NVMLError
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample


def enumerate_slices(slices: str, runs_dir: Path, gpu: str | None = None) -> tuple[Inventory, DeviceSample]:
    """What there is to run on, and who uses it now. `slices` is the value of `--slices`, `gpu` that of `--gpu`.

    Raises:
        UsageError: it is no such value, or there is no such GPU.
        PreflightError: there is nothing of the kind here, or the driver fails.
    """
    source = parse_slices(slices)
    library = open_library(source, runs_dir)
    try:
        inventory = take_inventory(library, source, gpu)
        return inventory, take_sample(library, inventory)
    except NVMLError as error:
        raise PreflightError(
            f"NVML cannot read the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
        ) from error
