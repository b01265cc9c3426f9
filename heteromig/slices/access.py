"""One look at the devices from within this process, for commands that print and are done."""

from __future__ import annotations

import time
from pathlib import Path

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.errors import PreflightError
from heteromig.core.units import NS_PER_S
from heteromig.slices.discovery import take_inventory
from heteromig.slices.gpm import SHORTEST_NS
from heteromig.slices.libraries import open_library
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.series import Series
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample

_WATCHED_S = 1.5 * SHORTEST_NS / NS_PER_S


def enumerate_slices(
    slices: str, runs_dir: Path, gpu: str | None = None, *, activity: bool = False
) -> tuple[Inventory, DeviceSample]:
    """What there is to run on, and who uses it now. `slices` is the value of `--slices`, `gpu` that of `--gpu`.

    With `activity`, also what they do: where the GPU has counters for that, they are watched for a tenth of a second.

    Raises:
        UsageError: it is no such value, or there is no such GPU.
        PreflightError: there is nothing of the kind here, or the driver fails.
    """
    source = parse_slices(slices)
    library = open_library(source, runs_dir)
    try:
        inventory = take_inventory(library, source, gpu)
        return inventory, _read(library, inventory, activity=activity)
    except NVMLError as error:
        raise PreflightError(
            f"NVML cannot read the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
        ) from error


def _read(library: Library, inventory: Inventory, *, activity: bool) -> DeviceSample:
    if not activity:
        return take_sample(library, inventory)
    series = Series(library, inventory)
    sample = take_sample(library, inventory, series=series)
    if series.gpm.began:
        time.sleep(_WATCHED_S)
        sample = take_sample(library, inventory, series=series).after(sample)
        series.end_session(trusted=False)
    return sample
