"""Which slices a run uses: one GPU, main's slice first. Pure and deterministic."""

from __future__ import annotations

from heteromig.core.devices import Gpu, Inventory, Slice, SliceKind
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.spec import RunSpec, SystemSpec


def place(spec: RunSpec, inventory: Inventory) -> tuple[Slice, ...]:
    """The slices of the run, main's first, the others in the order of enumeration.

    They are those of one GPU, unless whole GPUs are the slices: what other GPUs do is none of the run's business.

    Raises:
        UsageError: `--gpu` or `--main-slice` names nothing that there is.
        PreflightError: the harness does not support this kind of GPU, or not the benchmarks on it.
    """
    slices = _slices(spec, inventory)
    if not slices:
        return ()  # that there are too few is said where it is known how many are needed
    first = _main_slice(spec, slices)
    _require_supported(spec, _gpu_of(first, inventory))
    return (first, *(one for one in slices if one is not first))


def candidates(spec: RunSpec, main_slice: Slice, inventory: Inventory) -> tuple[str, ...]:
    """What backgrounds may run: of a set, those that the GPU supports.

    Raises:
        PreflightError: it supports none of the set.
    """
    wanted, scenario = spec.background.candidates, spec.background.scenario
    gpu = _gpu_of(main_slice, inventory)
    system = _system(spec, gpu)
    if spec.background.explicit or system is None or not wanted:
        return wanted
    supported = tuple(name for name in wanted if system.supports(name, scenario))
    if not supported:
        raise PreflightError(
            f"{gpu.name} ({system.gpu}) supports no {scenario} of any of {', '.join(wanted)}, so that there is nothing "
            "for backgrounds to run: list what it supports with --background-benchmarks."
        )
    return supported


def _slices(spec: RunSpec, inventory: Inventory) -> tuple[Slice, ...]:
    if any(one.kind is SliceKind.GPU for one in inventory.slices):
        if spec.gpu is not None:
            raise UsageError(
                "--gpu chooses among GPUs that are cut into slices; of whole GPUs name main's: --main-slice."
            )
        return inventory.slices
    if any(one.kind is SliceKind.MPS for one in inventory.slices):
        return inventory.slices  # of the one GPU that was chosen to be shared
    groups = {gpu.uuid: tuple(one for one in inventory.slices if one.gpu_uuid == gpu.uuid) for gpu in inventory.gpus}
    if spec.gpu is not None:
        return groups[_gpu(spec.gpu, inventory.gpus).uuid]
    wanted = spec.main.slice
    fitting = [group for group in groups.values() if wanted is None or _matching(wanted, group)]
    # The first of those with the most slices, so that the same host gives the same GPU every time.
    return max(fitting or groups.values(), key=len, default=())


def _gpu(wanted: str, gpus: tuple[Gpu, ...]) -> Gpu:
    for index, gpu in enumerate(gpus):
        if wanted in {str(index), gpu.uuid}:
            return gpu
    known = ", ".join(f"{index} ({gpu.uuid})" for index, gpu in enumerate(gpus))
    raise UsageError(f"--gpu {wanted} is none of the GPUs with slices: {known}.")


def _main_slice(spec: RunSpec, slices: tuple[Slice, ...]) -> Slice:
    wanted = spec.main.slice
    if wanted is None:
        return slices[0]
    found = _matching(wanted, slices)
    if found:
        return found[0]
    profiles = ", ".join(dict.fromkeys(one.profile for one in slices))
    raise UsageError(
        f"--main-slice {wanted} is none of the {len(slices)} slices: give a UUID (`heteromig slices` lists them), an "
        f"index from 0 to {len(slices) - 1}, or a profile ({profiles})."
    )


def _matching(wanted: str, slices: tuple[Slice, ...]) -> list[Slice]:
    return [one for index, one in enumerate(slices) if wanted in {str(index), one.uuid, one.profile}]


def _require_supported(spec: RunSpec, gpu: Gpu) -> None:
    """The guard of discovering that asks whether the benchmarks are supported here."""
    if not spec.systems:
        return
    system = _system(spec, gpu)
    if system is None:
        known = ", ".join(system.gpu for system in spec.systems)
        raise PreflightError(
            f"The {spec.harness} harness knows the benchmarks of {known}, and this is {gpu.name}. If the tree supports "
            'it, say so in the configuration: [[systems]] with gpu = "..." and its [systems.benchmarks].'
        )
    listed = spec.background.candidates if spec.background.explicit else ()
    names = ((spec.main.benchmark, spec.main.scenario), *((name, spec.background.scenario) for name in listed))
    for name, scenario in names:
        if not system.supports(name, scenario):
            offered = ", ".join(f"{name}: {' and '.join(scenarios)}" for name, scenarios in system.benchmarks)
            raise PreflightError(f"{name} has no {scenario} on {gpu.name} ({system.gpu}), which supports {offered}.")


def _system(spec: RunSpec, gpu: Gpu) -> SystemSpec | None:
    return next((system for system in spec.systems if system.gpu.lower() in gpu.name.lower()), None)


def _gpu_of(one: Slice, inventory: Inventory) -> Gpu:
    return next(gpu for gpu in inventory.gpus if gpu.uuid == one.gpu_uuid)
