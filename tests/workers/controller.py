"""A stand-in for the controller: it starts two workers with grandchildren and waits to be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from heteromig.workers.command import Command
from heteromig.workers.sweep import become_subreaper
from heteromig.workers.worker import Worker

HARNESS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("grandchild", flush=True)
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""


def main(root: Path) -> None:
    become_subreaper()
    workers = []
    for index in range(2):
        directory = root / f"inner-{index}"
        directory.mkdir()
        command = Command(argv=(sys.executable, "-I", "-S", "-c", HARNESS), env=dict(os.environ), cwd=directory)
        worker = Worker(index=index, directory=directory, command=command)
        worker.spawn()
        workers.append(worker)
    while not all("grandchild" in log.read_text() for log in root.glob("inner-?/stdout.log")) or len(
        list(root.glob("inner-?/stdout.log"))
    ) < len(workers):
        time.sleep(0.005)
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    signal.pause()


main(Path(sys.argv[1]))
