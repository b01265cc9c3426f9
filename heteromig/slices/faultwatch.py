"""Listening for errors that the driver reports of a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from heteromig.slices import nvml
from heteromig.slices.nvml import Library, NVMLError

_APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that a program causes and that die with it: those NVIDIA's Kubernetes device plugin ignores (health.go)."""

_TYPES = nvml.EVENT_XID | nvml.EVENT_GPU_UNAVAILABLE | nvml.EVENT_MIG_CONFIG_CHANGE
_NOTHING_TO_HEAR = (nvml.ERROR_TIMEOUT, nvml.ERROR_FUNCTION_NOT_FOUND)
"""No event is waiting; the library is older than waiting for one (which came after making a set)."""

_DRAIN_AT_MOST = 64  # an error storm must not keep us here


class Heard(NamedTuple):
    """What happened since the last time: faults as sentences, and whether the partitioning may have changed."""

    faults: tuple[str, ...]
    repartitioned: bool


class FaultWatch:
    """The driver's events of some GPUs. Nothing is kept by the driver before `arm`, nor across `nvml.reopen`."""

    def __init__(self, library: Library, gpu_uuids: Iterable[str]) -> None:
        self._library = library
        self._gpu_uuids = tuple(gpu_uuids)
        self._event_set: Any = None

    def arm(self) -> None:
        """Listen from now on, in the session that is open; without effect where the driver offers no events.

        Raises:
            NVMLError: a device is in trouble.
        """
        self._event_set = nvml.supported(self._library.nvmlEventSetCreate)
        if self._event_set is None:
            return
        for uuid in self._gpu_uuids:
            handle = self._library.nvmlDeviceGetHandleByUUID(uuid)
            types = _TYPES & (nvml.supported(self._library.nvmlDeviceGetSupportedEventTypes, handle) or 0)
            if types:
                nvml.supported(self._library.nvmlDeviceRegisterEvents, handle, types, self._event_set)

    def disarm(self) -> None:
        """Stop listening, before the session is closed."""
        if self._event_set is not None:
            nvml.supported(self._library.nvmlEventSetFree, self._event_set)
            self._event_set = None

    def heard(self) -> Heard:
        """Everything since the last call; never waits."""
        faults: list[str] = []
        repartitioned = False
        for _ in range(_DRAIN_AT_MOST if self._event_set is not None else 0):
            try:
                event = self._library.nvmlEventSetWait(self._event_set, 0)
            except NVMLError as error:
                if error.value in _NOTHING_TO_HEAR:
                    break
                raise
            if event.eventType & nvml.EVENT_MIG_CONFIG_CHANGE:
                repartitioned = True
            elif event.eventType & nvml.EVENT_GPU_UNAVAILABLE:
                faults.append(f"NVML says that GPU {self._uuid(event)} became unavailable; see the kernel's log.")
            elif event.eventData not in _APPLICATION_XIDS:
                faults.append(
                    f"NVIDIA's driver reported Xid {event.eventData} on GPU {self._uuid(event)}; see the kernel's log "
                    "and NVIDIA's catalogue of Xid errors."
                )
        return Heard(faults=tuple(faults), repartitioned=repartitioned)

    def _uuid(self, event: Any) -> str:
        return nvml.text(nvml.supported(self._library.nvmlDeviceGetUUID, event.device) or "of unknown UUID")
