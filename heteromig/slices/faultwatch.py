"""Listening for errors that the driver reports of a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from heteromig.slices import nvml
from heteromig.slices.nvml import Library, NVMLError

_APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that a program causes and that die with it: those NVIDIA's Kubernetes device plugin ignores (health.go)."""

_ERRORS = nvml.EVENT_XID | nvml.EVENT_DOUBLE_BIT_ECC | nvml.EVENT_GPU_UNAVAILABLE
_TYPES = _ERRORS | nvml.EVENT_MIG_CONFIG_CHANGE

_DRAIN_AT_MOST = 64  # an error storm must not keep us here


class Reported(NamedTuple):
    """An error that the driver reported of a GPU, as a sentence."""

    gpu_uuid: str
    message: str


class Heard(NamedTuple):
    """What happened since the last time, and whether a partitioning may have changed."""

    faults: tuple[Reported, ...]
    repartitioned: bool


class FaultWatch:
    """The driver's events of some GPUs. Nothing is kept by the driver before `arm`, nor across `nvml.reopen`.

    Each GPU has a set of its own, so that one that is lost makes us deaf to itself alone.
    """

    def __init__(self, library: Library, gpu_uuids: Iterable[str]) -> None:
        self._library = library
        self._gpu_uuids = tuple(gpu_uuids)
        self._sets: dict[str, Any] = {}
        self._listened: dict[str, int] = {}

    @property
    def listened(self) -> Mapping[str, int]:
        """Which errors are listened to, as NVML's bits, by GPU; 0 where the driver offers none, or was deaf since."""
        return self._listened

    def arm(self) -> None:
        """Listen from now on, in the session that is open."""
        self._listened = dict.fromkeys(self._gpu_uuids, 0)
        for uuid in self._gpu_uuids:
            try:
                self._arm(uuid)
            except NVMLError:  # noqa: PERF203 - each GPU fails on its own
                self._give_up(uuid)

    def _arm(self, uuid: str) -> None:
        handle = self._library.nvmlDeviceGetHandleByUUID(uuid)
        types = _TYPES & (nvml.supported(self._library.nvmlDeviceGetSupportedEventTypes, handle) or 0)
        event_set = nvml.supported(self._library.nvmlEventSetCreate) if types else None
        if event_set is None:
            return
        self._sets[uuid] = event_set
        self._library.nvmlDeviceRegisterEvents(handle, types, event_set)
        self._listened[uuid] = types & _ERRORS

    def disarm(self) -> None:
        """Stop listening, before the session is closed."""
        for uuid in tuple(self._sets):
            self._give_up(uuid)

    def heard(self) -> Heard:
        """Everything since the last call; never waits."""
        faults: list[Reported] = []
        repartitioned = False
        for uuid, event_set in tuple(self._sets.items()):
            for event in self._events(uuid, event_set):
                if event.eventType & nvml.EVENT_MIG_CONFIG_CHANGE:
                    repartitioned = True
                elif event.eventType & nvml.EVENT_GPU_UNAVAILABLE:
                    faults.append(
                        Reported(uuid, f"NVML says that GPU {uuid} became unavailable; see the kernel's log.")
                    )
                elif event.eventType & nvml.EVENT_DOUBLE_BIT_ECC:
                    faults.append(
                        Reported(
                            uuid,
                            f"NVIDIA's driver reported a double-bit ECC error on GPU {uuid}: its memory gave wrong "
                            "data; see nvidia-smi -q -d ECC and the kernel's log.",
                        )
                    )
                elif event.eventData not in _APPLICATION_XIDS:
                    faults.append(
                        Reported(
                            uuid,
                            f"NVIDIA's driver reported Xid {event.eventData} on GPU {uuid}; see the kernel's log and "
                            "NVIDIA's catalogue of Xid errors.",
                        )
                    )
        return Heard(faults=tuple(faults), repartitioned=repartitioned)

    def _events(self, uuid: str, event_set: Any) -> Iterator[Any]:
        """What waits in one set. A GPU that cannot be listened to any more says why when it is read."""
        for _ in range(_DRAIN_AT_MOST):
            try:
                event = self._library.nvmlEventSetWait(event_set, 0)
            except NVMLError as error:
                if error.value != nvml.ERROR_TIMEOUT:
                    self._give_up(uuid)
                return
            yield event

    def _give_up(self, uuid: str) -> None:
        self._listened[uuid] = 0
        event_set = self._sets.pop(uuid, None)
        if event_set is not None:
            with contextlib.suppress(NVMLError):
                self._library.nvmlEventSetFree(event_set)
