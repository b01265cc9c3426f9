"""Which library answers for a source: NVML itself, or the simulator."""

from __future__ import annotations

from pathlib import Path

from heteromig.core.errors import UsageError
from heteromig.slices import nvml
from heteromig.slices.simulated_cutting import SimulatedPartitionLibrary
from heteromig.slices.source import SliceSource


def open_library(source: SliceSource, runs_dir: Path, sim_faults: Path | None = None) -> nvml.Library:
    """The library of a source, not initialised yet.

    Args:
        source: what `--slices` said.
        runs_dir: simulated UUIDs derive from it.
        sim_faults: failures to rehearse, see `rehearsal.Rehearsal`; for simulated devices only.

    Raises:
        UsageError: failures were asked of real devices.
    """
    if source.simulated:
        return SimulatedPartitionLibrary(source.layouts, runs_dir, sim_faults)
    if sim_faults is not None:
        raise UsageError(f"--sim-faults {sim_faults} only works on simulated devices, and --slices is {source}.")
    return nvml.load()
