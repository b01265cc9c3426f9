"""Systems under test: what LoadGen sends queries to. They compute, complete, and can be told to stop computing.

LoadGen calls `issue` and `flush` on a thread of its own, and its test returns when all that it issued is complete.
Where computing can go on beside that, it does so on one worker thread. A test cannot be aborted; to stop it, everything
outstanding is completed without being computed (the run is then no measurement, and says so). Raising into LoadGen
would end the process without a word, so whatever fails in here ends the process with a traceback instead.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

import mlperf_loadgen
import numpy as np

from heteromig.benchmarks.signals import die

if TYPE_CHECKING:
    from collections.abc import Callable

    from heteromig.benchmarks.inference import Answer

FAILED_EXIT_CODE = 1
_DRAIN_CHUNK = 65536
"""Samples completed at once while draining: enough to cost nothing per call, few enough to keep memory flat."""


class Sut(Protocol):
    """What the program asks of a system under test."""

    completed: int
    """Samples completed so far, computed or not."""
    not_computed: int
    """Those of them that were not computed."""
    over_latency: int | None
    """Those that surely took longer than the limit on latency; None where there is none."""

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Take a query; LoadGen's thread."""
        ...

    def flush(self) -> None:
        """No more queries will come; LoadGen's thread."""
        ...

    def stop(self) -> None:
        """Complete what is outstanding and what is still to come without computing it."""
        ...


def fail() -> None:
    """Print the exception being handled and end the process."""
    traceback.print_exc()
    sys.stderr.flush()
    die(FAILED_EXIT_CODE)


class _Completion:
    """Computes samples and hands them to LoadGen, or hands them over without computing."""

    def __init__(self, answer: Answer, on_first: Callable[[], None]) -> None:
        self.completed = 0
        self.not_computed = 0
        self.over_latency: int | None = None
        self._answer = answer
        self._on_first = on_first

    def compute(self, ids: list[int], indices: list[int]) -> None:
        rows = np.ascontiguousarray(self._answer(indices))
        address = rows.__array_interface__["data"][0]
        row_bytes = rows.nbytes // len(rows)
        responses = map(
            mlperf_loadgen.QuerySampleResponse,
            ids,
            range(address, address + rows.nbytes, row_bytes),
            repeat(row_bytes),
        )
        # LoadGen copies what it logs before this returns; `rows` lives until then.
        mlperf_loadgen.QuerySamplesComplete(list(responses))
        first = not self.completed
        self.completed += len(ids)
        if first:
            self._on_first()

    def release(self, ids: list[int]) -> None:
        for start in range(0, len(ids), _DRAIN_CHUNK):
            chunk = ids[start : start + _DRAIN_CHUNK]
            mlperf_loadgen.QuerySamplesComplete(
                list(map(mlperf_loadgen.QuerySampleResponse, chunk, repeat(0), repeat(0)))
            )
            self.completed += len(chunk)
            self.not_computed += len(chunk)


class OfflineSut(_Completion):
    """One huge query, computed chunk by chunk in the order given, each chunk completed at once."""

    def __init__(self, answer: Answer, batch: int, on_first: Callable[[], None]) -> None:
        super().__init__(answer, on_first)
        self._batch = batch
        self._stopping = False

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Start the worker; LoadGen's thread goes on to wait for completions."""
        threading.Thread(target=self._work, args=(ids, indices), name="worker", daemon=True).start()

    def flush(self) -> None:
        """Nothing is held back."""

    def stop(self) -> None:
        """The chunk at hand is finished, the rest released."""
        self._stopping = True

    def _work(self, ids: list[int], indices: list[int]) -> None:
        try:
            for start in range(0, len(ids), self._batch):
                if self._stopping:
                    self.release(ids[start:])
                    break
                end = start + self._batch
                self.compute(ids[start:end], indices[start:end])
        except BaseException:  # noqa: BLE001 - nothing may escape into a thread that LoadGen waits for
            fail()
        # LoadGen's logger keeps per-thread state: it can crash when a thread that completed samples ends before its
        # test does. This one ends with the process.
        threading.Event().wait()


class StreamSut(_Completion):
    """One query after the other, each of one sample or of a few, computed in one call on LoadGen's own thread.

    LoadGen sends the next query when the last one is complete, so there is nothing that a worker thread could do
    meanwhile, and waking one would be part of every latency. Nothing ends such a test early; a stop answers all
    queries that were generated for the time to come, which takes a few microseconds each.
    """

    def __init__(self, answer: Answer, on_first: Callable[[], None]) -> None:
        super().__init__(answer, on_first)
        self._stopping = False

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Answer the query before this returns."""
        try:
            if self._stopping:
                # Up to millions of times: not by way of `release`, which is for many samples at once.
                mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(one, 0, 0) for one in ids])
                self.not_computed += len(ids)
                self.completed += len(ids)
            else:
                self.compute(ids, indices)
        except BaseException:  # noqa: BLE001 - nothing may escape into LoadGen
            fail()

    def flush(self) -> None:
        """Nothing is held back."""

    def stop(self) -> None:
        """The query at hand is finished, the rest released as they come."""
        self._stopping = True


class ServerSut(_Completion):
    """Queries as they arrive, up to a batch of those that wait.

    LoadGen ends a Server test early when more than `max_outstanding` queries are incomplete. That is the one way to
    stop it, so a stop holds completions back until it flushes. A test that is not being stopped never gets there:
    when that many wait, `issue` blocks until one is done. LoadGen counts latency from the scheduled time, so a
    blocked issue hides none of it. A sample that is late by the time at which it was issued is late for LoadGen too.
    """

    def __init__(
        self, answer: Answer, batch: int, max_outstanding: int, latency_limit_ns: int, on_first: Callable[[], None]
    ) -> None:
        super().__init__(answer, on_first)
        self.over_latency = 0
        self._latency_limit_ns = latency_limit_ns
        self._batch = batch
        self._max_outstanding = max_outstanding
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, int]] = []
        """Sample, index, and when it was issued, on the monotonic clock."""
        self._outstanding = 0
        self._stopping = False
        self._flushed = False
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """Queue the samples; blocks while too many are outstanding."""
        with self._changed:
            self._waiting.extend(zip(ids, indices, repeat(time.monotonic_ns()), strict=False))
            self._outstanding += len(ids)
            self._changed.notify_all()
            while self._outstanding >= self._max_outstanding and not self._stopping:
                self._changed.wait()

    def flush(self) -> None:
        """The last query was issued: what a stop holds back may go."""
        with self._changed:
            self._flushed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Compute no more; hold until LoadGen flushes."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._has_work)
                    stopping = self._stopping
                    count = len(self._waiting) if stopping else self._batch
                    taken, self._waiting = self._waiting[:count], self._waiting[count:]
                ids = [sample_id for sample_id, _, _ in taken]
                if stopping:
                    self.release(ids)
                else:
                    self.compute(ids, [index for _, index, _ in taken])
                    self._count_late(time.monotonic_ns(), [issued_ns for _, _, issued_ns in taken])
                with self._changed:
                    self._outstanding -= len(taken)
                    self._changed.notify_all()
        except BaseException:  # noqa: BLE001 - nothing may escape into a thread that LoadGen waits for
            fail()

    def _count_late(self, now_ns: int, issued: list[int]) -> None:
        """`issued` is in order, so that nearly always one look is enough."""
        assert self.over_latency is not None  # noqa: S101 - counted from 0
        limit_ns = now_ns - self._latency_limit_ns
        if issued[0] < limit_ns:
            self.over_latency += sum(issued_ns < limit_ns for issued_ns in issued)

    def _has_work(self) -> bool:
        return bool(self._waiting) and (self._flushed or not self._stopping)
