from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heteromig.slices.boards import BOARDS
from heteromig.slices.mig.partition import (
    WHOLE,
    ComputeInstance,
    CreateCompute,
    CreateGpu,
    DestroyCompute,
    DestroyGpu,
    Device,
    GpuInstance,
    Partition,
    Replacement,
    Step,
    differences,
    is_between,
    partition_of,
    partition_summary,
    partition_text,
    replacements,
    steps,
)
from tests.slices.mig.cuts import all_cuts

PARTS = [(WHOLE,), (), (ComputeInstance(0, 0, 1),), (ComputeInstance(0, 0, 1), ComputeInstance(0, 1, 1))]


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    cut = draw(st.sampled_from(all_cuts("a30")))
    whole = partition_of(sorted(cut, key=lambda one: one.start))
    return tuple(
        GpuInstance(one.profile_id, one.profile, one.start, one.size, draw(st.sampled_from(PARTS))) for one in whole
    )


class Gpu:
    """A GPU as strict as a real one."""

    def __init__(self, cut: Partition) -> None:
        self.instances = {one.place: (one, list(one.computes)) for one in cut}

    def take(self, step: Step) -> None:
        place = step.instance.place
        if isinstance(step, CreateGpu):
            cells = {one.start + offset for one, _ in self.instances.values() for offset in range(one.size)}
            assert not cells & set(range(step.instance.start, step.instance.start + step.instance.size))
            self.instances[place] = (step.instance, [])
        elif isinstance(step, CreateCompute):
            computes = self.instances[place][1]
            assert step.compute not in computes
            assert WHOLE not in computes or step.compute.is_whole
            computes.append(step.compute)
        elif isinstance(step, DestroyCompute):
            self.instances[place][1].remove(step.compute)
        else:
            assert not self.instances[place][1]
            del self.instances[place]

    @property
    def cut(self) -> Partition:
        return tuple(
            GpuInstance(
                one.profile_id,
                one.profile,
                one.start,
                one.size,
                tuple(sorted(computes, key=lambda compute: compute.start or 0)),
            )
            for one, computes in sorted(self.instances.values(), key=lambda entry: entry[0].start)
        )


@given(before=partitions(), after=partitions())
def test_the_steps_lead_from_one_cut_to_the_other_wherever_they_are_interrupted(
    before: Partition, after: Partition
) -> None:
    gpu = Gpu(before)
    for step in steps(before, after):
        gpu.take(step)
        assert is_between(gpu.cut, (before, after))
        for goal in (before, after):  # on from here, or back
            other = Gpu(gpu.cut)
            for further in steps(gpu.cut, goal):
                other.take(further)
            assert differences(other.cut, goal) == ""
    assert differences(gpu.cut, after) == ""
    assert steps(gpu.cut, after) == ()


@given(before=partitions(), after=partitions())
def test_what_is_in_both_cuts_is_not_touched_and_the_largest_is_made_first(before: Partition, after: Partition) -> None:
    taken = steps(before, after)
    same = {one for one in before if one in after}
    assert not same & {step.instance for step in taken}
    sizes = [step.instance.size for step in taken if isinstance(step, CreateGpu)]
    assert sizes == sorted(sizes, reverse=True)
    kinds = [type(step) for step in taken]
    if DestroyGpu in kinds:
        last_compute = max((i for i, kind in enumerate(kinds) if kind is DestroyCompute), default=-1)
        assert last_compute < kinds.index(DestroyGpu)


def instance(profile: str, start: int, *computes: ComputeInstance) -> GpuInstance:
    found = BOARDS["a100-sxm-80gb"].profile(profile)
    assert found is not None
    return GpuInstance(found.profile_id, profile, start, found.size, computes)


def test_a_cut_that_is_of_neither_is_somebody_elses() -> None:
    half, small = instance("3g.40gb", 4, WHOLE), instance("1g.10gb", 0, WHOLE)
    assert is_between((small,), ((half,), (small,)))
    assert is_between((), ((half,),))
    assert not is_between((instance("3g.40gb", 0, WHOLE),), ((half,), (small,)))
    assert not is_between((instance("3g.40gb", 4, ComputeInstance(0, 0, 1)),), ((half,), (small,)))


def test_cuts_are_written_with_their_places_and_parts() -> None:
    parts = ComputeInstance(0, 0, 1), ComputeInstance(1, 1, 2)
    cut = (instance("1g.10gb", 0, WHOLE), instance("2g.20gb", 2), instance("3g.40gb", 4, *parts))
    assert partition_text(cut) == "1g.10gb@0,2g.20gb@2(no compute instance),3g.40gb@4(1c+2c)"
    assert partition_text(()) == "nothing"
    assert differences(cut, cut) == ""
    assert differences(cut[:2], cut) == "without 3g.40gb@4(1c+2c)"
    assert differences(cut[:2], cut[1:]) == "without 3g.40gb@4(1c+2c) and with 1g.10gb@0"


def test_devices_are_matched_by_their_places() -> None:
    part = ComputeInstance(0, 1, 1)
    before = (
        Device(19, "1g.10gb", 0, WHOLE, "old-a"),
        Device(19, "1g.10gb", 1, WHOLE, "old-b"),
        Device(9, "3g.40gb", 4, part, "old-c"),
    )
    after = (
        Device(19, "1g.10gb", 0, WHOLE, "new-a"),
        Device(15, "1g.20gb", 2, WHOLE, "new-d"),
        Device(9, "3g.40gb", 4, part, "old-c"),
    )
    assert set(replacements(before, after)) == {
        Replacement("1g.10gb", 0, "old-a", "new-a"),
        Replacement("1g.10gb", 1, "old-b", None),
        Replacement("1g.20gb", 2, None, "new-d"),
        Replacement("3g.40gb", 4, "old-c", "old-c"),
    }


def test_a_cut_in_short() -> None:
    one, other = (GpuInstance(19, "1g.10gb", start, 1) for start in (4, 5))
    half = GpuInstance(9, "3g.40gb", 0, 4, (ComputeInstance(0, 0, 1), ComputeInstance(0, 1, 2)))
    assert partition_summary((half, one, other)) == "3g.40gb(1c+2c),2x1g.10gb"
    assert partition_summary(()) == "nothing"
