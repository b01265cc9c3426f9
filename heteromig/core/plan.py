"""Who runs what where: slices and a spec in, workers out. Pure and deterministic.

The rules are those of the HeteroMIG document: a named set never holds main's model and is spread as evenly as
possible over the free slices; an explicit list is taken as given.
"""

from __future__ import annotations

import random

from msgspec import Struct

from heteromig.core.devices import Inventory, Slice, SliceKind
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.phases import Role
from heteromig.core.spec import Mode, RunSpec
from heteromig.core.units import format_duration_s


class EngineNeed(Struct, frozen=True, order=True):
    """An engine that the plan needs; equal needs share one engine."""

    benchmark: str
    scenario: str
    accuracy: str
    profile: str


class Assignment(Struct, frozen=True):
    """One worker: a benchmark on a slice.

    `duration_ms` is LoadGen's min_duration. `cpus` are the processors it is pinned to, empty for no pinning.
    `directory` is relative to the run directory.
    """

    index: int
    role: Role
    benchmark: str
    scenario: str
    mode: Mode
    accuracy: str
    duration_ms: int
    slice_uuid: str
    profile: str
    cpus: tuple[int, ...]
    directory: str

    @property
    def engine(self) -> EngineNeed:
        """The engine this worker runs, or builds."""
        return EngineNeed(
            benchmark=self.benchmark, scenario=self.scenario, accuracy=self.accuracy, profile=self.profile
        )


class Plan(Struct, frozen=True):
    """All workers, main first. `left_out` are benchmarks of the set for which there was no slice."""

    workers: tuple[Assignment, ...]
    left_out: tuple[str, ...]
    background_duration_ms: int
    controller_cpus: tuple[int, ...]

    @property
    def main(self) -> Assignment:
        """The measured worker."""
        return self.workers[0]

    @property
    def backgrounds(self) -> tuple[Assignment, ...]:
        """The neighbours."""
        return self.workers[1:]

    @property
    def engines(self) -> tuple[EngineNeed, ...]:
        """Distinct engines, in order of first use."""
        return tuple(dict.fromkeys(worker.engine for worker in self.workers))
