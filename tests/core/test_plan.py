"""Who runs what where."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.phases import Role
from heteromig.core.plan import (
    EngineNeed,
    Plan,
    automatic_duration_ms,
    build_assignment,
    build_batches,
    make_plan,
    split_cpus,
    spread,
)
from heteromig.core.spec import Action, Mode, RunSpec
from tests.core.histories import ALONE, BATCHED, SPEC, examples, inventory, slice_uuid

FIVE = ("bert", "dlrm", "rnnt", "3d-unet", "ssd-resnet34")
CPUS = (0, 1)


def wanting(*names: str, explicit: bool = False, seed: int = 0) -> RunSpec:
    return replace(SPEC, background=replace(SPEC.background, candidates=names, explicit=explicit), seed=seed)


def plan(spec: RunSpec, slices: int = 7, cpus: tuple[int, ...] = CPUS) -> Plan:
    return make_plan(spec, inventory(slices), cpus)


def names(made: Plan) -> tuple[str, ...]:
    return tuple(worker.benchmark for worker in made.backgrounds)


def test_six_free_slices_and_five_models_make_one_model_run_twice() -> None:
    made = plan(wanting(*FIVE))
    assert sorted(Counter(names(made)).values()) == [1, 1, 1, 1, 2]
    assert made.left_out == ()


def test_main_has_the_first_slice_and_each_background_one_of_its_own() -> None:
    made = plan(wanting(*FIVE))
    assert [worker.slice_uuid for worker in made.workers] == [slice_uuid(number) for number in range(7)]
    assert [worker.index for worker in made.workers] == list(range(7))
    assert [worker.role for worker in made.workers] == [Role.MAIN, *[Role.BACKGROUND] * 6]
    assert made.main.benchmark == "resnet50"
    assert len({worker.directory for worker in made.workers}) == 7
    assert made.workers[0].directory == "workers/0-main-resnet50"
    assert made.workers[1].directory == f"workers/1-background-{names(made)[0]}"


def test_workers_are_told_what_the_spec_says_of_their_role() -> None:
    main = replace(SPEC.main, mode=Mode.ACCURACY, accuracy="99.9", scenario="server")
    spec = replace(SPEC, main=main, background=replace(SPEC.background, duration_ms=123_000))
    made = plan(spec, slices=3)
    said = [(worker.mode, worker.accuracy, worker.scenario, worker.duration_ms) for worker in made.workers]
    assert said[0] == (Mode.ACCURACY, "99.9", "server", 10_000)
    assert said[1:] == [(Mode.PERFORMANCE, "99", "offline", 123_000)] * 2
    assert made.background_duration_ms == 123_000


@given(st.integers(1, 8), st.integers(0, 60), st.integers(0, 2**32))
@examples(100)
def test_counts_differ_by_at_most_one(models: int, places: int, seed: int) -> None:
    wanted = tuple(f"model{number}" for number in range(models))
    chosen = spread(wanted, places, seed)
    counts = Counter(chosen)
    assert len(chosen) == places
    assert set(chosen) <= set(wanted)
    assert max(counts[name] for name in wanted) - min(counts[name] for name in wanted) <= 1
    assert chosen == spread(wanted, places, seed)


def test_the_seed_decides_who_comes_first() -> None:
    firsts = {spread(FIVE, 6, seed)[0] for seed in range(50)}
    assert firsts == set(FIVE)
    assert len({names(plan(wanting(*FIVE, seed=seed))) for seed in range(10)}) > 1


def test_the_assignment_is_the_same_on_every_machine() -> None:
    assert names(plan(wanting(*FIVE))) == ("rnnt", "dlrm", "bert", "ssd-resnet34", "3d-unet", "rnnt")


def test_a_set_is_cut_to_the_free_slices_and_says_who_was_left_out() -> None:
    made = plan(wanting(*FIVE), slices=4)
    assert len(names(made)) == 3
    assert set(names(made)) | set(made.left_out) == set(FIVE)
    assert made.left_out == tuple(name for name in FIVE if name not in names(made)), "in the order of the set"


def test_an_explicit_list_is_taken_as_given() -> None:
    made = plan(wanting("dlrm", "resnet50", "dlrm", explicit=True))
    assert names(made) == ("dlrm", "resnet50", "dlrm")
    assert made.left_out == ()


def test_an_explicit_list_longer_than_the_free_slices_is_refused() -> None:
    assert len(names(plan(wanting("bert", "dlrm", explicit=True), slices=3))) == 2
    with pytest.raises(UsageError, match=r"lists 3 benchmarks, but only 2 slices are free .* cut to fit"):
        plan(wanting("bert", "dlrm", "bert", explicit=True), slices=3)


@pytest.mark.parametrize(("spec", "slices", "enough"), [(SPEC, 1, 2), (SPEC, 0, 2), (ALONE, 0, 1)])
def test_too_few_slices_are_refused(spec: RunSpec, slices: int, enough: int) -> None:
    with pytest.raises(PreflightError, match=rf"has {slices} slice\(s\), .* at least {enough}: .*sim:a100-sxm-80gb"):
        plan(spec, slices=slices)
    assert plan(spec, slices=enough).main.slice_uuid == slice_uuid(0)


def test_without_backgrounds_main_is_alone() -> None:
    made = plan(ALONE)
    assert (len(made.workers), made.left_out) == (1, ())


def test_a_harness_without_a_gpu_is_refused_on_real_slices() -> None:
    real = replace(inventory(3), simulated=False)
    with pytest.raises(PreflightError, match=r"pip install torch.* --slices sim:"):
        make_plan(SPEC, real, (0, 1))
    assert len(make_plan(replace(SPEC, uses_gpu=True), real, (0, 1)).workers) == 3


def test_engines_are_for_the_product_that_the_slices_are_of() -> None:
    real = replace(inventory(3), simulated=False)
    made = make_plan(replace(SPEC, uses_gpu=True), real, (0, 1))
    assert {worker.gpu for worker in made.workers} == {engine.gpu for engine in made.engines} == {real.gpus[0].name}
    assert build_assignment(made.engines[:1], 7, made.main).engine.gpu == real.gpus[0].name
    assert {worker.gpu for worker in plan(SPEC, slices=3).workers} == {""}


# --- processors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "main", "others"),
    [
        ((), (), ()),
        ((3,), (), ()),
        ((0, 1), (1,), (0,)),
        ((5, 2), (5,), (2,)),
        (tuple(range(8)), (7,), tuple(range(7))),
    ],
)
def test_main_has_a_processor_for_itself_where_there_are_two(
    cpus: tuple[int, ...], main: tuple[int, ...], others: tuple[int, ...]
) -> None:
    assert split_cpus(cpus) == (main, others)
    made = plan(SPEC, slices=3, cpus=cpus)
    assert [worker.cpus for worker in made.workers] == [main, others, others]
    assert made.controller_cpus == others


def test_nobody_is_pinned_on_real_slices_or_against_the_users_will() -> None:
    for spec, simulated in ((replace(SPEC, pin=False), True), (replace(SPEC, uses_gpu=True), False)):
        made = make_plan(spec, replace(inventory(3), simulated=simulated), tuple(range(8)))
        assert {worker.cpus for worker in made.workers} == {()}
        assert made.controller_cpus == ()


# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "main_ms", "expected_ms"),
    [
        ("offline", 10_000, 126_000),  # 2 x (3 + 15 + 10 x 1.5) + 60
        ("server", 10_000, 122_000),  # 2 x (3 + 15 + 10 x 1.3) + 60
        ("singlestream", 10_000, 118_000),  # 2 x (3 + 15 + 10 x 1.1) + 60
        ("multistream", 10_000, 118_000),
        ("offline", 600_000, 1_896_000),
        ("offline", 0, 96_000),
    ],
)
def test_backgrounds_run_twice_as_long_as_main_may_take(scenario: str, main_ms: int, expected_ms: int) -> None:
    spec = replace(SPEC, main=replace(SPEC.main, scenario=scenario, duration_ms=main_ms))
    assert automatic_duration_ms(spec) == expected_ms
    assert plan(spec).background_duration_ms == expected_ms
    capped = replace(spec, background=replace(spec.background, timeout_ms=90_000))
    assert automatic_duration_ms(capped) == 90_000


@pytest.mark.parametrize(
    ("action", "expected_ms"),
    [
        (Action.RUN_HARNESS, 126_000),
        (Action.TEST01, 156_000),  # 2 x (3 + 15 + 2 x 10 x 1.5) + 60
        (Action.TEST04, 186_000),
        (Action.TEST05, 186_000),
    ],
)
def test_backgrounds_outlast_every_loadgen_run_that_main_may_take(action: Action, expected_ms: int) -> None:
    spec = replace(SPEC, main=replace(SPEC.main, action=action))
    assert automatic_duration_ms(spec) == expected_ms


# --- engines ----------------------------------------------------------------------------------------------------------


def test_engines_are_distinct_and_in_order_of_first_use() -> None:
    made = plan(wanting("bert", "bert", "resnet50", explicit=True))
    assert [need.benchmark for need in made.engines] == ["resnet50", "bert"]
    other_accuracy = replace(SPEC, main=replace(SPEC.main, accuracy="99.9"))
    twice = plan(replace(other_accuracy, background=replace(SPEC.background, candidates=("resnet50",), explicit=True)))
    assert [need.accuracy for need in twice.engines] == ["99.9", "99"]


def test_an_engine_is_built_on_the_slice_of_a_worker_with_its_profile() -> None:
    made = plan(SPEC)
    need = made.engines[1]
    build = build_assignment((need,), 9, made.workers[1])
    assert (build.role, build.index, build.directory) == (Role.BUILD, 9, f"workers/9-build-{need.benchmark}")
    assert (build.engine, build.builds) == (need, (need,))
    assert (build.slice_uuid, build.cpus) == (made.workers[1].slice_uuid, made.workers[1].cpus)


NEEDS = st.lists(
    st.builds(
        EngineNeed,
        st.sampled_from(FIVE),
        st.sampled_from(["offline", "server"]),
        st.sampled_from(["99", "99.9"]),
        st.sampled_from(["1g.10gb", "2g.20gb"]),
        st.sampled_from(["", "hetero", "hetero_high_accuracy"]),
    ),
    unique=True,
)


@given(NEEDS)
@examples(100)
def test_one_build_makes_all_engines_of_a_configuration_version_and_profile(needs: list[EngineNeed]) -> None:
    batches = build_batches(needs, together=True)
    kinds = [{(need.config_ver, need.profile) for need in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(kinds) == len(set().union(*kinds)), "at most one build of each kind"
    assert Counter(need for batch in batches for need in batch) == Counter(needs)
    order = {need: number for number, need in enumerate(needs)}
    assert all(list(batch) == sorted(batch, key=order.__getitem__) for batch in batches), "in the order of the plan"
    assert [batch[0] for batch in batches] == sorted((batch[0] for batch in batches), key=order.__getitem__)


@given(NEEDS)
@examples(50)
def test_engines_are_built_one_by_one_unless_the_harness_takes_them_together(needs: list[EngineNeed]) -> None:
    assert build_batches(needs, together=False) == tuple((need,) for need in needs)


def test_a_batch_is_named_by_its_configuration_version() -> None:
    made = plan(BATCHED)
    low, high = build_batches(made.engines, together=True)
    assert [need.benchmark for need in high] == ["dlrm"]
    assert {need.benchmark for need in low} == {"resnet50", "bert"}
    low = (*low, replace(low[0], scenario="server"))
    build = build_assignment(low, 9, made.workers[2])
    assert (build.benchmark, build.scenario, build.config_ver) == ("low", "offline,server", "low")
    assert (build.directory, build.builds) == ("workers/9-build-low", low)
    assert (build.slice_uuid, build.profile, build.duration_ms) == (slice_uuid(2), "1g.10gb", 0)
    alone = build_assignment(high, 10, made.main)
    assert (alone.benchmark, alone.config_ver) == ("dlrm", "high")
    assert (alone.directory, alone.builds) == ("workers/10-build-dlrm", high)


def test_the_configuration_version_is_that_of_the_accuracy_unless_one_is_asked_for() -> None:
    catalog = tuple(replace(info, config_vers=(("99", "low"), ("99.9", "high"))) for info in SPEC.catalog)
    spec = replace(SPEC, catalog=catalog, main=replace(SPEC.main, accuracy="99.9", config_ver="mine"))
    assert [worker.config_ver for worker in plan(spec, slices=3).workers] == ["mine", "low", "low"]
    precise = replace(spec, catalog=tuple(replace(info, default_accuracy="99.9") for info in catalog))
    assert [worker.config_ver for worker in plan(precise, slices=3).workers] == ["mine", "high", "high"]
    asked = replace(precise, background=replace(spec.background, config_ver="theirs"))
    assert [worker.config_ver for worker in plan(asked, slices=3).workers] == ["mine", "theirs", "theirs"]
    assert [need.config_ver for need in plan(asked, slices=3).engines] == ["mine", "theirs", "theirs"]


def test_workers_of_one_benchmark_but_another_configuration_need_another_engine() -> None:
    spec = replace(wanting("resnet50", explicit=True), main=replace(SPEC.main, config_ver="mine"))
    assert [need.config_ver for need in plan(spec).engines] == ["mine", ""]


def test_engines_are_for_a_profile_each_and_built_where_one_is() -> None:
    mixed = inventory(3, profiles=("2g.20gb", "1g.10gb"))
    made = make_plan(wanting("resnet50", "resnet50", explicit=True), mixed, CPUS)
    assert [need.profile for need in made.engines] == ["2g.20gb", "1g.10gb"]
    assert [made.on_profile(need.profile).index for need in made.engines] == [0, 1]


def test_a_harness_that_knows_no_clean_stop_of_a_benchmark_is_believed() -> None:
    catalog = tuple(replace(info, stops_cleanly=info.name == "bert") for info in SPEC.catalog)
    made = plan(replace(SPEC, catalog=catalog), slices=3)
    assert {worker.benchmark: worker.stops_cleanly for worker in made.workers} == {
        "resnet50": False,
        "bert": True,
        "dlrm": False,
    }
    assert not build_assignment(made.engines[:1], 3, made.main).stops_cleanly


def test_the_catalog_knows_its_benchmarks() -> None:
    assert SPEC.benchmark("bert").name == "bert"


# --- what main does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "audit", "runs"),
    [
        (Action.RUN_HARNESS, None, 1),
        (Action.TEST01, "TEST01", 2),
        (Action.TEST04, "TEST04", 3),
        (Action.TEST05, "TEST05", 3),
    ],
)
def test_audits_may_run_loadgen_again(action: Action, audit: str | None, runs: int) -> None:
    assert (action.audit, action.loadgen_runs) == (audit, runs)
    assert replace(SPEC.main, action=action).may_run_again == (audit is not None)


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        ((), False),
        (("--test_mode=SubmissionRun",), True),
        (("--fast", "--test_mode", "SubmissionRun", "--verbose"), True),
        (("--test_mode=AccuracyOnly",), False),
        (("--test_mode", "AccuracyOnly", "SubmissionRun"), False),
        (("SubmissionRun", "--test_mode"), False),
    ],
)
def test_a_submission_run_is_two_runs_of_loadgen(arguments: tuple[str, ...], *, again: bool) -> None:
    assert replace(SPEC.main, run_args=arguments).may_run_again is again
