"""What all samples together showed of each GPU and each place of the plan, kept up sample by sample.

A single sample says what is; that nothing else ever was, and where nobody could look, is said here.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from heteromig.core.devices import Gpu, GpuSample, Occupant

MAX_FAULTS = 5
"""A GPU that reports more than that is described well enough by the first of them."""
MAX_STRANGERS = 5
"""A host with more than that is described well enough by the first of them."""


class GpuWatch(Struct, frozen=True):
    """One GPU of the plan. `readings` counts the samples, until draining, that told of it.

    `recut` is the first geometry that was not that of the inventory, `unsettled` the first (current, pending) MIG modes
    that differed. `listened` are the bits of `DriverEvent` that were listened to at every sample, None before the
    first. `faults` are sentences: what the driver reported, and that the GPU could not be read.
    """

    gpu: Gpu
    readings: int = 0
    geometry: str | None = None
    recut: str | None = None
    modes: tuple[bool | None, bool | None] | None = None
    unsettled: tuple[bool | None, bool | None] | None = None
    listened: int | None = None
    faults: tuple[str, ...] = ()

    def faulted(self, sentence: str) -> GpuWatch:
        """The same after something went wrong."""
        if sentence in self.faults:
            return self
        return msgspec.structs.replace(self, faults=(*self.faults, sentence)[:MAX_FAULTS])

    def after(self, reading: GpuSample | None, *, draining: bool) -> GpuWatch:
        """The same after one more sample; how the GPU is cut matters until draining."""
        seen = read(self.gpu.uuid, reading)
        if isinstance(seen, str):
            return self.faulted(seen)
        modes = (seen.mig_current, seen.mig_pending)
        listened = seen.listened or 0
        listened = listened if self.listened is None else self.listened & listened
        if draining:
            return msgspec.structs.replace(self, listened=listened)
        return msgspec.structs.replace(
            self,
            readings=self.readings + 1,
            geometry=seen.geometry,
            recut=self.recut or (seen.geometry if is_recut(self.gpu, seen) else None),
            modes=modes,
            unsettled=self.unsettled or (modes if is_unsettled(seen) else None),
            listened=listened,
        )


class PlaceWatch(Struct, frozen=True):
    """Where processes are looked for: a slice of the plan or, of shares under MPS, the GPU that they share.

    `shown` and `hidden` count the samples, until draining, that did and did not show who was there; `stranger` is
    the first who had no business there.
    """

    uuid: str
    shared: bool = False
    shown: int = 0
    hidden: int = 0
    stranger: str | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{'GPU' if self.shared else 'slice'} {self.uuid}"

    def after(self, occupants: tuple[Occupant, ...] | None, stranger: str | None) -> PlaceWatch:
        """The same after one more sample."""
        if occupants is None:
            return msgspec.structs.replace(self, hidden=self.hidden + 1)
        return msgspec.structs.replace(self, shown=self.shown + 1, stranger=self.stranger or stranger)


class HostWatch(Struct, frozen=True):
    """Whether the host was idle beside the plan, which matters to a baseline alone.

    `shown` counts the samples, until draining, that showed all of it, `hidden` those that did not, for the reason
    `why_hidden` at first. `strangers` are the first few who were there, as in "pid 5 (python) on GPU 1".
    """

    shown: int = 0
    hidden: int = 0
    why_hidden: str = ""
    strangers: tuple[str, ...] = ()

    def after(self, strangers: tuple[str, ...], why_hidden: str | None) -> HostWatch:
        """The same after one more sample; `why_hidden` is None where it showed everything."""
        known = (*self.strangers, *strangers)
        return HostWatch(
            shown=self.shown + (why_hidden is None),
            hidden=self.hidden + (why_hidden is not None),
            why_hidden=self.why_hidden or why_hidden or "",
            strangers=tuple(dict.fromkeys(known))[:MAX_STRANGERS],
        )


def read(uuid: str, reading: GpuSample | None) -> GpuSample | str:
    """What a sample says of this GPU, or a sentence on why it says nothing."""
    if reading is None:
        return f"GPU {uuid} is not there any more; see the kernel's log."
    return reading if reading.unreadable is None else reading.unreadable


def is_recut(gpu: Gpu, reading: GpuSample) -> bool:
    """Whether the GPU is known to be cut in another way than it was."""
    return gpu.geometry is not None and reading.geometry is not None and reading.geometry != gpu.geometry


def is_unsettled(reading: GpuSample) -> bool:
    """Whether a MIG mode waits for a reset."""
    return reading.mig_current != reading.mig_pending
