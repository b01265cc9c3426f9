"""The machine behind the stand-in library, as a test makes it, looks at it and changes it while others use it.

    state = State.create(tmp_path / "nvml", "a100-sxm-80gb/3g.40gb,2x1g.10gb", "h100-sxm-80gb")
    with state.edit() as machine:
        machine.gpus[0].power_mw = 250_000

A board without a slash has MIG off; with one, MIG is on and the board is cut as the layout says, perhaps not at all
(`a30/`). Whoever has the file is excluded while `edit` lasts, so a call of the library sees all of a change or nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

from heteromig.slices.layout import PlacedSlice, parse_layout
from tests.nvml_library import layout
from tests.nvml_library.boards import DRIVEN, METRICS, SUPPORTED_EVENTS, Driven, engines_of, enumerator
from tests.nvml_library.layout import ComputeInstance, Event, Fault, Gpu, GpuInstance, Machine, Profile, ProfileInfo

FOREVER = 0xFFFFFFFF

DOUBLE_BIT_ECC = 0x2
XID = 0x8
MIG_CONFIG_CHANGE = 0x100
GPU_UNAVAILABLE = 0x4000

SOURCES = tuple(sorted((Path(__file__).parent / "source").glob("*.c")))

EXPORTED = frozenset(
    name
    for source in SOURCES
    for name in re.findall(r"^(?:EXPORT |READING\w*\()(nvml\w+)", source.read_text(), re.MULTILINE)
)
"""Every function of the library, by its C name: `nvmlDeviceGetCount_v2`."""

_MIB_BYTES = 1 << 20


class State:
    """One such file."""

    def __init__(self, path: Path) -> None:
        """Open a file that is there."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._memory = mmap.mmap(self._descriptor, ctypes.sizeof(Machine))
        self._machine = Machine.from_buffer(self._memory)
        if (self._machine.magic, self._machine.layout) != (layout.MAGIC, layout.DIGEST):
            message = f"{path} is no state of this version of the library"
            raise ValueError(message)

    @classmethod
    def create(cls, path: Path, *boards: str) -> State:
        """A new machine with these boards; see the top of the module."""
        machine = Machine(
            magic=layout.MAGIC,
            layout=layout.DIGEST,
            gpu_count=len(boards),
            driver_version=b"580.159.04",
            nvml_version=b"13.580.159.04",
            cuda_version=13000,
            permissions=layout.MAY_CONFIGURE | layout.MAY_MONITOR,
            caches_topology=1,
        )
        for index, text in enumerate(boards):
            name, slash, wanted = text.partition("/")
            _drive(machine.gpus[index], DRIVEN[name], index)
            machine.gpus[index].mig_current = machine.gpus[index].mig_pending = bool(slash)
            if wanted:
                _cut(machine, index, DRIVEN[name], wanted)
        path.write_bytes(bytes(machine))
        return cls(path)

    def close(self) -> None:
        """Keep the file open no longer."""
        os.close(self._descriptor)

    @contextmanager
    def edit(self) -> Iterator[Machine]:
        """The machine, for as long as nobody else may look."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield self._machine
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def gpu_uuid(self, gpu: int = 0) -> str:
        """What CUDA calls the GPU."""
        with self.edit() as machine:
            return _text(machine.gpus[gpu].uuid)

    def slice_uuids(self, gpu: int = 0) -> list[str]:
        """What CUDA calls its MIG devices, in the order in which a new session enumerates them."""
        with self.edit() as machine:
            return [_text(one.uuid) for _, one in _slices(machine.gpus[gpu])]

    def geometry(self, gpu: int = 0) -> list[tuple[str, int, int, int]]:
        """Profile, id and start of each GPU instance, and its number of compute instances; by id."""
        with self.edit() as machine:
            board = machine.gpus[gpu]
            serials = [one.parent for one in board.compute_instances if one.serial]
            return sorted(
                (
                    (_text(board.profiles[one.profile].name), one.id, one.start, serials.count(one.serial))
                    for one in board.gpu_instances
                    if one.serial
                ),
                key=lambda found: found[1],
            )

    def recut(self, text: str, gpu: int = 0, *, announced: bool = True) -> None:
        """Somebody else destroys all slices and cuts the GPU anew, no matter who uses them."""
        with self.edit() as machine:
            board = machine.gpus[gpu]
            for one in (*board.gpu_instances, *board.compute_instances):
                one.serial = 0
            if text:
                _cut(machine, gpu, _driven(board), text)
            if announced:
                _post(machine, gpu, MIG_CONFIG_CHANGE, 0)

    def remake(self, slice_uuid: str, *, announced: bool = True) -> str:
        """Somebody else destroys one slice and makes it again, which gives it another UUID: that is returned."""
        with self.edit() as machine:
            for index, board in enumerate(machine.gpus):
                for _, one in _slices(board):
                    if _text(one.uuid) == slice_uuid:
                        one.serial = machine.last_serial = machine.last_serial + 1
                        one.uuid = _slice_uuid()
                        if announced:
                            _post(machine, index, MIG_CONFIG_CHANGE, 0)
                        return _text(one.uuid)
        raise KeyError(slice_uuid)

    def post(self, kind: int, data: int = 0, gpu: int = 0) -> None:
        """The driver reports an event of the GPU as a whole."""
        with self.edit() as machine:
            _post(machine, gpu, kind, data)

    def lose(self, gpu: int = 0, *, lost: bool = True) -> None:
        """The GPU falls off the bus, or comes back."""
        with self.edit() as machine:
            machine.gpus[gpu].lost = lost

    def inject(
        self,
        call: str,
        result: int = 0,
        *,
        gpu: int = -1,
        sleep_s: float = 0.0,
        action: int = 0,
        skip: int = 0,
        times: int = FOREVER,
    ) -> Injected:
        """Make calls of a function, by its C name, go wrong, after `skip` that do not; see `layout.Fault`."""
        if call not in EXPORTED:
            message = f"the library has no function {call}"
            raise ValueError(message)
        with self.edit() as machine:
            slot = next(index for index, fault in enumerate(machine.faults) if not fault.remaining)
            machine.faults[slot] = Fault(
                call=call.encode(),
                gpu=gpu,
                result=result,
                sleep_ms=round(sleep_s * 1000),
                action=action,
                skip=skip,
                remaining=times,
            )
        return Injected(self, slot)

    def deny(self) -> None:
        """From now on nobody may list or change instances, or see what all of a GPU's instances do together."""
        with self.edit() as machine:
            machine.permissions = 0


class Injected:
    """A fault in the state."""

    def __init__(self, state: State, slot: int) -> None:
        self._state = state
        self._slot = slot

    @property
    def hits(self) -> int:
        """How often it struck."""
        with self._state.edit() as machine:
            return int(machine.faults[self._slot].hits)

    def clear(self) -> None:
        """It strikes no more."""
        with self._state.edit() as machine:
            machine.faults[self._slot].remaining = 0


def _text(value: bytes) -> str:
    return value.decode()


def _slice_uuid() -> bytes:
    return f"MIG-{uuid4()}".encode()


def _drive(gpu: Gpu, driven: Driven, index: int) -> None:
    """Fill in what the board has from the start, idle."""
    board = driven.board
    gpu.uuid = f"GPU-{uuid4()}".encode()
    gpu.name = driven.product.encode()
    gpu.serial_number = f"16538241289{index:02}".encode()
    gpu.bus_id = f"00000000:{index + 6:02X}:00.0".encode()
    gpu.pci_bus = index + 6
    gpu.pci_device_id = driven.pci_device_id
    gpu.minor_number = index
    gpu.architecture = driven.architecture
    gpu.capability_major, gpu.capability_minor = driven.capability
    gpu.core_count = driven.core_count
    gpu.mig_capable = 1
    gpu.mig_needs_reset = driven.mig_needs_reset
    gpu.resetless_mig = not driven.mig_needs_reset
    gpu.max_mig_devices = board.max_slices
    gpu.memory_slices = board.memory_slices
    gpu.memory_total_bytes = board.memory_bytes
    gpu.memory_reserved_bytes = driven.reserved_mib * _MIB_BYTES
    gpu.supported_events = SUPPORTED_EVENTS
    gpu.energy_mj = 2_187_610
    gpu.clocks_event_reasons = 1
    gpu.supported_clocks_event_reasons = 0x1FF
    gpu.ecc_current = gpu.ecc_pending = 1
    gpu.power_mw = driven.power_mw
    gpu.power_min_limit_mw, gpu.power_max_limit_mw = driven.power_limits_mw
    gpu.power_limit_mw = gpu.power_default_limit_mw = gpu.power_enforced_limit_mw = gpu.power_max_limit_mw
    gpu.temperature_c = 39
    gpu.memory_temperature_c = 37
    gpu.temperature_thresholds_c = driven.thresholds_c
    gpu.clocks_mhz = driven.clocks_mhz
    gpu.max_clocks_mhz = driven.max_clocks_mhz
    gpu.persistence_mode = 1
    gpu.pcie_generation = 5 if driven.gpm else 4
    gpu.pcie_width = 16
    gpu.gpm_supported = driven.gpm
    _measure(gpu)
    gpu.profile_count = len(board.profiles)
    for place, profile in enumerate(board.profiles):
        engines = engines_of(driven, profile)
        gpu.profiles[place] = Profile(
            info=ProfileInfo(
                id=profile.profile_id,
                slices=profile.compute_slices,
                instances=profile.max_instances,
                sm_count=profile.sm_count,
                copy_engines=engines.copy,
                decoders=engines.decoders,
                jpegs=engines.jpegs,
                ofas=engines.ofas,
                memory_mib=profile.memory_bytes // _MIB_BYTES,
            ),
            enumerator=enumerator(profile),
            starts=sum(1 << start for start in profile.starts),
            size=profile.size,
            name=profile.name.encode(),
        )


def _measure(whose: Gpu | GpuInstance) -> None:
    for place, (number, name) in enumerate(METRICS.items()):
        whose.metrics[place].id = number
        whose.metrics[place].name = name.encode()


def _driven(gpu: Gpu) -> Driven:
    return next(one for one in DRIVEN.values() if one.product == _text(gpu.name))


def _cut(machine: Machine, index: int, driven: Driven, text: str) -> None:
    """Put the instances of a layout onto a GPU that has none."""
    for place, placed in enumerate(parse_layout(driven.board, text).placed):
        _put(machine, machine.gpus[index], place, driven, placed)


def _put(machine: Machine, gpu: Gpu, place: int, driven: Driven, placed: PlacedSlice) -> None:
    """A GPU instance, and one compute instance that takes all of it."""
    profile = placed.profile
    machine.last_serial += 2
    gpu.gpu_instances[place] = GpuInstance(
        serial=machine.last_serial - 1,
        id=driven.board.instance_id(profile, placed.start),
        profile=driven.board.profiles.index(profile),
        start=placed.start,
        memory_used_bytes=layout.IDLE_BYTES,
    )
    _measure(gpu.gpu_instances[place])
    gpu.compute_instances[place] = ComputeInstance(
        serial=machine.last_serial,
        parent=machine.last_serial - 1,
        profile_id=(1, 2, 3, 4, 7).index(profile.compute_slices),
        slices=profile.compute_slices,
        sm_count=profile.sm_count,
        uuid=_slice_uuid(),
    )


def _slices(gpu: Gpu) -> list[tuple[GpuInstance, ComputeInstance]]:
    parents = {one.serial: one for one in gpu.gpu_instances if one.serial}
    found = [(parents[one.parent], one) for one in gpu.compute_instances if one.serial and one.parent in parents]
    return sorted(cast("list[tuple[GpuInstance, ComputeInstance]]", found), key=lambda pair: (pair[0].id, pair[1].id))


def _post(machine: Machine, gpu: int, kind: int, data: int) -> None:
    machine.last_sequence += 1
    machine.events[machine.last_sequence % layout.MAX_EVENTS] = Event(
        sequence=machine.last_sequence,
        type=kind,
        data=data,
        gpu=gpu,
        gpu_instance_id=layout.WHOLE_GPU,
        compute_instance_id=layout.WHOLE_GPU,
    )
