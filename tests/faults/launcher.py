"""Start a run in special circumstances: `python -m tests.faults.launcher OPTIONS -- MODULE ARGUMENTS`.

--terminal PATH     on that terminal, which becomes its own
--nohup             with SIGHUP ignored
--mounts-of PID     among the mounts of that process
--limit NAME=N      with that resource limit, such as NOFILE=20
--user UID          as somebody else

`python -m tests.faults.launcher --disk DIRECTORY BYTES` mounts a small disk in a namespace of its own, says so, and
keeps it until its standard input ends.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_NEW_MOUNTS = 0x00020000
"""CLONE_NEWNS, unshare(2) and setns(2)."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def _require(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def keep_disk(directory: str, size_bytes: str) -> None:
    """A tmpfs that nobody else sees."""
    _require(_LIBC.unshare(_NEW_MOUNTS), "unshare")
    subprocess.run(("mount", "--make-rprivate", "/"), check=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "none", directory), check=True)
    print("mounted", flush=True)  # noqa: T201 - the test waits for it
    sys.stdin.read()


def main() -> None:
    if sys.argv[1] == "--disk":
        keep_disk(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--terminal")
    parser.add_argument("--nohup", action="store_true")
    parser.add_argument("--mounts-of", type=int)
    parser.add_argument("--limit", action="append", default=[])
    parser.add_argument("--user", type=int)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.terminal:
        terminal = os.open(options.terminal, os.O_RDWR)  # a session's leader without a terminal gets it by opening it
        for number in range(3):
            os.dup2(terminal, number)
        if terminal > 2:
            os.close(terminal)
    if options.nohup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if options.mounts_of:
        here = Path.cwd()
        namespace = os.open(f"/proc/{options.mounts_of}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        _require(_LIBC.setns(namespace, _NEW_MOUNTS), "setns")
        os.chdir(here)
    if options.user is not None:
        # Who may read everything, because the interpreter may be in a directory of root's.
        capability = "+dac_read_search"
        limits = (word for limit in options.limit for word in ("--limit", limit))
        os.execvp(  # noqa: S606 - no shell is meant, here and below
            "setpriv",
            (
                *("setpriv", "--reuid", str(options.user), "--regid", str(options.user), "--clear-groups"),
                *(
                    "--inh-caps",
                    capability,
                    "--ambient-caps",
                    capability,
                    sys.executable,
                    "-m",
                    "tests.faults.launcher",
                ),
                *(*limits, "--", *options.command),
            ),
        )
    for limit in options.limit:
        name, _, number = limit.partition("=")
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(number), int(number)))
    os.execv(sys.executable, (sys.executable, "-m", *options.command))  # noqa: S606 - see above


if __name__ == "__main__":
    main()
