"""Who runs what where: slices and a spec in, workers out. Pure and deterministic.

The rules are those of the HeteroMIG document: a named set never holds main's model and is spread as evenly as
possible over the free slices; an explicit list is taken as given.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

from heteromig.core.devices import Inventory
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.names import directory_name
from heteromig.core.phases import Role
from heteromig.core.placement import candidates, place
from heteromig.core.spec import Mode, RunSpec


class EngineNeed(Struct, frozen=True, order=True):
    """An engine that the plan needs; equal needs share one engine.

    `config_ver` is empty where the harness has no configuration versions. `gpu` is the product that the profile is cut
    of, because slices of several products have the same profile; empty where it is simulated.
    """

    benchmark: str
    scenario: str
    accuracy: str
    profile: str
    config_ver: str = ""
    gpu: str = ""


class Assignment(Struct, frozen=True):
    """One worker: a benchmark on a slice.

    `duration_ms` is LoadGen's min_duration. `cpus` are the processors it is pinned to, empty for no pinning.
    `directory` is relative to the run directory. `builds` are the engines that a build makes; one that makes several is
    named by their configuration version. `gpu` is the product that the slice is of, empty where it is simulated.
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
    config_ver: str = ""
    stops_cleanly: bool = True
    builds: tuple[EngineNeed, ...] = ()
    gpu: str = ""

    @property
    def engine(self) -> EngineNeed:
        """The engine that main or a background runs."""
        return EngineNeed(
            benchmark=self.benchmark,
            scenario=self.scenario,
            accuracy=self.accuracy,
            profile=self.profile,
            config_ver=self.config_ver,
            gpu=self.gpu,
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

    def on_profile(self, profile: str) -> Assignment:
        """The first worker whose slice has that profile: where an engine for it is built."""
        return next(worker for worker in self.workers if worker.profile == profile)

    @property
    def engines(self) -> tuple[EngineNeed, ...]:
        """Distinct engines, in order of first use."""
        return tuple(dict.fromkeys(worker.engine for worker in self.workers))


_SCENARIO_FACTOR = {"offline": 1.5, "server": 1.3, "singlestream": 1.1, "multistream": 1.1}
"""How much longer than min_duration a LoadGen run of a scenario takes, at most, on a quiet machine.

Offline asks for 1.1 times the samples of min_duration (LoadGen's test_settings_internal.cc:146-160), and the expected
rate is set above the calibrated one so that the result is not INVALID for being too fast. A stream stops at the first
query after min_duration. LoadGen also needs a number of queries (1000 in Server, 662 in MultiStream): what a short run
takes longer for them is a matter of seconds, whatever min_duration is, and lies within `_AUTOMATIC_EXTRA_S`.
"""

_OTHER_FACTOR = 1.5

_MAIN_START_S = 15.0
"""Time allowed for main's process to reach its timed section, when the duration of backgrounds is automatic."""

_AUTOMATIC_EXTRA_S = 60.0


def make_plan(spec: RunSpec, inventory: Inventory, cpus: tuple[int, ...]) -> Plan:
    """Assign main and its backgrounds to slices.

    `cpus` are the processors that the run may use; they matter for simulated slices only.

    Raises:
        PreflightError: there are too few slices, they are real and the harness would not use them, or it does not
            support their GPU.
        UsageError: an explicit background list is longer than the free slices, or main's slice does not exist.
    """
    if not inventory.simulated and not spec.uses_gpu:
        raise PreflightError(
            f"The {spec.harness} harness would compute on the CPU here, and say nothing about the slices of "
            f"{spec.slices}: install PyTorch built for CUDA (pip install torch), or use simulated slices: "
            "--slices sim:a100-sxm-80gb."
        )
    slices = place(spec, inventory)
    wanted = spec.background.candidates
    needed = 2 if wanted else 1
    if len(slices) < needed:
        raise PreflightError(
            f"{spec.slices} has {len(slices)} slice(s), and a heterogeneous run needs at least {needed}: one for main "
            "and one for a background. Cut the GPU into more slices, or try `--slices sim:a100-sxm-80gb`."
        )
    main_slice, *free = slices
    wanted = candidates(spec, main_slice, inventory)
    if spec.background.explicit and len(wanted) > len(free):
        raise UsageError(
            f"--background-benchmarks lists {len(wanted)} benchmarks, but only {len(free)} slices are free beside "
            "main's. Shorten the list, or name a set (all, edge, datacenter), which is cut to fit."
        )
    chosen = wanted if spec.background.explicit else spread(wanted, len(free), spec.seed)
    products = {gpu.uuid: "" if inventory.simulated else gpu.name for gpu in inventory.gpus}
    main_cpus, shared_cpus = split_cpus(cpus) if inventory.simulated and spec.pin else ((), ())
    background_ms = spec.background.duration_ms or automatic_duration_ms(spec)
    main = Assignment(
        index=0,
        role=Role.MAIN,
        benchmark=spec.main.benchmark,
        scenario=spec.main.scenario,
        mode=spec.main.mode,
        accuracy=spec.main.accuracy,
        duration_ms=spec.main.duration_ms,
        slice_uuid=main_slice.uuid,
        profile=main_slice.profile,
        cpus=main_cpus,
        directory=_directory(0, Role.MAIN, spec.main.benchmark),
        config_ver=spec.main.config_ver,
        stops_cleanly=spec.benchmark(spec.main.benchmark).stops_cleanly,
        gpu=products[main_slice.gpu_uuid],
    )
    backgrounds = tuple(
        Assignment(
            index=index,
            role=Role.BACKGROUND,
            benchmark=name,
            scenario=spec.background.scenario,
            mode=Mode.PERFORMANCE,
            accuracy=spec.benchmark(name).default_accuracy,
            duration_ms=background_ms,
            slice_uuid=free_slice.uuid,
            profile=free_slice.profile,
            cpus=shared_cpus,
            directory=_directory(index, Role.BACKGROUND, name),
            stops_cleanly=spec.benchmark(name).stops_cleanly,
            config_ver=spec.background.config_ver
            or spec.benchmark(name).config_ver(spec.benchmark(name).default_accuracy),
            gpu=products[free_slice.gpu_uuid],
        )
        for index, (name, free_slice) in enumerate(zip(chosen, free, strict=False), start=1)
    )
    return Plan(
        workers=(main, *backgrounds),
        left_out=tuple(name for name in wanted if name not in chosen),
        background_duration_ms=background_ms,
        controller_cpus=shared_cpus,
    )


def spread(names: tuple[str, ...], places: int, seed: int) -> tuple[str, ...]:
    """`places` names, each as often as any other or once more; `seed` decides who comes first."""
    order = list(names)
    random.Random(seed).shuffle(order)  # noqa: S311 - a repeatable order is wanted, not a secret one
    return tuple(order[place % len(order)] for place in range(places)) if order else ()


def split_cpus(cpus: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(main's processors, everybody else's): main gets the last one for itself where there are two or more."""
    ordered = sorted(cpus)
    if len(ordered) < 2:  # noqa: PLR2004 - one processor cannot be shared out
        return (), ()
    return (ordered[-1],), tuple(ordered[:-1])


def expected_duration_ms(spec: RunSpec) -> int:
    """How long backgrounds are needed from the time at which all are timed, as far as that can be told beforehand."""
    factor = _SCENARIO_FACTOR.get(spec.main.scenario, _OTHER_FACTOR) * spec.main.action.loadgen_runs
    main_s = spec.main.duration_ms / 1000 * factor
    return round(spec.timing.start_time_buffer_ms + 1000 * (_MAIN_START_S + main_s))


def automatic_duration_ms(spec: RunSpec) -> int:
    """How long backgrounds must run to outlast main, capped by the background timeout."""
    return min(2 * expected_duration_ms(spec) + round(1000 * _AUTOMATIC_EXTRA_S), spec.background.timeout_ms)


def build_batches(needs: Sequence[EngineNeed], *, together: bool) -> tuple[tuple[EngineNeed, ...], ...]:
    """What is built at once: each engine alone, or `together` all of one configuration version and profile."""
    if not together:
        return tuple((need,) for need in needs)
    batches: dict[tuple[str, str], list[EngineNeed]] = {}
    for need in needs:
        batches.setdefault((need.config_ver, need.profile), []).append(need)
    return tuple(tuple(batch) for batch in batches.values())


def build_assignment(needs: tuple[EngineNeed, ...], index: int, target: Assignment) -> Assignment:
    """The worker that builds `needs` on the slice of `target`, a planned worker of the same profile."""
    first = needs[0]
    name = first.benchmark if len(needs) == 1 else first.config_ver
    return Assignment(
        index=index,
        role=Role.BUILD,
        benchmark=name,
        scenario=",".join(dict.fromkeys(need.scenario for need in needs)),
        mode=Mode.PERFORMANCE,
        accuracy=first.accuracy,
        duration_ms=0,
        slice_uuid=target.slice_uuid,
        profile=first.profile,
        cpus=target.cpus,
        directory=_directory(index, Role.BUILD, name),
        config_ver=first.config_ver,
        gpu=first.gpu,
        stops_cleanly=target.stops_cleanly,
        builds=needs,
    )


def _directory(index: int, role: Role, name: str) -> str:
    """Where a worker's files are, relative to the run directory."""
    return f"workers/{directory_name(index, role.value, name)}"
