"""Whether the pids that the driver lists mean anything here.

In a container of its own pid namespace they may be those of the host, or nobody may be listed at all. Then every worker
would be missing from its slice, and a stranger on it. Nothing but a process of our own with a CUDA context tells.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping

from heteromig.core.devices import Inventory, SliceKind
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs
from heteromig.slices import nvml
from heteromig.slices.nvml import Library, NVMLError

_INITIAL_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of linux/proc_ns.h
_NAMESPACE = "/proc/self/ns/pid"

_START_LIMIT_NS = 8 * NS_PER_S
"""Making a context takes a second or two on a machine with many GPUs. The controller waits 20 s for the inventory."""
_END_LIMIT_NS = 2 * NS_PER_S

_STDIN, _STDOUT = 0, 1


def in_initial_namespace() -> bool:
    """Whether pids here are the machine's own, so that the driver cannot mean others; True as well if unknown."""
    try:
        return os.stat(_NAMESPACE).st_ino == _INITIAL_NAMESPACE  # noqa: PTH116 - follows the link to the namespace itself
    except OSError:
        return True


def probe_pids(library: Library, inventory: Inventory) -> bool | None:
    """Start a process with a CUDA context on an idle slice, and look for it there.

    True where the driver lists it by its pid, False where it does not list it so. None where that cannot be told: no
    slice is idle, there is no CUDA, or it takes too long.

    Args:
        library: an open library.
        inventory: the slices to choose from.
    """
    with contextlib.suppress(NVMLError, OSError):
        for one in inventory.slices:
            device = one.gpu_uuid if one.kind is SliceKind.MPS else one.uuid
            if _listed(library, device) == set():
                return _probe(library, device)
    return None


def _probe(library: Library, device: str) -> bool | None:
    with _probing(device) as (pid, is_ready):
        if not is_ready:
            return None
        listed = _listed(library, device)
        return None if listed is None else pid in listed


def _listed(library: Library, device: str) -> set[int] | None:
    handle = library.nvmlDeviceGetHandleByUUID(device)
    listed = nvml.supported(library.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if listed is None else {process.pid for process in listed}


@contextlib.contextmanager
def _probing(device: str) -> Iterator[tuple[int, bool]]:
    """The pid of the process, and whether it has its context; afterwards it is gone.

    It is spawned without `subprocess`, which is for the workers of a run alone: this is a part of the sampler.
    """
    environment: Mapping[str, str] = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    its_input, our_output = os.pipe2(os.O_CLOEXEC)
    our_input, its_output = os.pipe2(os.O_CLOEXEC)
    pid = os.posix_spawn(
        sys.executable,
        (sys.executable, "-m", "heteromig.slices.pidprobe"),
        environment,
        file_actions=((os.POSIX_SPAWN_DUP2, its_input, _STDIN), (os.POSIX_SPAWN_DUP2, its_output, _STDOUT)),
    )
    process = os.pidfd_open(pid)
    os.close(its_input)
    os.close(its_output)
    try:
        # The end of its output, without a word, is an answer as well.
        is_ready = _waited(our_input, time.monotonic_ns() + _START_LIMIT_NS) and bool(os.read(our_input, 64))
        yield pid, is_ready
    finally:
        os.close(our_output)
        os.close(our_input)
        _end(pid, process)


def _end(pid: int, process: int) -> None:
    """Let it go, or make it; one that the driver holds in the kernel is left to die there."""
    gone = _waited(process, time.monotonic_ns() + _END_LIMIT_NS)
    if not gone:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        gone = _waited(process, time.monotonic_ns() + _END_LIMIT_NS)
    if gone:
        os.waitpid(pid, 0)
    os.close(process)


def _waited(descriptor: int, until_ns: MonotonicNs) -> bool:
    """Whether the descriptor became readable in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0, until_ns - time.monotonic_ns()) // NS_PER_MS))
