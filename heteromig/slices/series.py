"""What one sample of the devices leaves for the next: counters to compare with, and what was said to be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from heteromig.core.devices import Inventory, Reading, Shared, Slice, SliceKind, Unavailable
from heteromig.slices import nvml
from heteromig.slices.gpm import SIMULATED, Gpm, Scope
from heteromig.slices.nvml import Library, Unread

_T = TypeVar("_T")


class Series:
    """Samples of one inventory, one after another, over any number of sessions of the library.

    A sample costs its reader less when it says only what is new: why readings are missing is told when it changes.
    `are_shares` says that the slices are shares of a GPU under MPS, all of them. `asked_slowdowns` are the counters of
    slowdowns that are still asked for, by GPU, where that is not all of them.
    """

    def __init__(self, library: Library, inventory: Inventory) -> None:
        self.gpm = Gpm(library, simulated=inventory.simulated)
        self.asked_slowdowns: dict[str, tuple[Reading, ...]] = {}
        self.are_shares = any(one.kind is SliceKind.MPS for one in inventory.slices)
        self._scopes = tuple(_scopes(inventory.slices))
        self._simulated = inventory.simulated
        self._reasons: dict[tuple[str, Reading], str] = {}
        self._changed = True
        self._shared_told = False

    def end_session(self, *, trusted: bool = True) -> None:
        """To be called before the library is opened anew. `trusted`: nobody cut the GPUs anew, as far as is known."""
        self.gpm.end_session(trusted=trusted)

    def scopes_of(self, gpu_uuid: str) -> list[Scope]:
        """Whose counters are to be read on one GPU."""
        return [scope for scope in self._scopes if scope.gpu_uuid == gpu_uuid]

    def repeat(self) -> None:
        """Let the next sample tell everything again, because the last one was lost."""
        self._changed = True
        self._shared_told = False

    def value(self, scope: str, what: Reading, call: Callable[..., _T], *args: Any) -> _T | None:
        """What the call returns; None, with a note of why, where it cannot be read.

        Raises:
            NVMLError: the device itself is in trouble.
        """
        found = nvml.reading(call, *args)
        if isinstance(found, Unread):
            of_course = self._simulated and found.code == nvml.ERROR_NOT_SUPPORTED
            self.note(scope, what, SIMULATED if of_course else found.reason)
            return None
        self.note(scope, what, None)
        return found

    def note(self, scope: str, what: Reading, reason: str | None) -> None:
        """Why a slice or a GPU has no such reading, the end of a sentence; None where it has."""
        if self._reasons.get((scope, what)) == reason:
            return
        self._changed = True
        if reason is None:
            del self._reasons[scope, what]
        else:
            self._reasons[scope, what] = reason

    def unavailable(self) -> tuple[Unavailable, ...] | None:
        """Everything that is missing; None where this was told and is as it was."""
        if not self._changed:
            return None
        self._changed = False
        readings: dict[tuple[str, str], list[Reading]] = {}
        for (scope, what), reason in self._reasons.items():
            readings.setdefault((scope, reason), []).append(what)
        scopes: dict[tuple[tuple[Reading, ...], str], list[str]] = {}
        for (scope, reason), of_scope in readings.items():
            scopes.setdefault((tuple(of_scope), reason), []).append(scope)
        return tuple(Unavailable(tuple(alike), which, reason) for (which, reason), alike in scopes.items())

    def shared(self) -> tuple[Shared, ...] | None:
        """Slices that have readings in common; None where this was told."""
        if self._shared_told:
            return None
        self._shared_told = True
        readings = (Reading.ACTIVITY,) if self.are_shares else (Reading.MEMORY, Reading.ACTIVITY)
        return tuple(_shared(self._scopes, readings))


def _scopes(slices: Iterable[Slice]) -> Iterator[Scope]:
    """Whose counters those of a slice are: its GPU instance's, or the whole GPU's."""
    together: dict[tuple[str, int | None], list[str]] = {}
    for one in slices:
        together.setdefault((one.gpu_uuid, one.gpu_instance_id), []).append(one.uuid)
    for (gpu_uuid, instance), uuids in together.items():
        yield Scope(gpu_uuid, instance, frozenset(uuids))


def _shared(scopes: Iterable[Scope], readings: tuple[Reading, ...]) -> Iterator[Shared]:
    for scope in scopes:
        if len(scope.slices) > 1:
            instance = "" if scope.gpu_instance_id is None else f"GPU instance {scope.gpu_instance_id} of "
            yield Shared(tuple(sorted(scope.slices)), readings, f"{instance}GPU {scope.gpu_uuid}")
