"""An ordinary program, which knows nothing of heteromig: keeps a processor and its caches busy until it is stopped."""

import signal
import sys

SIZE_BYTES = 8 << 20


def stop(_signum: int, _frame: object) -> None:
    """What a service does on SIGTERM: say goodbye and exit with status 0."""
    print("bye", flush=True)
    sys.exit(0)


def main() -> None:
    """Copy a block of memory there and back."""
    signal.signal(signal.SIGTERM, stop)
    here, there = bytearray(SIZE_BYTES), bytearray(SIZE_BYTES)
    print("busy", flush=True)
    while True:
        there[:] = here
        here[:] = there


if __name__ == "__main__":
    main()
