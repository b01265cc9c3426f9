"""What NVIDIA's trees with heterogeneous MIG (v1.1 to v2.1) can run, and where."""

from __future__ import annotations

import difflib

from heteromig.core.errors import UsageError
from heteromig.core.spec import BenchmarkInfo, SystemSpec

OFFLINE, SERVER, SINGLE_STREAM, MULTI_STREAM = "offline", "server", "singlestream", "multistream"
SCENARIO_NAMES = {OFFLINE: "Offline", SERVER: "Server", SINGLE_STREAM: "SingleStream", MULTI_STREAM: "MultiStream"}
"""What directories are called after scenarios, by what RUN_ARGS call them."""

LOW, HIGH = "99", "99.9"
_CONFIG_VERS = ((LOW, "hetero"), (HIGH, "hetero_high_accuracy"))
"""Percent of the reference accuracy, and the configuration version that reaches it (the HeteroMIG document)."""

_SCENARIOS: dict[str, tuple[str, ...]] = {
    "resnet50": (OFFLINE, SERVER, SINGLE_STREAM, MULTI_STREAM),
    "ssd-resnet34": (OFFLINE, SERVER, SINGLE_STREAM, MULTI_STREAM),
    "ssd-mobilenet": (OFFLINE, SINGLE_STREAM, MULTI_STREAM),
    "bert": (OFFLINE, SERVER, SINGLE_STREAM),
    "dlrm": (OFFLINE, SERVER),
    "rnnt": (OFFLINE, SERVER, SINGLE_STREAM),
    "3d-unet": (OFFLINE, SINGLE_STREAM),
}
"""The same on all three systems (launch_heterogeneous_mig.py v2.1, SUPPORT_MATRIX)."""

_ONE_ENGINE_FOR_BOTH = ("dlrm", "3d-unet")
"""These run under the high accuracy alone, because one engine serves both targets (the HeteroMIG document)."""

_LOW_ALONE = ("resnet50", "ssd-resnet34", "ssd-mobilenet", "rnnt")
"""Of the document's benchmarks, bert alone has an engine for each target; what others have is not known here."""

SETS = {
    "all": tuple(_SCENARIOS),
    "datacenter": tuple(name for name in _SCENARIOS if name != "ssd-mobilenet"),
    "edge": tuple(name for name in _SCENARIOS if name != "dlrm"),
}

_GPUS = ("A100-SXM4-80GB", "A100 80GB PCIe", "A30")
"""As NVML names them; the document calls the first two A100-SXM-80GB and A100-PCIe-80GB."""

SYSTEMS = tuple(SystemSpec(gpu=gpu, benchmarks=tuple(_SCENARIOS.items())) for gpu in _GPUS)


def _accuracies(name: str) -> tuple[str, ...]:
    if name in _ONE_ENGINE_FOR_BOTH:
        return (HIGH,)
    return (LOW,) if name in _LOW_ALONE else (LOW, HIGH)


def catalog(further: tuple[SystemSpec, ...]) -> tuple[BenchmarkInfo, ...]:
    """All benchmarks: those of the document, and those that the systems of the configuration add to them.

    Raises:
        UsageError: a system has a scenario that NVIDIA's tree has not.
    """
    scenarios = dict(_SCENARIOS)
    for system in further:
        for name, offered in system.benchmarks:
            _require_scenarios(system.gpu, name, offered)
            scenarios[name] = tuple(dict.fromkeys((*scenarios.get(name, ()), *offered)))
    return tuple(_info(name, offered) for name, offered in scenarios.items())


def _info(name: str, scenarios: tuple[str, ...]) -> BenchmarkInfo:
    accuracies = _accuracies(name)
    return BenchmarkInfo(
        name=name,
        model=name,
        scenarios=scenarios,
        accuracies=accuracies,
        default_accuracy=accuracies[0],
        config_vers=_CONFIG_VERS,
        stops_cleanly=False,  # the harness dies of TERM, and has no other signal
    )


def _require_scenarios(gpu: str, benchmark: str, scenarios: tuple[str, ...]) -> None:
    for scenario in scenarios:
        if scenario not in SCENARIO_NAMES:
            raise UsageError(
                f"[[systems]] with gpu = {gpu!r} has {benchmark} with the scenario {scenario!r}, which NVIDIA's tree "
                f"does not have: choose from {', '.join(SCENARIO_NAMES)}."
            )


def systems(further: tuple[SystemSpec, ...]) -> tuple[SystemSpec, ...]:
    """The kinds of GPU: those of the configuration, which may replace one of the document's, then the others."""
    replaced = {system.gpu for system in further}
    return (*further, *(system for system in SYSTEMS if system.gpu not in replaced))


def require(name: str, known: tuple[BenchmarkInfo, ...]) -> BenchmarkInfo:
    """The entry of that name.

    Raises:
        UsageError: there is none; the message has the nearest known name.
    """
    found = next((info for info in known if info.name == name), None)
    if found is None:
        names = [info.name for info in known]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}."
        raise UsageError(f"NVIDIA's tree has no benchmark {name!r}: {hint}")
    return found


def directory_names(benchmark: str) -> tuple[str, ...]:
    """What the log directories of a benchmark may be called: with its accuracy where it has two targets."""
    return (benchmark, f"{benchmark}-{LOW}", f"{benchmark}-{HIGH}")
