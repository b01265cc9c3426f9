"""What is known of GPUs and their slices: an inventory taken once, and samples taken all along.

Unknown is None, never 0. Slices are keyed by UUID; indices are not stable in NVML.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from heteromig.core.units import MonotonicNs


class SliceKind(Enum):
    """How a place to run is cut out of its GPU."""

    MIG = "mig"
    GPU = "gpu"
    MPS = "mps"
    SIM = "sim"


class Gpu(Struct, frozen=True):
    """One physical (or simulated) GPU.

    `mig_current` and `mig_pending` are MIG modes as NVML says them, None where the board has no MIG.
    """

    uuid: str
    name: str
    driver: str
    memory_bytes: int | None = None
    mig_current: bool | None = None
    mig_pending: bool | None = None


class Slice(Struct, frozen=True):
    """One place to run. `sm_count` is its number of multiprocessors."""

    uuid: str
    kind: SliceKind
    profile: str
    gpu_uuid: str
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    memory_bytes: int | None = None
    sm_count: int | None = None


class Inventory(Struct, frozen=True):
    """Every slice that the run may use, as enumerated at one moment.

    `geometry` is a digest over (parent UUID, GPU instance, compute instance, profile, UUID) of all slices and the MIG
    modes; it is the same as long as nobody changed the partitioning.
    """

    simulated: bool
    gpus: tuple[Gpu, ...]
    slices: tuple[Slice, ...]
    geometry: str


class Occupant(Struct, frozen=True):
    """One process that the device shows on a slice.

    `ancestors` are the pids of its parents as read from `/proc` at that moment, nearest first; empty where they could
    not be read.
    """

    pid: int
    ancestors: tuple[int, ...]
    command: str


class SliceSample(Struct, frozen=True):
    """One reading of one slice. `occupants` is None where the device cannot show processes per slice."""

    slice_uuid: str
    occupants: tuple[Occupant, ...] | None
    memory_used_bytes: int | None = None


class GpuSample(Struct, frozen=True):
    """One reading of a whole GPU; under MIG, power, temperature and clocks exist only here."""

    gpu_uuid: str
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None


class DeviceSample(Struct, frozen=True):
    """One consistent reading of everything; `taken_ns` is when it was complete, on the shared monotonic clock.

    `geometry` as in `Inventory`, read anew.
    """

    taken_ns: MonotonicNs
    geometry: str
    slices: tuple[SliceSample, ...]
    gpus: tuple[GpuSample, ...]
