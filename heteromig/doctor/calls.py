"""The calls of NVML that only `doctor` makes, as `pynvml` spells them; all of them read."""
# ruff: noqa: N802, N803 - the names are NVML's

from __future__ import annotations

from typing import Any, Protocol

from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.nvml import Handle

THRESHOLD_SLOWDOWN = 1
"""nvml.h, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: where the hardware begins to slow down."""

ERROR_UNCORRECTED = 1
COUNTER_VOLATILE = 0
COUNTER_AGGREGATE = 1
"""nvml.h, nvmlMemoryErrorType_t and nvmlEccCounterType_t: since the driver was loaded, and ever."""


class DoctorLibrary(PartitionLibrary, Protocol):
    """NVML as `doctor` uses it. Every call may raise `NVMLError`; simulated GPUs have none of those listed here."""

    def nvmlSystemGetNVMLVersion(self) -> str | bytes:
        """Such as `13.580.159.04`."""
        ...

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        """A thousand times the major version, and ten times the minor one."""
        ...

    def nvmlDeviceGetMinorNumber(self, handle: Handle) -> int:
        """The n of /dev/nvidia<n>."""
        ...

    def nvmlDeviceGetEccMode(self, handle: Handle) -> list[int]:
        """Current and pending."""
        ...

    def nvmlDeviceGetTotalEccErrors(self, handle: Handle, errorType: int, counterType: int) -> int:
        """Of all memories together."""
        ...

    def nvmlDeviceGetRemappedRows(self, device: Handle) -> tuple[int, int, int, int]:
        """Because of correctable errors, of uncorrectable ones, whether some are pending, whether one failed."""
        ...

    def nvmlDeviceGetRetiredPagesPendingStatus(self, device: Handle) -> int:
        """Whether pages wait for a reset to be retired; boards before Ampere."""
        ...

    def nvmlDeviceGetTemperatureThreshold(self, handle: Handle, threshold: int) -> int:
        """Degrees Celsius."""
        ...

    def nvmlDeviceGetPowerManagementLimit(self, handle: Handle) -> int:
        """Milliwatts."""
        ...

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Handle) -> int:
        """Milliwatts."""
        ...

    def nvmlDeviceGetPersistenceMode(self, handle: Handle) -> int:
        """Whether the driver keeps the GPU initialised while nobody uses it."""
        ...

    def nvmlDeviceGetComputeMode(self, handle: Handle) -> int:
        """How many processes may compute on it."""
        ...

    def nvmlGpmQueryDeviceSupport(self, device: Handle) -> Any:
        """`.isSupportedDevice`."""
