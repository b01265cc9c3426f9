"""What the sampler process says to the controller: one JSON object a line."""

from __future__ import annotations

from typing import Union

from msgspec import Struct

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.slices.lines import Lines


class Discovered(Struct, frozen=True, tag="Discovered"):
    """The first line where there is something to run on."""

    inventory: Inventory


class Refused(Struct, frozen=True, tag="Refused"):
    """The first and only line where there is not: a sentence for the user, and the exit code of its kind of error."""

    message: str
    exit_code: int


class Sampled(Struct, frozen=True, tag="Sampled"):
    """One reading of everything."""

    sample: DeviceSample


class Faulted(Struct, frozen=True, tag="Faulted"):
    """A device misbehaved, as with an Xid: `message` names the GPU and what NVML said; each is said once.

    `gpu_uuid` is None where all GPUs are concerned, as when the driver is gone. That one of them cannot be read is
    said in samples.
    """

    message: str
    gpu_uuid: str | None = None


Message = Union[Discovered, Refused, Sampled, Faulted]  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too

_LINES: Lines[Message] = Lines(Message)
encode_line = _LINES.encode
decode_line = _LINES.decode
