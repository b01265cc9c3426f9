"""Reading everything that one GPU tells about itself."""

from __future__ import annotations

from heteromig.core.devices import SliceKind
from heteromig.core.errors import PreflightError
from heteromig.doctor import calls
from heteromig.doctor.facts import Answer, GpuFacts, Health, RemappedRows
from heteromig.doctor.watching import TOO_OLD, Watched
from heteromig.slices import nvml
from heteromig.slices.discovery import OpenGpu, read_gpu, read_slices
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.mig.reading import read_instances, read_offer
from heteromig.slices.nvml import Handle, NVMLError


def read_facts(watched: Watched, library: PartitionLibrary, index: int, *, simulated: bool) -> GpuFacts:
    """The GPU of that index in the session that is open; `library` is `watched` with the types of its calls."""
    one: OpenGpu | None = None
    try:
        one = read_gpu(library, library.nvmlDeviceGetHandleByIndex(index))
        return GpuFacts(
            index=index,
            gpu=one.gpu,
            cut=_read_cut(library, one),
            profiles=tuple(place.slice.profile for place in read_slices(library, one, SliceKind.MIG)),
            health=None if simulated else _read_health(watched, one.handle),
        )
    except PreflightError:  # of a library that lacks what no run can do without, as it was said before
        return GpuFacts(index=index, trouble=TOO_OLD)
    except NVMLError as error:
        return GpuFacts(
            index=index,
            gpu=None if one is None else one.gpu,
            trouble=str(error),
            is_ours=one is not None or error.value != nvml.ERROR_NO_PERMISSION,
        )


def _read_cut(library: PartitionLibrary, one: OpenGpu) -> Answer[str]:
    """How it is cut, from what only privileged users are told; see `slices.mig.reading`."""
    if one.gpu.mig_current is None:
        return Answer(why="no MIG")
    try:
        instances = nvml.supported(lambda: read_instances(library, one, read_offer(library, one)))
    except PreflightError as error:
        return Answer(why=str(error))
    if instances is None:
        return Answer(why=_why_not_listed(library))
    return Answer(partition_text(tuple(instance.instance for instance in instances)))


def _why_not_listed(library: PartitionLibrary) -> str:
    refused = library.refused if isinstance(library, Watched) else {}
    lists = ("nvmlDeviceGetGpuInstances", "nvmlDeviceGetGpuInstancePossiblePlacements")
    return next((refused[name] for name in lists if name in refused), "NVML does not list it")


def _read_health(watched: Watched, handle: Handle) -> Health:
    ask = watched.ask
    bus = ask("nvmlDeviceGetPciInfo", handle)
    ecc = ask("nvmlDeviceGetEccMode", handle)
    rows = ask("nvmlDeviceGetRemappedRows", handle)
    pids = ask("nvmlDeviceGetComputeRunningProcesses", handle)
    memory = ask("nvmlDeviceGetMemoryInfo", handle)
    gpm = ask("nvmlGpmQueryDeviceSupport", handle)
    return Health(
        minor=ask("nvmlDeviceGetMinorNumber", handle),
        bus_id=bus if bus.value is None else Answer(_bus_id(nvml.text(bus.value.busId))),
        whole_memory_bytes=memory if memory.value is None else Answer(memory.value.used),
        whole_pids=pids if pids.value is None else Answer(tuple(process.pid for process in pids.value)),
        ecc_current=ecc if ecc.value is None else Answer(bool(ecc.value[0])),
        ecc_pending=ecc if ecc.value is None else Answer(bool(ecc.value[1])),
        uncorrected=ask("nvmlDeviceGetTotalEccErrors", handle, calls.ERROR_UNCORRECTED, calls.COUNTER_VOLATILE),
        uncorrected_ever=ask("nvmlDeviceGetTotalEccErrors", handle, calls.ERROR_UNCORRECTED, calls.COUNTER_AGGREGATE),
        remapped=rows
        if rows.value is None
        else Answer(RemappedRows(rows.value[0], rows.value[1], bool(rows.value[2]), bool(rows.value[3]))),
        retirement_pending=_truth(ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)),
        temperature_c=ask("nvmlDeviceGetTemperature", handle, nvml.TEMPERATURE_GPU),
        slowdown_c=ask("nvmlDeviceGetTemperatureThreshold", handle, calls.THRESHOLD_SLOWDOWN),
        power_mw=ask("nvmlDeviceGetPowerUsage", handle),
        power_limit_mw=ask("nvmlDeviceGetPowerManagementLimit", handle),
        power_default_mw=ask("nvmlDeviceGetPowerManagementDefaultLimit", handle),
        throttle_reasons=ask("nvmlDeviceGetCurrentClocksEventReasons", handle),
        persistence=_truth(ask("nvmlDeviceGetPersistenceMode", handle)),
        compute_mode=ask("nvmlDeviceGetComputeMode", handle),
        activity=gpm if gpm.value is None else Answer(bool(gpm.value.isSupportedDevice)),
        events=ask("nvmlDeviceGetSupportedEventTypes", handle),
    )


def _truth(answer: Answer[int]) -> Answer[bool]:
    return Answer(why=answer.why) if answer.value is None else Answer(bool(answer.value))


def _bus_id(text: str) -> str:
    """`0000:06:00` of NVML's `00000000:06:00.0`: the kernel's log has four digits for the domain, and no function."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest.partition('.')[0]}"
