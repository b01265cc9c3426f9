"""Who is on a slice or a GPU: the processes that the driver lists, each with its line of ancestors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from heteromig.core.devices import Inventory, Occupant, OtherGpu, SliceKind
from heteromig.slices import nvml
from heteromig.slices.discovery import OF_THE_DRIVER, read_gpu, read_slices
from heteromig.slices.nvml import Handle, Library, NVMLError, Unread
from heteromig.slices.processes import Ancestry, read_command

_LOOKS = 3
"""How often a slice is looked at where somebody on it ends at that very moment."""
FOREIGN = "the driver lists processes by other pids than they have in this pid namespace"

Listing = Callable[[Library, Handle], Iterable[int]]


def computing(library: Library, handle: Handle) -> Iterable[int]:
    """Pids of those that compute there. Raises NVMLError when the list cannot be had."""
    return [process.pid for process in library.nvmlDeviceGetComputeRunningProcesses(handle)]


def sharing(library: Library, handle: Handle) -> Iterable[int]:
    """Those on a GPU and the clients of its MPS server, of which drivers list some, or all, in both places."""
    clients = nvml.supported(library.nvmlDeviceGetMPSComputeRunningProcesses, handle) or ()
    return dict.fromkeys((*computing(library, handle), *(process.pid for process in clients)))


def occupants(library: Library, handle: Handle, ancestry: Ancestry, listing: Listing) -> tuple[Occupant, ...]:
    """Who is on a slice, and is still there once its line of ancestors was read.

    Processes end between being listed and being looked at, and without its ancestors one of ours is a stranger: where a
    line is cut, all is read again. Orphans have another parent by then. What stays unreadable is of another namespace.

    Raises:
        NVMLError: the list cannot be had, or the device is in trouble.
    """
    found: tuple[Occupant, ...] = ()
    for _ in range(_LOOKS):
        found = tuple(_occupant(pid, ancestry) for pid in listing(library, handle))
        if not any(ancestry.is_cut(one.pid) for one in found):
            break
        ancestry = Ancestry()
    return found


def read_others(library: Library, inventory: Inventory) -> tuple[OtherGpu, ...]:
    """Who is on the GPUs of the host that are not part of the inventory, in the session that is open.

    These are GPUs without slices to run on, those that a control group keeps from us, and those that are lost.

    Raises:
        NVMLError: the driver is in trouble.
    """
    known = frozenset(gpu.uuid for gpu in inventory.gpus)
    count = nvml.required(library.nvmlDeviceGetCount)
    others = (_other(library, index, known, shows=inventory.pids_resolve is not False) for index in range(count))
    return tuple(one for one in others if one is not None)


def _other(library: Library, index: int, known: frozenset[str], *, shows: bool) -> OtherGpu | None:
    """None where it is one of the inventory."""
    uuid: str | None = None
    try:
        handle = nvml.required(library.nvmlDeviceGetHandleByIndex, index)
        uuid = nvml.text(nvml.required(library.nvmlDeviceGetUUID, handle))
        if uuid in known:
            return None
        if not shows:
            return OtherGpu(index, uuid, None, FOREIGN)
        found: dict[Occupant, None] = {}
        for place in _places(library, handle):
            there = nvml.reading(occupants, library, place, Ancestry(), sharing)
            if isinstance(there, Unread):
                return OtherGpu(index, uuid, None, there.reason)
            found.update(dict.fromkeys(there))
        return OtherGpu(index, uuid, tuple(found))
    except NVMLError as error:
        if error.value in OF_THE_DRIVER:
            raise
        return OtherGpu(index, uuid, None, f"NVML says {str(error)!r}")


def _places(library: Library, handle: Handle) -> Iterator[Handle]:
    """The GPU, and its MIG devices: the list of the GPU holds theirs for privileged users only (nvml.h)."""
    yield handle
    gpu = read_gpu(library, handle)
    if gpu.gpu.mig_current:
        yield from (one.handle for one in read_slices(library, gpu, SliceKind.MIG))


def _occupant(pid: int, ancestry: Ancestry) -> Occupant:
    return Occupant(pid=pid, ancestors=ancestry.of(pid), command=read_command(pid))
