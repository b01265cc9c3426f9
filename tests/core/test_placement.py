"""Which slices a run uses, and who gets which of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core.devices import Gpu, Inventory, Slice, SliceKind
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.placement import place
from heteromig.core.plan import make_plan
from heteromig.core.spec import RunSpec, SystemSpec
from tests.core.histories import ALONE, SPEC, examples, gpu_uuid, inventory, slice_uuid

HOST = inventory(2, 4, 3, profiles=("3g.40gb", "2g.20gb", "1g.10gb"))
"""GPU-0 has the slices 0 and 1, GPU-1 has 2 to 5, GPU-2 has 6 to 8; the first slice of each is the largest."""

WHOLE = Inventory(
    simulated=False,
    gpus=tuple(Gpu(uuid=gpu_uuid(number), name="NVIDIA A30", driver="535") for number in range(3)),
    slices=tuple(
        Slice(uuid=gpu_uuid(number), kind=SliceKind.GPU, profile="nvidia-a30", gpu_uuid=gpu_uuid(number))
        for number in range(3)
    ),
    geometry="whole",
)


SHARED = Inventory(
    simulated=False,
    gpus=(Gpu(uuid=gpu_uuid(1), name="NVIDIA H100 80GB HBM3", driver="580"),),
    slices=tuple(
        Slice(uuid=f"MPS-{gpu_uuid(1)}/{number}", kind=SliceKind.MPS, profile="mps-14", gpu_uuid=gpu_uuid(1))
        for number in range(3)
    ),
    geometry="shared",
)


def asking(*, gpu: str | None = None, main_slice: str | None = None) -> RunSpec:
    return replace(SPEC, gpu=gpu, main=replace(SPEC.main, slice=main_slice))


def placed(spec: RunSpec, host: Inventory = HOST) -> list[int]:
    """Numbers of the slices, main's first."""
    uuids = [one.uuid for one in host.slices]
    return [uuids.index(one.uuid) for one in place(spec, host)]


# --- the GPU ----------------------------------------------------------------------------------------------------------


def test_the_gpu_with_the_most_slices_is_the_one_unless_somebody_says_otherwise() -> None:
    assert placed(asking()) == [2, 3, 4, 5]


def test_of_gpus_with_as_many_slices_the_first_is_taken() -> None:
    assert placed(asking(), inventory(3, 4, 4)) == [3, 4, 5, 6]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_gpu_is_named_by_index_or_uuid(number: int) -> None:
    slices = {0: [0, 1], 1: [2, 3, 4, 5], 2: [6, 7, 8]}[number]
    assert placed(asking(gpu=str(number))) == slices
    assert placed(asking(gpu=gpu_uuid(number))) == slices


@pytest.mark.parametrize("gpu", ["3", "-1", "01", "GPU-3", "gpu-0", "SIM-0", "", "9" * 5000])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(gpu: str) -> None:
    with pytest.raises(UsageError, match=r"is none of the GPUs with slices: 0 \(GPU-0\), 1 \(GPU-1\), 2 \(GPU-2\)\."):
        place(asking(gpu=gpu), HOST)


def test_a_gpu_without_slices_has_too_few() -> None:
    bare = replace(HOST, slices=HOST.slices[2:])
    assert place(asking(gpu="0"), bare) == ()
    with pytest.raises(PreflightError, match=r"has 0 slice\(s\)"):
        make_plan(asking(gpu="0"), bare, (0, 1))


def test_a_host_without_anything_has_too_few() -> None:
    nothing = replace(HOST, gpus=(), slices=())
    assert place(asking(), nothing) == ()
    with pytest.raises(PreflightError, match=r"has 0 slice\(s\)"):
        make_plan(asking(), nothing, (0, 1))


# --- main's slice -----------------------------------------------------------------------------------------------------


def test_main_has_the_first_slice_unless_somebody_says_otherwise() -> None:
    assert placed(asking(gpu="2"))[0] == 6


@pytest.mark.parametrize("wanted", ["2", slice_uuid(4), "1g.10gb"])
def test_main_is_put_on_a_slice_by_index_uuid_or_profile(wanted: str) -> None:
    assert placed(asking(gpu="1", main_slice=wanted)) == [4, 2, 3, 5], "the others stay in their order"


def test_an_index_counts_the_slices_of_the_gpu_and_not_those_of_the_host() -> None:
    assert placed(asking(main_slice="0")) == [2, 3, 4, 5]
    assert placed(asking(main_slice="3")) == [5, 2, 3, 4]
    assert placed(asking(gpu="2", main_slice="1")) == [7, 6, 8]


@pytest.mark.parametrize(("wanted", "slices"), [(slice_uuid(1), [1, 0]), (slice_uuid(8), [8, 6, 7])])
def test_a_slice_of_another_gpu_brings_the_run_there(wanted: str, slices: list[int]) -> None:
    assert placed(asking(main_slice=wanted)) == slices


def test_of_gpus_with_a_slice_of_that_profile_the_one_with_the_most_slices_is_taken() -> None:
    host = replace(
        HOST,
        slices=tuple(
            replace(one, profile="7g.80gb") if number in {1, 7} else one for number, one in enumerate(HOST.slices)
        ),
    )
    assert placed(asking(main_slice="7g.80gb"), host) == [7, 6, 8]
    assert placed(asking(main_slice="3g.40gb"), host) == [2, 3, 4, 5]


@pytest.mark.parametrize("wanted", ["4", "-1", "9" * 5000, "7g.80gb", "SIM-9", ""])
def test_a_slice_that_is_not_there_is_refused_with_what_to_say_instead(wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        place(asking(main_slice=wanted), HOST)
    assert str(caught.value) == (
        f"--main-slice {wanted} is none of the 4 slices: give a UUID (`heteromig slices` lists them), an index from 0 "
        "to 3, or a profile (3g.40gb, 2g.20gb, 1g.10gb)."
    )


def test_a_gpu_that_is_named_keeps_main_from_the_slices_of_others() -> None:
    with pytest.raises(UsageError, match=r"--main-slice SIM-1 is none of the 3 slices"):
        place(asking(gpu="2", main_slice=slice_uuid(1)), HOST)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data())
@examples(100)
def test_wherever_main_is_put_the_rest_of_its_gpu_is_for_its_neighbours(counts: list[int], data: st.DataObject) -> None:
    host = inventory(*counts)
    main = data.draw(st.sampled_from(host.slices))
    found = place(asking(main_slice=main.uuid), host)
    assert found[0] is main
    assert sorted(one.uuid for one in found) == sorted(one.uuid for one in host.slices if one.gpu_uuid == main.gpu_uuid)
    rest = [one for one in host.slices if one in found[1:]]
    assert list(found[1:]) == rest


# --- whole GPUs -------------------------------------------------------------------------------------------------------


def test_whole_gpus_are_slices_of_one_run() -> None:
    assert placed(asking(), WHOLE) == [0, 1, 2]
    assert placed(asking(main_slice="1"), WHOLE) == [1, 0, 2]
    assert placed(asking(main_slice=gpu_uuid(2)), WHOLE) == [2, 0, 1]


def test_among_whole_gpus_there_is_nothing_to_choose_a_gpu_for() -> None:
    with pytest.raises(UsageError, match="of whole GPUs name main's: --main-slice"):
        place(asking(gpu="0"), WHOLE)


# --- what a harness supports ------------------------------------------------------------------------------------------

A30 = SystemSpec(gpu="a30", benchmarks=(("resnet50", ("offline", "server")), ("bert", ("offline",))))
A100 = SystemSpec(
    gpu="A100-SXM4-80GB",
    benchmarks=(("resnet50", ("offline",)), ("bert", ("offline", "server")), ("dlrm", ("offline",))),
)


LISTED = replace(SPEC.background, explicit=True)


def on_systems(*systems: SystemSpec, spec: RunSpec = SPEC) -> RunSpec:
    return replace(spec, systems=systems)


def test_a_harness_without_systems_runs_on_any() -> None:
    assert placed(on_systems(), HOST) == [2, 3, 4, 5]


def test_a_system_is_recognised_by_a_part_of_its_name_in_any_case() -> None:
    assert placed(on_systems(A30, A100)) == [2, 3, 4, 5]
    assert placed(on_systems(A30, replace(A100, gpu="nvidia a100-sxm4"))) == [2, 3, 4, 5]


def test_the_first_system_that_fits_is_the_one_that_counts() -> None:
    any_a100 = SystemSpec(gpu="A100", benchmarks=())
    assert place(on_systems(A100, any_a100), HOST)
    with pytest.raises(PreflightError, match=r"resnet50 has no offline on NVIDIA A100-SXM4-80GB \(A100\)"):
        place(on_systems(any_a100, A100), HOST)


def test_an_unknown_gpu_is_refused_with_those_that_are_known_and_with_how_to_add_one() -> None:
    with pytest.raises(PreflightError) as caught:
        place(replace(on_systems(A30), harness="make"), HOST)
    assert str(caught.value) == (
        "The make harness knows the benchmarks of a30, and this is NVIDIA A100-SXM4-80GB. If the tree supports it, "
        'say so in the configuration: [[systems]] with gpu = "..." and its [systems.benchmarks].'
    )


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (replace(SPEC, main=replace(SPEC.main, scenario="server")), "resnet50 has no server"),
        (replace(SPEC, main=replace(SPEC.main, benchmark="rnnt")), "rnnt has no offline"),
        (replace(SPEC, background=replace(LISTED, candidates=("bert", "rnnt"))), "rnnt has no offline"),
        (replace(SPEC, background=replace(LISTED, scenario="server")), "dlrm has no server"),
    ],
)
def test_what_the_system_does_not_support_is_refused_with_what_it_does(spec: RunSpec, missing: str) -> None:
    with pytest.raises(PreflightError) as caught:
        place(on_systems(A100, spec=spec), HOST)
    assert str(caught.value) == (
        f"{missing} on NVIDIA A100-SXM4-80GB (A100-SXM4-80GB), which supports resnet50: offline, bert: offline and "
        "server, dlrm: offline."
    )


def test_a_set_is_cut_to_what_the_gpu_supports() -> None:
    wide = replace(SPEC.background, candidates=("rnnt", "bert", "3d-unet", "dlrm"))
    made = make_plan(on_systems(A100, spec=replace(SPEC, background=wide)), HOST, (0, 1))
    assert {worker.benchmark for worker in made.backgrounds} == {"bert", "dlrm"}
    assert made.left_out == ()
    nothing = replace(SPEC.background, candidates=("rnnt", "3d-unet"))
    with pytest.raises(PreflightError, match=r"supports no offline of any of rnnt, 3d-unet, .* --background-bench"):
        make_plan(on_systems(A100, spec=replace(SPEC, background=nothing)), HOST, (0, 1))
    assert make_plan(on_systems(A100, spec=ALONE), HOST, (0, 1)).backgrounds == ()


def test_only_the_gpu_of_main_has_to_be_supported() -> None:
    host = replace(HOST, gpus=(replace(HOST.gpus[0], name="NVIDIA A30"), *HOST.gpus[1:]))
    assert placed(on_systems(A100), host) == [2, 3, 4, 5]
    with pytest.raises(PreflightError, match="this is NVIDIA A30"):
        place(replace(on_systems(A100), gpu="0"), host)
    assert placed(replace(on_systems(A30, spec=ALONE), gpu="0"), host) == [0, 1]


# --- in a plan --------------------------------------------------------------------------------------------------------


def test_a_plan_stays_on_the_gpu_of_main() -> None:
    made = make_plan(asking(main_slice=slice_uuid(7)), HOST, (0, 1))
    assert [worker.slice_uuid for worker in made.workers] == [slice_uuid(7), slice_uuid(6), slice_uuid(8)]
    assert [worker.profile for worker in made.workers] == ["2g.20gb", "3g.40gb", "1g.10gb"]
    assert made.main.benchmark == "resnet50"


def test_an_explicit_list_is_measured_against_the_gpu_of_main() -> None:
    explicit = replace(SPEC.background, explicit=True, candidates=("bert",) * 3)
    assert len(make_plan(replace(asking(), background=explicit), HOST, (0, 1)).backgrounds) == 3
    with pytest.raises(UsageError, match="only 2 slices are free"):
        make_plan(replace(asking(gpu="2"), background=explicit), HOST, (0, 1))


def test_shares_are_of_the_gpu_that_was_chosen_when_they_were_enumerated() -> None:
    spec = replace(SPEC, simulated=False, uses_gpu=True, slices="mps:3x14")
    for gpu in (None, "1", gpu_uuid(1)):
        assert placed(replace(spec, gpu=gpu), SHARED) == [0, 1, 2]
    assert placed(replace(spec, main=replace(spec.main, slice="2")), SHARED) == [2, 0, 1]
    plan = make_plan(spec, SHARED, (0, 1))
    assert {(need.profile, need.gpu) for need in plan.engines} == {("mps-14", "NVIDIA H100 80GB HBM3")}
    assert {worker.cpus for worker in plan.workers} == {()}
