"""What is known of GPUs and their slices: an inventory taken once, and samples taken all along.

Unknown is None, never 0. Slices are keyed by UUID; indices are not stable in NVML.
"""

from __future__ import annotations

from enum import Enum, IntFlag

import msgspec
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

    `mig_current` and `mig_pending` are MIG modes as NVML says them, None where the board has no MIG. `index` is NVML's,
    as nvidia-smi shows it. `geometry` is a digest over (parent UUID, GPU instance, compute instance, profile, UUID) of
    its slices and its current MIG mode: the same as long as nobody changed how it is cut, None where that is unknown.
    """

    uuid: str
    name: str
    driver: str
    memory_bytes: int | None = None
    mig_current: bool | None = None
    mig_pending: bool | None = None
    index: int | None = None
    geometry: str | None = None


class UnusableGpu(Struct, frozen=True):
    """A GPU that is there and that no run can use: lost, or with a MIG mode that waits for a reset.

    `uuid` is None where it did not even say that; `message` is a sentence with a remedy.
    """

    index: int
    uuid: str | None
    message: str


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

    `pids_resolve` says whether the pids that the driver lists mean processes of our own pid namespace: False where a
    probe showed that they do not, None where it could not tell.
    """

    simulated: bool
    gpus: tuple[Gpu, ...]
    slices: tuple[Slice, ...]
    unusable: tuple[UnusableGpu, ...] = ()
    pids_resolve: bool | None = None


class Occupant(Struct, frozen=True):
    """One process that the device shows on a slice.

    `ancestors` are the pids of its parents as read from `/proc` at that moment, nearest first; empty where they could
    not be read.
    """

    pid: int
    ancestors: tuple[int, ...]
    command: str


class Reading(Enum):
    """What is read of a slice or of a GPU, by the name that it has in a sample; parts of `activity` after a dot."""

    OCCUPANTS = "occupants"
    MEMORY = "memory_used_bytes"
    ACTIVITY = "activity"
    SM = "activity.sm_percent"
    TENSOR = "activity.tensor_percent"
    DRAM = "activity.dram_percent"
    PCIE_TX = "activity.pcie_tx_bytes_per_s"
    PCIE_RX = "activity.pcie_rx_bytes_per_s"
    POWER = "power_w"
    ENERGY = "energy_j"
    TEMPERATURE = "temperature_c"
    SM_CLOCK = "sm_clock_mhz"
    MEMORY_CLOCK = "memory_clock_mhz"
    THROTTLE_REASONS = "throttle_reasons"
    SW_THERMAL = "sw_thermal_slowdown_ns"
    HW_THERMAL = "hw_thermal_slowdown_ns"
    THERMAL = "thermal_slowdown_ns"
    POWER_BRAKE = "power_brake_ns"
    POWER_CAP = "power_cap_ns"


class Unavailable(Struct, frozen=True):
    """Readings that these slices or GPUs cannot give, and why, as the end of a sentence for people."""

    scopes: tuple[str, ...]
    readings: tuple[Reading, ...]
    reason: str


class Shared(Struct, frozen=True):
    """Slices whose readings are those of something larger, a GPU instance or a GPU, which is named by `of`."""

    slices: tuple[str, ...]
    readings: tuple[Reading, ...]
    of: str


class Activity(Struct, frozen=True):
    """What a slice did on the average since the reading before, by the GPU's own counters (NVML's GPM).

    `sm_percent` is the share of time in which its multiprocessors had work, `tensor_percent` in which the tensor cores
    had, `dram_percent` the memory bandwidth in use; PCIe as seen from the GPU, `tx` being what it sends.
    """

    sm_percent: float | None = None
    tensor_percent: float | None = None
    dram_percent: float | None = None
    pcie_tx_bytes_per_s: int | None = None
    pcie_rx_bytes_per_s: int | None = None


class SliceSample(Struct, frozen=True):
    """One reading of one slice. `occupants` is None where the device cannot show processes per slice.

    `activity` is None where there is none yet as well: it takes two readings.
    """

    slice_uuid: str
    occupants: tuple[Occupant, ...] | None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    activity: Activity | None = None


class DriverEvent(IntFlag):
    """Errors that a driver reports of a GPU, by NVML's bits (nvml.h: nvmlEventType...)."""

    DOUBLE_BIT_ECC = 0x2
    XID = 0x8
    GPU_UNAVAILABLE = 0x4000


class GpuSample(Struct, frozen=True):
    """One reading of a whole GPU; under MIG, power, temperature and clocks exist only here.

    `unreadable` is the sentence that says why there is no reading, None where there is one. `geometry` and the MIG
    modes as in `Gpu`, read anew. `listened` are the bits of `DriverEvent` that are being listened to, None where that
    is unknown. `occupants` are the processes on all of the GPU, None unless they were read, which is done for shares
    under MPS alone. Each `_ns` counter says for how long clocks were lowered for that reason since the driver was
    loaded; `thermal_slowdown_ns` is the one for all thermal reasons of drivers that do not tell them apart.
    """

    gpu_uuid: str
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None
    unreadable: str | None = None
    geometry: str | None = None
    mig_current: bool | None = None
    mig_pending: bool | None = None
    listened: int | None = None
    occupants: tuple[Occupant, ...] | None = None
    sw_thermal_slowdown_ns: int | None = None
    hw_thermal_slowdown_ns: int | None = None
    thermal_slowdown_ns: int | None = None
    power_brake_ns: int | None = None
    power_cap_ns: int | None = None


class OtherGpu(Struct, frozen=True):
    """Who is on a GPU of the host that is not part of the inventory; `uuid` is None where it does not even say that.

    `occupants` is None where they cannot be read, and `reason` then says why, as the end of a sentence.
    """

    index: int
    uuid: str | None
    occupants: tuple[Occupant, ...] | None
    reason: str = ""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"GPU {self.index if self.uuid is None else self.uuid}"


class DeviceSample(Struct, frozen=True, omit_defaults=True):
    """One consistent reading of everything; `taken_ns` is when it was complete, on the shared monotonic clock.

    Each GPU is read on its own: what one cannot say does not keep others from being read. `unavailable` says why
    readings are None, and `shared` which of them are not of the slice alone; each is left out, None, while it is what
    the sample before said. `others` are the GPUs of the host beside those of the inventory, None where nobody asked.
    """

    taken_ns: MonotonicNs
    slices: tuple[SliceSample, ...]
    gpus: tuple[GpuSample, ...]
    unavailable: tuple[Unavailable, ...] | None = None
    shared: tuple[Shared, ...] | None = None
    others: tuple[OtherGpu, ...] | None = None

    def after(self, before: DeviceSample | None) -> DeviceSample:
        """This sample with what it left out because `before` said it."""
        if before is None or (self.unavailable is not None and self.shared is not None):
            return self
        return msgspec.structs.replace(
            self,
            unavailable=before.unavailable if self.unavailable is None else self.unavailable,
            shared=before.shared if self.shared is None else self.shared,
        )
