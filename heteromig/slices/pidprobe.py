"""A process with a CUDA context and nothing else, to see by which pid the driver lists it.

`python -m heteromig.slices.pidprobe` makes the context on the one device that CUDA_VISIBLE_DEVICES names, says `ready`
on its standard output, and waits for its standard input to end. It uses libcuda alone, which comes with the driver.
Where that fails it says so on its standard error, and exits with 1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

READY = b"ready\n"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Be listed until nobody is interested any more."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before we asked to be told
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        sys.stderr.write(f"There is no CUDA driver library to probe pids with: {error}\n")
        return 1
    device, context = ctypes.c_int(), ctypes.c_void_p()
    result = (
        cuda.cuInit(ctypes.c_uint(0))
        or cuda.cuDeviceGet(ctypes.byref(device), ctypes.c_int(0))
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    )
    if result != 0:
        sys.stderr.write(f"CUDA makes no context to probe pids with: it says {result} (see CUresult of cuda.h)\n")
        return 1
    os.write(1, READY)
    os.read(0, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
