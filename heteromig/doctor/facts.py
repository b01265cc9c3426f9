"""What the probe learns of the devices, and how it tells: one JSON object a line.

A reading that cannot be had is an `Answer` without a value, and says why.
"""

from __future__ import annotations

from typing import Generic, TypeVar, Union

from msgspec import Struct

from heteromig.core.devices import DeviceSample, Gpu, Inventory
from heteromig.doctor.findings import Latency
from heteromig.slices.lines import Lines

_T = TypeVar("_T")


class Answer(Struct, Generic[_T], frozen=True):
    """A reading, or `why` there is none."""

    value: _T | None = None
    why: str = ""


class RemappedRows(Struct, frozen=True):
    """How a GPU has repaired its memory so far: rows by the errors that cost them."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


class Health(Struct, frozen=True):
    """How a real GPU is doing, and what NVML tells this user of it.

    `bus_id` is as the kernel's log writes it, without a function: `0000:06:00`. `whole_memory_bytes` and `whole_pids`
    are of the GPU with all its slices. Uncorrected errors count since the driver was loaded, `uncorrected_ever` since
    the board was made. `events` is a bit mask of events that can be heard.
    """

    minor: Answer[int]
    bus_id: Answer[str]
    whole_memory_bytes: Answer[int]
    whole_pids: Answer[tuple[int, ...]]
    ecc_current: Answer[bool]
    ecc_pending: Answer[bool]
    uncorrected: Answer[int]
    uncorrected_ever: Answer[int]
    remapped: Answer[RemappedRows]
    retirement_pending: Answer[bool]
    temperature_c: Answer[int]
    slowdown_c: Answer[int]
    power_mw: Answer[int]
    power_limit_mw: Answer[int]
    power_default_mw: Answer[int]
    throttle_reasons: Answer[int]
    persistence: Answer[bool]
    compute_mode: Answer[int]
    activity: Answer[bool]
    events: Answer[int]


class GpuFacts(Struct, frozen=True):
    """One GPU of the machine by NVML's index.

    `trouble` is what NVML says where it could not be read to the end, and `is_ours` is False where this user may not
    use it. `cut` is its partition, where NVML tells it, and `profiles` the slices that everybody sees. `health` is None
    of simulated GPUs.
    """

    index: int
    gpu: Gpu | None = None
    trouble: str | None = None
    is_ours: bool = True
    cut: Answer[str] = Answer()
    profiles: tuple[str, ...] = ()
    health: Health | None = None


class Calling(Struct, frozen=True, tag="Calling"):
    """A call into NVML is about to be made: the last one that was announced is the one that hangs."""

    call: str


class Opened(Struct, frozen=True, tag="Opened"):
    """NVML answers, and says what it is."""

    driver: Answer[str]
    nvml: Answer[str]
    cuda: Answer[int]


class Refused(Struct, frozen=True, tag="Refused"):
    """There is nothing to run on, or it cannot be read: the sentence that `run` would end with."""

    message: str


class Discovered(Struct, frozen=True, tag="Discovered"):
    """The slices of the source."""

    inventory: Inventory


class Sampled(Struct, frozen=True, tag="Sampled"):
    """One reading of everything. `why_blind` is why processes are not shown, where they are not."""

    sample: DeviceSample
    why_blind: str


class GpuRead(Struct, frozen=True, tag="GpuRead"):
    """One GPU was read."""

    facts: GpuFacts


class Concluded(Struct, frozen=True, tag="Concluded"):
    """That was all. `lacking` are the calls that this NVML is too old for."""

    latencies: tuple[Latency, ...]
    lacking: tuple[str, ...]


Message = Union[Calling, Opened, Refused, Discovered, Sampled, GpuRead, Concluded]  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too

_LINES: Lines[Message] = Lines(Message)
encode_line = _LINES.encode
decode_line = _LINES.decode
