"""A simulated GPU to cut, looked at from outside, and a library that fails on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from heteromig.slices.libraries import open_library
from heteromig.slices.mig import calls
from heteromig.slices.mig.applying import LayoutChange
from heteromig.slices.mig.calls import PartitionLibrary, partitionable
from heteromig.slices.mig.journal import JournalFile, LayoutJournal
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.mig.reading import Look, look
from heteromig.slices.nvml import NVMLError
from heteromig.slices.source import parse_slices

CHANGING = (
    "nvmlDeviceSetMigMode",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceDestroy",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceCreateComputeInstanceWithPlacement",
    "nvmlComputeInstanceDestroy",
)
"""Every call that changes how a GPU is cut."""


class Bench(NamedTuple):
    """One simulated GPU; each property looks anew, through a library of its own."""

    slices: str
    runs_dir: Path

    @property
    def library(self) -> PartitionLibrary:
        return partitionable(open_library(parse_slices(self.slices), self.runs_dir))

    @property
    def look(self) -> Look:
        return look(self.library, "0")

    @property
    def uuid(self) -> str:
        return self.look.gpu.uuid

    @property
    def cut(self) -> str:
        return partition_text(self.look.cut)

    @property
    def uuids(self) -> dict[str, str]:
        """Of each device, by its profile and place; a GPU without parts of instances is assumed."""
        return {f"{device.profile}@{device.start}": device.uuid for device in self.look.devices}

    @property
    def mode(self) -> tuple[bool | None, bool | None]:
        gpu = self.look.gpu
        return gpu.mig_current, gpu.mig_pending

    @property
    def file(self) -> JournalFile:
        return JournalFile(self.runs_dir / "journal.json")

    @property
    def journal(self) -> LayoutJournal:
        entry = self.file.read()
        assert entry is not None
        return entry

    @property
    def journal_is_open(self) -> bool:
        entry = self.file.read()
        return entry is not None and entry.is_open

    def change(self, library: PartitionLibrary | None = None, *, enable_mig_mode: bool = False) -> LayoutChange:
        return LayoutChange(
            library or self.library,
            parse_slices(self.slices),
            self.runs_dir,
            self.file,
            enable_mig_mode=enable_mig_mode,
        )

    def make(self, profile: str, start: int, *parts: tuple[int, int]) -> None:
        """A GPU instance as somebody else would make it, with parts of so many compute slices at these starts."""
        library, seen = self.library, self.look
        library.nvmlInit()
        device = library.nvmlDeviceGetHandleByIndex(0)
        found = seen.offer.profile(profile)
        assert found is not None
        handle = calls.create_gpu_instance(library, device, found.profile_id, start, found.size)
        ids = {size: profile_id for profile_id, size in calls.compute_profiles(library, handle).items()}
        for part_start, size in parts:
            calls.create_compute_instance(library, handle, ids[size], (part_start, size))

    def set_mode(self, mode: int) -> None:
        """Turn MIG on or off, as somebody else would."""
        library = self.library
        library.nvmlInit()
        library.nvmlDeviceSetMigMode(library.nvmlDeviceGetHandleByIndex(0), mode)

    def clear(self) -> None:
        """Destroy everything, as somebody else would."""
        library, seen = self.library, self.look
        library.nvmlInit()
        for instance in seen.instances:
            for compute in instance.computes:
                library.nvmlComputeInstanceDestroy(compute.handle)
            library.nvmlGpuInstanceDestroy(instance.handle)


class Tampered:
    """A library whose calls may be replaced."""

    def __init__(self, library: PartitionLibrary, **instead: Callable[..., Any]) -> None:
        self._library = library
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._library, name)


def tampered(library: PartitionLibrary, **instead: Callable[..., Any]) -> PartitionLibrary:
    return cast("PartitionLibrary", Tampered(library, **instead))


def failing(library: PartitionLibrary, name: str, error: int, *, number: int = 1, times: int = 1) -> PartitionLibrary:
    """The call of that name fails `times` times, from the `number`-th on."""
    count = 0
    real = getattr(library, name)

    def call(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if number <= count < number + times:
            raise NVMLError(error)
        return real(*args, **options)

    return tampered(library, **{name: call})
