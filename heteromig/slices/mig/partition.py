"""How a GPU is cut, and the steps from one cut to another: arithmetic, without any device.

A GPU instance is known by its profile and its place, a compute instance by its profile and its place within: ids and
UUIDs change whenever one is made again. The steps are found by looking at what is there and what should be, so that
they are the same whether a change begins, goes on after it was interrupted, or is being undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Union

from msgspec import Struct

from heteromig.slices.mig.planning import PlacedSlice


class ComputeInstance(Struct, frozen=True):
    """A part of the processors of a GPU instance; all None stands for the one that has all of them.

    `start` and `size` are in compute slices, counted within the GPU instance.
    """

    profile_id: int | None = None
    start: int | None = None
    size: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has all processors of its GPU instance."""
        return self.profile_id is None


WHOLE = ComputeInstance()


class GpuInstance(Struct, frozen=True):
    """A part of a GPU, with its compute instances. `start` and `size` are in memory slices."""

    profile_id: int
    profile: str
    start: int
    size: int
    computes: tuple[ComputeInstance, ...] = (WHOLE,)

    @property
    def place(self) -> tuple[int, int]:
        """What it is known by."""
        return (self.profile_id, self.start)

    def __str__(self) -> str:
        return f"{self.profile}@{self.start}"


Partition = tuple[GpuInstance, ...]
"""All GPU instances of a GPU, in the order of their places."""


class DestroyCompute(Struct, frozen=True, tag=True):
    """Destroy a compute instance."""

    instance: GpuInstance
    compute: ComputeInstance

    def __str__(self) -> str:
        return f"destroy a compute instance of {self.instance}"


class DestroyGpu(Struct, frozen=True, tag=True):
    """Destroy a GPU instance, which has no compute instance any more."""

    instance: GpuInstance

    def __str__(self) -> str:
        return f"destroy the GPU instance {self.instance}"


class CreateGpu(Struct, frozen=True, tag=True):
    """Make a GPU instance at its place."""

    instance: GpuInstance

    def __str__(self) -> str:
        return f"make the GPU instance {self.instance}"


class CreateCompute(Struct, frozen=True, tag=True):
    """Make a compute instance."""

    instance: GpuInstance
    compute: ComputeInstance

    def __str__(self) -> str:
        return f"make a compute instance of {self.instance}"


Step = Union[DestroyCompute, DestroyGpu, CreateGpu, CreateCompute]  # noqa: UP007 - needed at run time on 3.10 too


class Device(Struct, frozen=True):
    """A MIG device, which is a compute instance with its GPU instance: what a process runs on."""

    profile_id: int
    profile: str
    start: int
    compute: ComputeInstance
    uuid: str

    @property
    def place(self) -> tuple[int, int, ComputeInstance]:
        """What stays the same when it is made again."""
        return (self.profile_id, self.start, self.compute)


class Replacement(Struct, frozen=True):
    """What became of one place: the UUIDs of its device before and after, None where there was or is none."""

    profile: str
    start: int
    before: str | None
    after: str | None


def partition_of(placed: Iterable[PlacedSlice]) -> Partition:
    """The cut that was planned, with one compute instance for each GPU instance."""
    return tuple(GpuInstance(one.profile.profile_id, one.profile.name, one.start, one.profile.size) for one in placed)


def partition_text(partition: Partition) -> str:
    """`3g.40gb@4,2g.20gb@0`, as layouts are written; parts of instances in parentheses."""
    return ",".join(_text(instance) for instance in partition) or "nothing"


def partition_summary(partition: Partition) -> str:
    """`3g.40gb,2x1g.10gb`: the same without places."""
    counts = Counter(f"{instance.profile}{_parts(instance)}" for instance in partition)
    return ",".join(name if count == 1 else f"{count}x{name}" for name, count in counts.items()) or "nothing"


def _text(instance: GpuInstance) -> str:
    return f"{instance}{_parts(instance)}"


def _parts(instance: GpuInstance) -> str:
    if instance.computes == (WHOLE,):
        return ""
    parts = "+".join(f"{compute.size}c" if compute.size else "whole" for compute in instance.computes)
    return f"({parts or 'no compute instance'})"


def steps(present: Partition, wanted: Partition) -> tuple[Step, ...]:
    """What leads from one cut to the other: compute instances go before GPU instances, and the largest is made first.

    What is in both stays untouched.
    """
    there = {instance.place: instance for instance in present}
    goal = {instance.place: instance for instance in wanted}
    gone = [instance for instance in present if instance.place not in goal]
    new = sorted((one for one in wanted if one.place not in there), key=lambda one: (-one.size, one.start))
    kept = [(instance, goal[instance.place]) for instance in present if instance.place in goal]
    return (
        *(DestroyCompute(instance, compute) for instance in gone for compute in instance.computes),
        *(
            DestroyCompute(instance, compute)
            for instance, should in kept
            for compute in _without(instance.computes, should.computes)
        ),
        *(DestroyGpu(instance) for instance in gone),
        *_create(new),
        *(
            CreateCompute(should, compute)
            for instance, should in kept
            for compute in _without(should.computes, instance.computes)
        ),
    )


def _create(new: Sequence[GpuInstance]) -> Iterator[Step]:
    for instance in new:
        yield CreateGpu(instance)
        for compute in instance.computes:
            yield CreateCompute(instance, compute)


def _without(some: Sequence[ComputeInstance], others: Sequence[ComputeInstance]) -> list[ComputeInstance]:
    return [compute for compute in some if compute not in others]


def is_between(present: Partition, cuts: Sequence[Partition]) -> bool:
    """Whether everything there belongs to one of these cuts, as it does when a change between them was interrupted."""
    known: dict[tuple[int, int], set[ComputeInstance]] = {}
    for cut in cuts:
        for instance in cut:
            known.setdefault(instance.place, set()).update(instance.computes)
    return all(instance.place in known and known[instance.place].issuperset(instance.computes) for instance in present)


def differences(present: Partition, wanted: Partition) -> str:
    """Why one is not the other, for a sentence; empty where it is."""
    there = {(one.place, one.computes) for one in present}
    goal = {(one.place, one.computes) for one in wanted}
    missing = [_text(one) for one in wanted if (one.place, one.computes) not in there]
    extra = [_text(one) for one in present if (one.place, one.computes) not in goal]
    found = [f"{what} {', '.join(names)}" for what, names in (("without", missing), ("with", extra)) if names]
    return " and ".join(found)


def replacements(before: Sequence[Device], after: Sequence[Device]) -> tuple[Replacement, ...]:
    """Which UUID took the place of which."""
    old = {device.place: device for device in before}
    new = {device.place: device for device in after}
    return tuple(
        Replacement(
            profile=(new.get(place) or old[place]).profile,
            start=place[1],
            before=old[place].uuid if place in old else None,
            after=new[place].uuid if place in new else None,
        )
        for place in dict.fromkeys((*new, *old))
    )
