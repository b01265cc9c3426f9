"""What a matrix is asked, from a configuration: its settings, and the specification of every run, all checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from heteromig.campaign.matrix import BackgroundSet, Cell, MatrixSettings, cells
from heteromig.campaign.probes import SERVER, Side
from heteromig.core.devices import Inventory
from heteromig.core.errors import UsageError
from heteromig.core.placement import place
from heteromig.core.plan import EngineNeed, make_plan, spread
from heteromig.core.spec import Goal, Mode, Preparation, RunSpec
from heteromig.harnesses import harness_of
from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.harnesses.make.harness import MakeHarness
from heteromig.runner.config import Config, resolve
from heteromig.slices.access import enumerate_slices
from heteromig.slices.mig.foreseeing import foresee_layout
from heteromig.views.text import printable

REPETITIONS = 3
"""With two, a 95 % interval is twelve standard errors wide either way (Student's t with one degree of freedom)."""
RETRIES = 1

_MAIN_TAKES = 1.15
"""Of main's duration: LoadGen asks for a tenth more than it lasts."""
_SMALL_S = (4.0, 3.0)
_TREE_S = (20.0, 60.0)
"""What main, and then its backgrounds, take to start and to stop: measured on the embedded harness; in NVIDIA's tree,
as docs/tuning.md assumes. Runs that have ended say better."""

Specs = Mapping[tuple[Cell, Side], RunSpec]


class MatrixAsked(Struct, frozen=True):
    """What was asked, as it is written down: `target_qps` are the rates of Server, `run` is that of the first cell.

    It is without its secrets. The runs of other cells differ from it by main, scenario, rate and backgrounds only.
    """

    matrix: MatrixSettings
    target_qps: dict[str, float]
    run: RunSpec


class Asking(Struct, frozen=True):
    """The same with every run, and the engines that are still to be built."""

    settings: MatrixSettings
    target_qps: dict[str, float]
    specs: Specs
    missing_engines: tuple[EngineNeed, ...]

    @property
    def first(self) -> RunSpec:
        """The run of the first cell beside its backgrounds."""
        return self.specs[cells(self.settings)[0], Side.BESIDE]


def asking(config: Config) -> Asking:
    """All that a matrix will run, planned on the slices that there are.

    Raises:
        UsageError: something does not exist, does not fit, or cannot be compared.
        PreflightError: there are no slices, too few, or the harness is not installed.
    """
    wanted = config.matrix
    mains = _names(wanted.mains if wanted.mains is not None else config.main.benchmark or _default_main(config))
    scenarios = _names(wanted.scenarios if wanted.scenarios is not None else config.main.scenario or "offline")
    alone = {
        (main, scenario): _alone(config, main, scenario)
        for scenario in scenarios or _nothing("--scenarios")
        for main in mains or _nothing("--mains")
    }
    first = next(iter(alone.values()))
    _refuse(config, alone)
    harness_of(first).preflight(first)
    inventory = _inventory(first)
    models = {spec.benchmark(spec.main.benchmark).model for spec in alone.values()}
    free = min(len(place(spec, inventory)) for spec in alone.values()) - 1
    said = {name: _of_set(config, first, name, names) for name, names in _sets(config).items()}
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    if free < 1:  # which planning says in a sentence of its own
        make_plan(next(iter(said.values())), inventory, cpus)
    around_s, start_s = _TREE_S if first.harness == MakeHarness.name else _SMALL_S
    isolated_s = _MAIN_TAKES * first.main.duration_ms / 1000 + around_s
    settings = MatrixSettings(
        mains=tuple(alone[main, scenarios[0]].main.benchmark for main in mains),
        background_sets=tuple(_set(name, spec, models, free) for name, spec in said.items()),
        scenarios=tuple(alone[mains[0], scenario].main.scenario for scenario in scenarios),
        isolated_s=isolated_s,
        beside_s=isolated_s + start_s + first.timing.start_time_buffer_ms / 1000,
        one_at_a_time=bool(wanted.one_at_a_time),
        repetitions=REPETITIONS if wanted.repetitions is None else wanted.repetitions,
        most_retries=RETRIES if wanted.retries is None else wanted.retries,
    )
    _require_apart(settings)
    specs = {
        (cell, side): spec
        for cell in cells(settings)
        for side, spec in (
            (Side.ISOLATED, _alone(config, cell.main, cell.scenario)),
            (Side.BESIDE, _beside(config, cell)),
        )
    }
    needs: dict[EngineNeed, None] = {}
    for spec in specs.values():
        plan = make_plan(spec, inventory, cpus)
        needs.update((need, None) for need, _ in harness_of(spec).missing_engines(plan.engines, spec))
    return Asking(settings, dict(wanted.target_qps or {}), specs, tuple(needs))


def _default_main(config: Config) -> str:
    return resolve(config, goal=Goal.BASELINE).main.benchmark


def _names(said: str | Sequence[str]) -> list[str]:
    """A list, or text with commas."""
    return [name for name in (part.strip() for part in (said.split(",") if isinstance(said, str) else said)) if name]


def _nothing(option: str) -> list[str]:
    raise UsageError(f"{option} is empty: name at least one.")


def _sets(config: Config) -> dict[str, str | list[str]]:
    """What is said of each set; without any, the backgrounds that a run would have are the only one."""
    sets = config.matrix.background_sets
    if sets:
        return sets
    said = config.background.benchmarks
    if sets is not None or said is None or said == "none":
        raise UsageError(
            "A matrix measures what backgrounds cost, and none are named: add --background-set NAME=a,b,c, or a table "
            "[matrix.background-sets], or --background-benchmarks for a single set."
        )
    return {said if isinstance(said, str) else ",".join(said): said}


def _of_set(config: Config, first: RunSpec, name: str, said: str | list[str]) -> RunSpec:
    """The run of the first main beside the backgrounds of a set."""
    if not name.strip() or printable(name) != name:
        raise UsageError(f"A background set is called {name!r}: choose a name that can be printed.")
    if not _names(said):
        raise UsageError(f"The background set {name!r} is empty: name benchmarks, or leave it out, for alone is there.")
    beside = _of_main(config, first.main.benchmark, first.main.scenario)
    try:
        return resolve(replace(beside, background=replace(beside.background, benchmarks=said)))
    except UsageError as error:
        raise UsageError(f"The background set {name!r}: {error}") from None


def _set(name: str, spec: RunSpec, models: set[str], free: int) -> BackgroundSet:
    """The benchmarks of a set. One that the harness names is the same for every main, so it holds no main's model."""
    found = spec.background.candidates
    if not spec.background.explicit:
        others = tuple(one for one in found if spec.benchmark(one).model not in models)
        found = spread(others, free, spec.seed)
    if not found:
        raise UsageError(
            f"The background set {name!r} is {spec.background.benchmarks}, which holds nothing that is not a main of "
            "this matrix: list its benchmarks."
        )
    if len(found) > free:
        raise UsageError(
            f"The background set {name!r} has {len(found)} benchmarks, but only {free} slices are free beside main's: "
            "shorten it, or cut the GPU into more slices."
        )
    return BackgroundSet(name=name, benchmarks=found)


def _require_apart(settings: MatrixSettings) -> None:
    same = {one.benchmarks: one.name for one in reversed(settings.background_sets)}
    for one in settings.background_sets:
        if same[one.benchmarks] != one.name:
            raise UsageError(
                f"The background sets {same[one.benchmarks]!r} and {one.name!r} are the same: leave one of them out."
            )
    main, scenario = settings.mains[0], settings.scenarios[0]
    names = [cell.backgrounds.name for cell in cells(settings) if (cell.main, cell.scenario) == (main, scenario)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice!r} is what --one-at-a-time calls a set, and one of yours: give it another name.")


def _refuse(config: Config, alone: Mapping[tuple[str, str], RunSpec]) -> None:
    first = next(iter(alone.values()))
    if first.main.mode is not Mode.PERFORMANCE:
        raise UsageError(f"A matrix compares speed, and --main-mode is {first.main.mode.value}: leave it out.")
    if first.lenient:
        raise UsageError("A matrix needs every background in every run, and --lenient goes on without: leave it out.")
    if first.rebuild:
        raise UsageError(
            "Each run of a matrix has to have the same engines, and --rebuild makes new ones: leave it out here, and "
            "build them before with heteromig build --rebuild."
        )
    names = {spec.main.benchmark for spec in alone.values()}
    stray = next((name for name in config.matrix.target_qps or {} if name not in names), None)
    if stray is not None:
        raise UsageError(f"target-qps of [matrix] names {stray!r}, which is none of the mains: {', '.join(names)}.")
    for spec in alone.values():
        if spec.main.scenario == SERVER and spec.main.target_qps is None and spec.harness == LoadgenHarness.name:
            raise UsageError(
                f"{spec.main.benchmark} needs a rate in Server: without one each run calibrates its own, and latencies "
                f"at different rates cannot be compared. Say [matrix.target-qps] {spec.main.benchmark} = ..., or "
                "--main-target-qps for all mains; heteromig tune finds one."
            )


def _inventory(spec: RunSpec) -> Inventory:
    """The slices that runs will find."""
    if spec.preparation is Preparation.LAYOUT:
        return foresee_layout(spec.slices, Path(spec.runs_dir), spec.gpu, spec.layout)[1]
    return enumerate_slices(spec.slices, Path(spec.runs_dir), spec.gpu)[0]


def _of_main(config: Config, main: str, scenario: str) -> Config:
    """The same for one main. A rate is for Server: what Offline expects has to be more than it does."""
    rate = (config.matrix.target_qps or {}).get(main, config.main.target_qps)
    server = scenario.lower() == SERVER
    return replace(
        config,
        main=replace(config.main, benchmark=main, scenario=scenario, target_qps=rate if server else None),
    )


def _alone(config: Config, main: str, scenario: str) -> RunSpec:
    return resolve(_of_main(config, main, scenario), goal=Goal.BASELINE)


def _beside(config: Config, cell: Cell) -> RunSpec:
    beside = _of_main(config, cell.main, cell.scenario)
    names = list(cell.backgrounds.benchmarks)
    return resolve(replace(beside, background=replace(beside.background, benchmarks=names)))
