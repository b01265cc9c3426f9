"""How long a chatty run is kept waiting by whoever takes its output, as STANDIN_WRITES asks for."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Iterator


class Account:
    """Appends a line to the file STANDIN_WRITES, if there is one, for each line that was printed.

    A write counts as blocked when the kernel put this thread to sleep within it (voluntary context switches, see
    getrusage(2)); being preempted by a neighbour does not count. Waiting for Python's own lock does, which happens to
    the first line now and then, while LoadGen hands over its query.
    """

    def __init__(self, benchmark: str) -> None:
        self._benchmark = benchmark
        path = os.environ.get("STANDIN_WRITES")
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """Print within it; a write that fails is accounted for as well."""
        if self._file is None:
            yield
            return
        at_ns, before_ns = time.time_ns(), time.perf_counter_ns()
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        try:
            yield
        finally:
            entry = {
                "pid": os.getpid(),
                "benchmark": self._benchmark,
                "at_ns": at_ns,
                "took_ns": time.perf_counter_ns() - before_ns,
                "blocked": resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > switches,
            }
            os.write(self._file, f"{json.dumps(entry)}\n".encode())
