"""What the kernel's log says of Xids: NVML keeps none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from heteromig.doctor.facts import GpuFacts
from heteromig.doctor.findings import Finding, ok, unknown, warning

_RECORD_BYTES = 8192  # of Documentation/ABI/testing/dev-kmsg: one record a read, and none is longer
_XID = re.compile(rb"NVRM: Xid \((?:PCI:)?(?P<bus>[0-9a-fA-F:]+)\S*\): (?P<number>\d+)")
_NVML_KEEPS_NONE = "NVML keeps no history of Xids"
_SHOWN = 5


class LoggedXid(Struct, frozen=True):
    """An Xid of the GPU on that bus."""

    bus_id: str
    number: int


def read_xids(path: Path = Path("/dev/kmsg")) -> tuple[LoggedXid, ...]:
    """All that the kernel still remembers.

    Raises:
        OSError: this user may not read it.
    """
    return tuple(find_xids(_records(path)))


def find_xids(records: Iterable[bytes]) -> Iterator[LoggedXid]:
    """The Xids in records of the kernel's log."""
    for record in records:
        for match in _XID.finditer(record):
            yield LoggedXid(match["bus"].decode().lower(), int(match["number"]))


def _records(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:  # it was overwritten while we were reading: the next read goes on after it
                continue
            if not record:
                return
            yield record
    finally:
        os.close(descriptor)


def about_xids(gpus: tuple[GpuFacts, ...], path: Path = Path("/dev/kmsg")) -> Iterator[Finding]:
    """Xids so far, of any GPU."""
    try:
        xids = read_xids(path)
    except OSError as error:
        yield unknown(
            "xid-history",
            f"not observable: {_NVML_KEEPS_NONE}, and the kernel's log cannot be read ({path}: {error.strerror})",
            "sudo dmesg | grep Xid",
        )
        return
    if not xids:
        yield ok("xid-history", f"none in the kernel's log ({_NVML_KEEPS_NONE})")
        return
    known = {one.health.bus_id.value: f"GPU {one.index}" for one in gpus if one.health is not None}
    last = ", ".join(f"{one.number} on {known.get(one.bus_id, one.bus_id)}" for one in xids[-_SHOWN:])
    yield warning(
        "xid-history",
        f"the kernel's log has {len(xids)} Xids, the last of them {last}",
        "See NVIDIA's catalogue of Xid errors for what each takes: nothing, a reset, or another board.",
    )
