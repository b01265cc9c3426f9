"""What the file behind the stand-in library looks like: the one definition of it, for Python and for C.

The structures below are mapped as they are; `c_header` writes the same ones as C declarations, with an assertion for
every size and offset, so that a compiler that lays them out in another way refuses the library. Its digest is in the
file and in the library: a library does not open the file of another layout.

Zero means "none here" in every table: an instance without a serial, an event without a sequence number.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from typing import Any

U32 = ctypes.c_uint32
I32 = ctypes.c_int32
U64 = ctypes.c_uint64
F64 = ctypes.c_double
Char = ctypes.c_char

MAGIC = 0x314C4D564E544548  # "HETNVML1"
STATE_VARIABLE = "HETEROMIG_TEST_NVML_STATE"
"""The environment variable with the path of the file."""

MAX_GPUS = 8
MAX_PROFILES = 16
MAX_INSTANCES = 8
MAX_PROCESSES = 32
MAX_EVENTS = 256
MAX_FAULTS = 32
MAX_METRICS = 24
MAX_FIELD_FAULTS = 8

IDLE_BYTES = 13 << 20
"""Memory in use on a slice where nothing runs."""

WHOLE_GPU = 0xFFFFFFFF
"""What NVML says for "no instance"."""

MAY_CONFIGURE = 1
"""Permission to list, make and destroy instances and to set the MIG mode: root's, or that of `mig/config`."""
MAY_MONITOR = 2
"""Permission to see what all instances of a GPU do together: root's, or that of `mig/monitor`."""

COMPUTE_PROCESS = 1
GRAPHICS_PROCESS = 2
MPS_PROCESS = 3

KILL_BEFORE = 1
KILL_AFTER = 2

CONSTANTS = {
    name: value
    for name, value in globals().copy().items()
    if isinstance(value, int) and name.isupper() and name not in ("MAGIC", "WHOLE_GPU")
}


class ProfileInfo(ctypes.Structure):
    """What NVML says of a profile: the fields of nvmlGpuInstanceProfileInfo_t, in its order."""

    _fields_ = (
        ("id", U32),
        ("p2p", U32),
        ("slices", U32),
        ("instances", U32),
        ("sm_count", U32),
        ("copy_engines", U32),
        ("decoders", U32),
        ("encoders", U32),
        ("jpegs", U32),
        ("ofas", U32),
        ("memory_mib", U64),
    )


class Profile(ctypes.Structure):
    """A way to cut a GPU instance. `starts` is a bit mask of memory slices, `size` the number that it takes of them."""

    _fields_ = (("info", ProfileInfo), ("enumerator", U32), ("starts", U32), ("size", U32), ("name", Char * 28))


class Metric(ctypes.Structure):
    """What GPM measures. `name` is the short one that it answers with."""

    _fields_ = (("id", U32), ("name", Char * 12), ("value", F64))


class GpuInstance(ctypes.Structure):
    """`profile` is the place of its profile in the GPU's table, `memory_used_bytes` what no process uses."""

    _fields_ = (
        ("serial", U32),
        ("id", U32),
        ("profile", U32),
        ("start", U32),
        ("memory_used_bytes", U64),
        ("sram_errors", U64),
        ("metrics", Metric * MAX_METRICS),
    )


class ComputeInstance(ctypes.Structure):
    """With its GPU instance a MIG device. `parent` is that one's serial, `start` and `slices` count compute slices."""

    _fields_ = (
        ("serial", U32),
        ("parent", U32),
        ("id", U32),
        ("profile_id", U32),
        ("start", U32),
        ("slices", U32),
        ("sm_count", U32),
        ("uuid", Char * 52),
    )


class Process(ctypes.Structure):
    """A process that cannot be found in /proc, such as one of another pid namespace. `kind` 0 is none."""

    _fields_ = (
        ("kind", U32),
        ("pid", U32),
        ("gpu_instance_id", U32),
        ("compute_instance_id", U32),
        ("memory_bytes", U64),
    )


class FieldFault(ctypes.Structure):
    """A field value that this board does not have: what its query returns instead."""

    _fields_ = (("id", U32), ("result", I32))


class Gpu(ctypes.Structure):
    """A board, as it is now.

    `mig_holes` is a bit mask of MIG indices that stay empty; `mig_needs_reset` says that a new MIG mode stays pending;
    `held_open` that a client has the GPU open, so that its mode cannot be changed; `processes_hidden` that the driver
    shows no process, and `process_memory_hidden` not what each uses.
    """

    _fields_ = (
        ("uuid", Char * 48),
        ("name", Char * 64),
        ("serial_number", Char * 24),
        ("bus_id", Char * 32),
        ("pci_device_id", U32),
        ("pci_bus", U32),
        ("minor_number", U32),
        ("architecture", U32),
        ("capability_major", U32),
        ("capability_minor", U32),
        ("core_count", U32),
        ("lost", U32),
        ("mig_capable", U32),
        ("mig_current", U32),
        ("mig_pending", U32),
        ("mig_needs_reset", U32),
        ("mig_holes", U32),
        ("max_mig_devices", U32),
        ("memory_slices", U32),
        ("held_open", U32),
        ("processes_hidden", U32),
        ("process_memory_hidden", U32),
        ("memory_total_bytes", U64),
        ("memory_reserved_bytes", U64),
        ("memory_used_bytes", U64),
        ("supported_events", U64),
        ("energy_mj", U64),
        ("clocks_event_reasons", U64),
        ("supported_clocks_event_reasons", U64),
        ("violation_ns", U64 * 12),
        ("sw_thermal_ns", U64),
        ("hw_thermal_ns", U64),
        ("hw_power_brake_ns", U64),
        # By error (corrected, uncorrected), counter (volatile, aggregate) and place (DRAM, SRAM).
        ("ecc_errors", U64 * 2 * 2 * 2),
        ("remapped_rows", U32 * 4),
        ("ecc_current", U32),
        ("ecc_pending", U32),
        ("power_mw", U32),
        ("power_limit_mw", U32),
        ("power_default_limit_mw", U32),
        ("power_enforced_limit_mw", U32),
        ("power_min_limit_mw", U32),
        ("power_max_limit_mw", U32),
        ("temperature_c", U32),
        ("memory_temperature_c", U32),
        # Shutdown, slowdown, memory's highest, GPU's highest.
        ("temperature_thresholds_c", U32 * 4),
        # Graphics, SM, memory, video.
        ("clocks_mhz", U32 * 4),
        ("max_clocks_mhz", U32 * 4),
        ("utilization_gpu_percent", U32),
        ("utilization_memory_percent", U32),
        ("persistence_mode", U32),
        ("compute_mode", U32),
        ("performance_state", U32),
        ("pcie_generation", U32),
        ("pcie_width", U32),
        ("gpm_supported", U32),
        ("resetless_mig", U32),
        ("profile_count", U32),
        ("profiles", Profile * MAX_PROFILES),
        ("gpu_instances", GpuInstance * MAX_INSTANCES),
        ("compute_instances", ComputeInstance * MAX_INSTANCES),
        ("processes", Process * MAX_PROCESSES),
        ("metrics", Metric * MAX_METRICS),
        ("field_faults", FieldFault * MAX_FIELD_FAULTS),
    )


class Event(ctypes.Structure):
    """Something that the driver reports. `sequence` counts all events of the machine, from 1 on."""

    _fields_ = (
        ("sequence", U64),
        ("type", U64),
        ("data", U64),
        ("gpu", U32),
        ("gpu_instance_id", U32),
        ("compute_instance_id", U32),
    )


class Fault(ctypes.Structure):
    """Something that goes wrong with calls of one function: `skip` calls pass, then it befalls `remaining` of them.

    First it sleeps for `sleep_ms`, then `action` ends the process, before or after the call had its effect; without
    one, the call returns `result`, and goes on as ever where that is 0. `gpu` is an index, -1 for all.
    `hits` counts how often it struck.
    """

    _fields_ = (
        ("call", Char * 64),
        ("gpu", I32),
        ("result", I32),
        ("sleep_ms", U32),
        ("action", U32),
        ("skip", U32),
        ("remaining", U32),
        ("hits", U32),
    )


class Machine(ctypes.Structure):
    """The whole file.

    `caches_topology` says that a session sees the partitioning of the moment when it was opened. `pid_shift` is added
    to the pids of the processes that are found in /proc, as if the driver were in another pid namespace; those that are
    `unlisted` are not listed at all.
    """

    _fields_ = (
        ("magic", U64),
        ("layout", U32),
        ("gpu_count", U32),
        ("driver_version", Char * 32),
        ("nvml_version", Char * 32),
        ("cuda_version", U32),
        ("permissions", U32),
        ("caches_topology", U32),
        ("last_serial", U32),
        ("pid_shift", U32),
        ("unlisted", U32),
        ("last_sequence", U64),
        ("events", Event * MAX_EVENTS),
        ("faults", Fault * MAX_FAULTS),
        ("gpus", Gpu * MAX_GPUS),
    )


STRUCTURES: tuple[type[ctypes.Structure], ...] = (
    ProfileInfo,
    Profile,
    Metric,
    GpuInstance,
    ComputeInstance,
    Process,
    FieldFault,
    Gpu,
    Event,
    Fault,
    Machine,
)

_C_TYPES: dict[type[Any], str] = {U32: "uint32_t", I32: "int32_t", U64: "uint64_t", F64: "double", Char: "char"}


def c_name(structure: type[ctypes.Structure]) -> str:
    """`struct gpu_instance` for `GpuInstance`."""
    letters = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in structure.__name__)
    return f"struct {letters.lstrip('_')}"


def _declaration(name: str, kind: Any) -> str:
    suffix = ""
    while issubclass(kind, ctypes.Array):
        suffix += f"[{kind._length_}]"
        kind = kind._type_
    return f"{_C_TYPES.get(kind) or c_name(kind)} {name}{suffix};"


def _lines() -> Iterator[str]:
    for name, value in CONSTANTS.items():
        yield f"#define {name} {value}u"
    for structure in STRUCTURES:
        yield f"{c_name(structure)} {{"
        for field in structure._fields_:
            yield f"    {_declaration(field[0], field[1])}"
        yield "};"
        yield f'_Static_assert(sizeof({c_name(structure)}) == {ctypes.sizeof(structure)}, "{structure.__name__}");'
        for name, *_ in structure._fields_:
            offset = getattr(structure, name).offset
            yield f'_Static_assert(offsetof({c_name(structure)}, {name}) == {offset}, "{structure.__name__}.{name}");'


DIGEST = zlib.crc32("\n".join(_lines()).encode())
"""Which layout this is."""


def c_header() -> str:
    """The layout as a C header, to be included after <stddef.h> and <stdint.h>."""
    macros = (
        f'#define STATE_VARIABLE "{STATE_VARIABLE}"\n#define STATE_MAGIC {MAGIC:#x}u\n#define STATE_LAYOUT {DIGEST}u\n'
    )
    return macros + "\n".join(_lines()) + "\n"
