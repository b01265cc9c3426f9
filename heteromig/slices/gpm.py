"""What slices do, by the counters of their GPU (NVML's GPU performance monitoring, from Hopper on).

A counter says something only of the time between two samples. Samples, like handles, belong to one session of NVML,
and the sampler begins a new one every few seconds: so that no reading is missing then, the last one of a session is
taken just before its end and handed out in the next.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from heteromig.core.devices import Activity, Reading
from heteromig.core.units import NS_PER_MS, MonotonicNs
from heteromig.slices import nvml
from heteromig.slices.nvml import Handle, Library, NVMLError, Unread

SHORTEST_NS = 100 * NS_PER_MS
"""Between the samples of a pair, at least (nvml.h): the counters are refreshed every 100 ms. Up to 60 ms apart, an H200
and an H100 with driver 580 answer with 0, and with no number for the memory's bandwidth, and call that a success."""

_NO_GPM = "this GPU has no GPM counters, which come with Hopper"
_NO_SUCH_COUNTER = "this board has no such counter"
SIMULATED = "the simulator measures no such thing"
_NO_NUMBER = "NVML gave no number, as it does of counters that were just started"

_METRICS = {
    Reading.SM: nvml.GPM_SM,
    Reading.TENSOR: nvml.GPM_TENSOR,
    Reading.DRAM: nvml.GPM_DRAM,
    Reading.PCIE_TX: nvml.GPM_PCIE_TX,
    Reading.PCIE_RX: nvml.GPM_PCIE_RX,
}
_ASKED = tuple(_METRICS.values())
PARTS = tuple(_METRICS)
"""What activity consists of."""
_BYTES_PER_MIB = 1 << 20
"""PCIe is counted in MiB/s (nvml.h)."""


class Measured(NamedTuple):
    """What was measured, and why the rest of it was not."""

    activity: Activity
    missing: Mapping[Reading, str]


class Scope(NamedTuple):
    """Whose counters: a GPU instance's, or a whole GPU's where there is none.

    `slices` tells it from another GPU instance that was made later and got the same id.
    """

    gpu_uuid: str
    gpu_instance_id: int | None
    slices: frozenset[str]


class _Pair(Struct):
    """The sample taken last, and room for the next one."""

    gpu: Handle
    last: Any
    spare: Any
    taken_ns: MonotonicNs = 0


class Gpm:
    """The counters of one library, from one of its sessions to the next."""

    def __init__(self, library: Library, *, simulated: bool = False) -> None:
        self._library = library
        self._lacking = SIMULATED if simulated else _NO_SUCH_COUNTER
        self._refusals: dict[str, Unread | None] = {}  # of the GPUs asked in this session
        self._pairs: dict[Scope, _Pair] = {}
        self._parting: dict[Scope, Measured | Unread] = {}

    @property
    def began(self) -> bool:
        """Whether there are counters of which a first sample was taken in this session."""
        return bool(self._pairs)

    def measure(self, scope: Scope, gpu: Handle) -> Measured | Unread | None:
        """What was done since the last time; None where that was too short a time ago, or never in this session.

        Raises:
            NVMLError: the device is in trouble.
        """
        pair = self._pairs.get(scope)
        return self._begin(scope, gpu) if pair is None else self._go_on(scope, pair)

    def end_session(self, *, trusted: bool) -> None:
        """Give the samples back, before the session is closed. `trusted` says that the GPUs are cut as they were."""
        self._parting = {}
        for scope, pair in self._pairs.items():
            if trusted:
                with contextlib.suppress(NVMLError):  # the device is in trouble, which the next session shows as well
                    measured = self._go_on(scope, pair)
                    if measured is not None:
                        self._parting[scope] = measured
            self._free(pair.last, pair.spare)
        self._pairs.clear()
        self._refusals.clear()

    def _begin(self, scope: Scope, gpu: Handle) -> Measured | Unread | None:
        refusal = self._refusal(scope.gpu_uuid, gpu)
        if refusal is not None:
            return refusal
        last = nvml.reading(self._library.nvmlGpmSampleAlloc)
        if isinstance(last, Unread):
            return last
        spare = nvml.reading(self._library.nvmlGpmSampleAlloc)
        if isinstance(spare, Unread):
            self._free(last)
            return spare
        pair = _Pair(gpu, last, spare)
        try:
            taken = self._take(scope, gpu, last)
        except NVMLError:
            self._free(last, spare)
            raise
        if isinstance(taken, Unread):
            self._free(last, spare)
            return taken
        pair.taken_ns = time.monotonic_ns()
        self._pairs[scope] = pair
        return self._parting.pop(scope, None)

    def _go_on(self, scope: Scope, pair: _Pair) -> Measured | Unread | None:
        if time.monotonic_ns() - pair.taken_ns < SHORTEST_NS:
            return None
        taken = self._take(scope, pair.gpu, pair.spare)
        if isinstance(taken, Unread):
            return taken
        taken_ns = time.monotonic_ns()
        request = nvml.gpm_request(pair.last, pair.spare, _ASKED)
        answer = nvml.reading(self._library.nvmlGpmMetricsGet, request)
        pair.last, pair.spare, pair.taken_ns = pair.spare, pair.last, taken_ns
        return answer if isinstance(answer, Unread) else _measured(answer, self._lacking)

    def _take(self, scope: Scope, gpu: Handle, sample: Any) -> Any:
        if scope.gpu_instance_id is None:
            return nvml.reading(self._library.nvmlGpmSampleGet, gpu, sample)
        return nvml.reading(self._library.nvmlGpmMigSampleGet, gpu, scope.gpu_instance_id, sample)

    def _refusal(self, gpu_uuid: str, gpu: Handle) -> Unread | None:
        if gpu_uuid not in self._refusals:
            support = nvml.reading(self._library.nvmlGpmQueryDeviceSupport, gpu)
            if isinstance(support, Unread):
                lacks = support.code == nvml.ERROR_NOT_SUPPORTED
                self._refusals[gpu_uuid] = Unread(support.code, _NO_GPM) if lacks else support
            else:
                supported = bool(support.isSupportedDevice)
                self._refusals[gpu_uuid] = None if supported else Unread(nvml.ERROR_NOT_SUPPORTED, _NO_GPM)
        return self._refusals[gpu_uuid]

    def _free(self, *samples: Any) -> None:
        for sample in samples:
            with contextlib.suppress(NVMLError):  # the session that they belong to ends anyway
                self._library.nvmlGpmSampleFree(sample)


def _measured(answer: Any, lacking: str) -> Measured:
    found: dict[Reading, float] = {}
    missing: dict[Reading, str] = {}
    for reading, metric in zip(_METRICS, answer.metrics, strict=False):  # there is room for more than was asked for
        if metric.nvmlReturn != 0:
            missing[reading] = nvml.why_not(metric.nvmlReturn).reason
        elif metric.metricInfo.shortName is None:  # seen on an H200, where its value is 0
            missing[reading] = lacking
        elif not math.isfinite(metric.value) or metric.value < 0:
            missing[reading] = _NO_NUMBER
        else:
            found[reading] = metric.value
    activity = Activity(
        sm_percent=_percent(found.get(Reading.SM)),
        tensor_percent=_percent(found.get(Reading.TENSOR)),
        dram_percent=_percent(found.get(Reading.DRAM)),
        pcie_tx_bytes_per_s=_rate(found.get(Reading.PCIE_TX)),
        pcie_rx_bytes_per_s=_rate(found.get(Reading.PCIE_RX)),
    )
    return Measured(activity, missing)


def _percent(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _rate(value_mib: float | None) -> int | None:
    return None if value_mib is None else round(value_mib * _BYTES_PER_MIB)
