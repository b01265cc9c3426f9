"""Findings about NVML itself, the slices, and whether a run could have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from heteromig.core.devices import Inventory
from heteromig.doctor.facts import Answer, GpuFacts
from heteromig.doctor.findings import Finding, Latency, ok, problem, unknown, warning
from heteromig.doctor.probing import Probed
from heteromig.doctor.refusals import Rehearsed

_SLOW_SAMPLE_MS = 250.0
"""A quarter of the sampler's usual period: from there on a driver that gets a little slower makes samples late."""

_READINGS = {
    "nvmlDeviceGetAttributes": "memory and multiprocessors of slices",
    "nvmlDeviceGetMemoryInfo": "memory in use",
    "nvmlDeviceGetComputeRunningProcesses": "who is on a slice",
    "nvmlDeviceGetPowerUsage": "power",
    "nvmlDeviceGetTotalEnergyConsumption": "energy",
    "nvmlDeviceGetTemperature": "temperature",
    "nvmlDeviceGetClockInfo": "clocks",
    "nvmlDeviceGetCurrentClocksEventReasons": "throttle reasons",
    "nvmlDeviceGetFieldValues": "throttle times",
    "nvmlEventSetCreate": "Xids",
    "nvmlEventSetWait": "Xids",
    "nvmlDeviceRegisterEvents": "Xids",
    "nvmlDeviceGetSupportedEventTypes": "Xids",
    "nvmlGpmQueryDeviceSupport": "activity of slices",
    "nvmlDeviceGetTemperatureThreshold": "where it slows down",
    "nvmlDeviceGetPowerManagementLimit": "the power limit",
    "nvmlDeviceGetPowerManagementDefaultLimit": "the power limit",
    "nvmlDeviceGetPersistenceMode": "persistence",
    "nvmlDeviceGetComputeMode": "the compute mode",
    "nvmlDeviceGetEccMode": "errors of memory",
    "nvmlDeviceGetRemappedRows": "repaired memory",
    "nvmlDeviceGetTotalEccErrors": "errors of memory",
    "nvmlSystemGetNVMLVersion": "its own version",
    "nvmlDeviceGetGpuInstances": "placements of slices",
    "nvmlDeviceGetGpuInstancePossiblePlacements": "placements of slices",
}
"""What is n/a without a call, in words; other calls speak for themselves."""


def about_library(probed: Probed, pynvml_release: str) -> Iterator[Finding]:
    """The driver, its NVML, and what they are too old for."""
    opened = probed.opened
    if opened is None:
        if probed.refusal is not None:
            yield problem("driver", probed.refusal)
        else:
            yield unknown("driver", "it did not answer", _ASK_NVIDIA_SMI)
        return
    if opened.nvml.why == "simulated":
        yield ok("driver", "not applicable: the slices are simulated")
        return
    cuda = "" if opened.cuda.value is None else f", CUDA {opened.cuda.value // 1000}.{opened.cuda.value % 1000 // 10}"
    nvml = _or_why(opened.nvml)
    yield ok("driver", f"{_or_why(opened.driver)}{cuda}, NVML {nvml}, nvidia-ml-py {pynvml_release}")
    if probed.lacking:
        words = ", ".join(dict.fromkeys(_READINGS[name] for name in probed.lacking if name in _READINGS))
        yield warning(
            "library",
            f"this NVML is too old to tell {words or 'everything'}: it lacks {', '.join(probed.lacking)}",
            "Install a newer driver, if these readings matter.",
        )
    elif probed.concluded:
        yield ok("library", "NVML has every call that heteromig makes")


_ASK_NVIDIA_SMI = "See whether nvidia-smi answers, and what the kernel's log says."


def about_answers(probed: Probed) -> Iterator[Finding]:
    """Whether NVML came back from every call, and how fast."""
    # Until there is a sample, these are the calls without which no run begins.
    fails = problem if probed.sample is None else _broken_off
    if probed.stuck is not None:
        where = probed.stuck.call or "before the first call"
        yield fails(
            "nvml",
            f"NVML did not come back from {where} within {probed.stuck.waited_s:.1f} s, and was not waited for any "
            f"longer; what it was to say next is missing here. {_ASK_NVIDIA_SMI}",
        )
    if probed.crash is not None:
        where = probed.calling or "its first steps"
        yield fails("nvml", f"The process that asks NVML died in {where}: {probed.crash}. {_ASK_NVIDIA_SMI}")
    whole = next(iter(probed.latencies), None)
    if whole is not None:
        yield _speed(whole)


def _broken_off(check: str, what: str) -> Finding:
    return warning(check, what, _ASK_NVIDIA_SMI)


def _speed(whole: Latency) -> Finding:
    what = f"a sample of everything takes {whole.p50_ms:.1f} ms (p50), {whole.p99_ms:.1f} ms (p99), n = {whole.count}"
    if whole.p99_ms < _SLOW_SAMPLE_MS:
        return ok("nvml", what)
    return warning("nvml", what, "Stop other programs that ask NVML, or sample less often (--sample-period 5s).")


def about_slices(probed: Probed, rehearsed: Rehearsed, *, prepared_by: str) -> Iterator[Finding]:
    """What there is to run on, and whether a run fits. `prepared_by` is what a run would do to the GPU first."""
    if prepared_by:
        yield unknown(
            "slices",
            f"a run would first do what {prepared_by} says, which is not tried here; what follows is about the GPUs as "
            "they are",
        )
    refused = _as_it_is if prepared_by else problem
    if probed.inventory is not None:
        yield ok("slices", _slices(probed.inventory))
    if probed.refusal is not None and probed.opened is not None:
        yield refused("slices", probed.refusal)
    elif probed.inventory is None and probed.opened is not None:
        yield unknown("slices", "they were not enumerated")
    if rehearsed.plan is not None:
        count = len(rehearsed.plan.backgrounds)
        main = rehearsed.plan.main
        yield ok("plan", f"{main.benchmark} on {main.profile} beside {count} background{'' if count == 1 else 's'}")
    elif rehearsed.plan_refusal is not None:
        yield refused("plan", rehearsed.plan_refusal)


def _as_it_is(check: str, sentence: str) -> Finding:
    return unknown(check, f"as it is, a run would be refused: {sentence}")


def _slices(inventory: Inventory) -> str:
    count = len(inventory.slices)
    each = _counted(one.profile for one in inventory.slices)
    gpus = "" if len(inventory.gpus) == 1 else f" on {len(inventory.gpus)} GPUs"
    simulated = ", SIMULATED" if inventory.simulated else ""
    return f"{count} slice{'' if count == 1 else 's'}{gpus}: {each}{simulated}"


def _counted(profiles: Iterable[str]) -> str:
    return ", ".join(f"{number}x{profile}" for profile, number in Counter(profiles).items())


def about_occupants(probed: Probed, rehearsed: Rehearsed) -> Iterator[Finding]:
    """Foreign processes on slices."""
    sample = probed.sample
    if sample is None:
        return
    for sentence in rehearsed.occupied:
        yield problem("processes", sentence)
    for note in rehearsed.notes:
        yield warning(
            "processes", note.replace("was used meanwhile", "is used"), "End it, or expect it in the figures."
        )
    blind = sum(reading.occupants is None for reading in sample.slices)
    if blind:
        why = probed.why_blind or "the device does not show them"
        yield unknown("processes", f"n/a on {blind} of {len(sample.slices)} slices: {why}")
    elif not rehearsed.occupied and not rehearsed.notes:
        seen = sum(len(reading.occupants or ()) for reading in sample.slices)
        yield ok("processes", f"nobody is on the {len(sample.slices)} slices" if not seen else f"{seen}, none foreign")


def about_locks(refusals: tuple[str, ...], gpu_uuids: tuple[str, ...]) -> Iterator[Finding]:
    """Other runs of heteromig."""
    for refusal in refusals:
        yield problem("lock", refusal)
    if gpu_uuids and not refusals:
        yield ok(
            "lock", "no other heteromig uses the GPU" if len(gpu_uuids) == 1 else "no other heteromig uses the GPUs"
        )


def about_gpu(facts: GpuFacts) -> Iterator[Finding]:
    """Whether it can be read, its MIG mode, and how it is cut."""
    uuid = None if facts.gpu is None else facts.gpu.uuid
    if not facts.is_ours:
        yield unknown(
            "gpu", f"GPU {facts.index} is not for this user: {facts.trouble}", "Have it made accessible, if it matters."
        )
        return
    if facts.trouble is not None:
        yield warning(
            "gpu",
            f"GPU {facts.index} cannot be read: NVML says {facts.trouble!r}",
            "See the kernel's log; a lost GPU takes a reset or a reboot.",
            gpu=uuid,
        )
    gpu = facts.gpu
    if gpu is None or facts.trouble is not None:
        return
    if gpu.mig_current is None:
        yield ok("mig-mode", "this board has no MIG, or tells nothing of it", gpu=uuid)
    elif gpu.mig_pending != gpu.mig_current:
        words = {True: "on", False: "off"}
        yield warning(
            "mig-mode",
            f"MIG is {words[gpu.mig_current]} now, and will be {words[bool(gpu.mig_pending)]} after a reset",
            "Reset the GPU (sudo nvidia-smi --gpu-reset, or reboot), or set the mode back.",
            gpu=uuid,
        )
    elif not gpu.mig_current:
        yield ok("mig-mode", "MIG is off", gpu=uuid)
    else:
        yield ok("mig-mode", f"MIG is on, {_cut(facts)}", gpu=uuid)


def _cut(facts: GpuFacts) -> str:
    if facts.cut.value is not None:
        return f"cut into {facts.cut.value}"
    seen = _counted(facts.profiles) or "no slices"
    return f"cut into {seen} (placements n/a: {facts.cut.why})"


def _or_why(answer: Answer[str]) -> str:
    return answer.value or f"n/a ({answer.why})"
