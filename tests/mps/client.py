"""A program that computes under the stand-in daemon, and knows nothing of heteromig: `client.py HABIT [ARGUMENT]`.

measuring SECONDS  says start, end after so long, and a result
serving SECONDS RATE  the same; its p99 is 20 ms up to 400 requests a second, and 2000 ms above
steady             says start, and works until TERM, of which it dies
stubborn           the same, but ignores TERM, and ends only when its work is taken off the GPU
deaf               ignores that as well
crashing FILE      says start, and dies of SIGSEGV when the file is there
shelled FILE       has a shell between, which tells of that by its exit status

As with CUDA, who finds no daemon computes all the same, without MPS; and who loses its server fails.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_FAILED = 3
_SERVED_QPS = 400.0


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


def connection_to(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(os.environ["CUDA_MPS_PIPE_DIRECTORY"], name))  # noqa: PTH118 - a short program
    return connection


def join() -> socket.socket | None:
    """Become a client, as the first use of CUDA does."""
    try:
        with connection_to("control") as control:
            control.sendall(b"connect\n")
            while control.recv(64):
                pass
        server = connection_to("server")
    except (KeyError, OSError):
        say("without MPS")
        return None
    server.sendall(f"client {os.getpid()}\n".encode())
    say(f"under MPS, {os.environ['CUDA_MPS_ACTIVE_THREAD_PERCENTAGE']} % of {os.environ['CUDA_VISIBLE_DEVICES']}")
    return server


def work(until: Callable[[], object], *, deaf: bool = False) -> None:
    """Say start, and compute until then; who is thrown off the GPU fails."""
    server = join()
    say("start")
    while not until():
        if server is None:
            time.sleep(0.01)
            continue
        if select.select([server], [], [], 0.01)[0]:
            said = server.recv(64)
            if not deaf:
                say("terminated by the server" if said else "the server is gone")
                sys.exit(_FAILED)
            if not said:
                server = None


def measuring(duration_s: str) -> None:
    begun_s = time.monotonic()
    work(lambda: time.monotonic() - begun_s > float(duration_s))
    say("end")
    say("p99_ms=21.5 status=OK rounds=400")


def serving(duration_s: str, rate: str) -> None:
    begun_s = time.monotonic()
    work(lambda: time.monotonic() - begun_s > float(duration_s))
    say("end")
    say(f"p99_ms={20 if float(rate) <= _SERVED_QPS else 2000} status=OK rounds={rate}")


def ignoring_term(*, deaf: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work(lambda: False, deaf=deaf)


def crashing(file: str) -> None:
    work(Path(file).exists)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def shelled(file: str) -> None:
    child = os.fork()
    if child == 0:
        crashing(file)
    status = os.waitpid(child, 0)[1]
    sys.exit(128 + os.WTERMSIG(status))


HABITS: dict[str, Callable[..., None]] = {
    "measuring": measuring,
    "serving": serving,
    "steady": lambda: work(lambda: False),
    "stubborn": lambda: ignoring_term(deaf=False),
    "deaf": lambda: ignoring_term(deaf=True),
    "crashing": crashing,
    "shelled": shelled,
}


if __name__ == "__main__":
    HABITS[sys.argv[1]](*sys.argv[2:])
