"""The boards that the simulator knows, and how each may be cut.

Only the simulator reads these tables; on a real GPU everything here is asked of the driver. Profile ids, placements
and multiprocessor counts are those of NVIDIA's MIG user guide ("Supported MIG Profiles"), placements as
`nvidia-smi mig -lgipp` prints them, memory and engines as `nvidia-smi mig -lgip` prints them. Drivers differ by up to
0.3 GiB there (on a B200 by 1.5), so nothing may ever be identified by its memory.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

_MIB_BYTES = 1 << 20


class Engines(NamedTuple):
    """Engines for media, each of which belongs to one GPU instance: decoders, encoders, JPEG and optical flow."""

    decoders: int = 0
    encoders: int = 0
    jpeg: int = 0
    optical_flow: int = 0


class Profile(Struct, frozen=True):
    """One way to cut a GPU instance out of a board.

    `starts` are the memory slices at which it may begin and `size` the number of memory slices it takes.
    `compute_slices` is the digit in its name. `max_instances` may be lower than the number of starts: there is only
    one set of media engines for the `+me` profiles.
    """

    name: str
    profile_id: int
    starts: tuple[int, ...]
    size: int
    compute_slices: int
    sm_count: int
    memory_bytes: int
    max_instances: int
    engines: Engines = Engines()


class Board(Struct, frozen=True):
    """One GPU model. `memory_slices` is a power of two, which numbers the GPU instances (see `instance_id`).

    `pci_id` is the device id above the vendor's, as NVML and the files of `nvidia-mig-parted` have it. `resetless`:
    its MIG mode changes at once, without a reset of the GPU, from Hopper on. `has_gpm`: it has counters of what each
    GPU instance does, likewise.
    """

    name: str
    product: str
    memory_bytes: int
    memory_slices: int
    profiles: tuple[Profile, ...]
    pci_id: int = 0
    resetless: bool = False
    has_gpm: bool = False

    @property
    def max_slices(self) -> int:
        """The most slices that it can be cut into."""
        return max(profile.max_instances for profile in self.profiles)

    @property
    def default_profile(self) -> Profile:
        """The one that gives the most slices: `1g` on every board."""
        return max(self.profiles, key=lambda profile: profile.max_instances)

    def profile(self, name: str) -> Profile | None:
        """The profile of that name, or None."""
        return next((profile for profile in self.profiles if profile.name == name), None)

    def instance_id(self, profile: Profile, start: int) -> int:
        """The id that drivers give to a GPU instance there.

        Observed on seven-slice boards: 7g is 0, 3g and 4g are 1 and 2, 2g are 3 to 6, 1g are 7 to 14: the nodes of a
        binary tree over the memory slices, numbered level by level.
        """
        return self.memory_slices // profile.size - 1 + start // profile.size


def _profile(
    name: str,
    profile_id: int,
    starts: tuple[int, ...],
    size: int,
    *,
    sms: int,
    mib: int,
    media: tuple[int, int, int],
    at_most: int | None = None,
) -> Profile:
    """`media` are decoders, JPEG and optical-flow engines: none of these boards has an encoder."""
    decoders, jpeg, optical_flow = media
    return Profile(
        name=name,
        profile_id=profile_id,
        starts=starts,
        size=size,
        compute_slices=int(name[0]),
        sm_count=sms,
        memory_bytes=mib * _MIB_BYTES,
        max_instances=len(starts) if at_most is None else at_most,
        engines=Engines(decoders=decoders, jpeg=jpeg, optical_flow=optical_flow),
    )


_EVERYWHERE = (0, 1, 2, 3, 4, 5, 6)

_A100_40GB = (
    _profile("1g.5gb", 19, _EVERYWHERE, 1, sms=14, mib=4864, media=(0, 0, 0)),
    _profile("1g.5gb+me", 20, _EVERYWHERE, 1, sms=14, mib=4864, media=(1, 1, 1), at_most=1),
    _profile("1g.10gb", 15, (0, 2, 4, 6), 2, sms=14, mib=9856, media=(1, 0, 0)),
    _profile("2g.10gb", 14, (0, 2, 4), 2, sms=28, mib=9856, media=(1, 0, 0)),
    _profile("3g.20gb", 9, (0, 4), 4, sms=42, mib=19968, media=(2, 0, 0)),
    _profile("4g.20gb", 5, (0,), 4, sms=56, mib=19968, media=(2, 0, 0)),
    _profile("7g.40gb", 0, (0,), 8, sms=98, mib=40192, media=(5, 1, 1)),
)

_A100_80GB = (
    _profile("1g.10gb", 19, _EVERYWHERE, 1, sms=14, mib=9728, media=(0, 0, 0)),
    _profile("1g.10gb+me", 20, _EVERYWHERE, 1, sms=14, mib=9728, media=(1, 1, 1), at_most=1),
    _profile("1g.20gb", 15, (0, 2, 4, 6), 2, sms=14, mib=19968, media=(1, 0, 0)),
    _profile("2g.20gb", 14, (0, 2, 4), 2, sms=28, mib=19968, media=(1, 0, 0)),
    _profile("3g.40gb", 9, (0, 4), 4, sms=42, mib=40192, media=(2, 0, 0)),
    _profile("4g.40gb", 5, (0,), 4, sms=56, mib=40192, media=(2, 0, 0)),
    _profile("7g.80gb", 0, (0,), 8, sms=98, mib=80896, media=(5, 1, 1)),
)

_H100_80GB = (
    _profile("1g.10gb", 19, _EVERYWHERE, 1, sms=16, mib=9984, media=(1, 1, 0)),
    _profile("1g.10gb+me", 20, _EVERYWHERE, 1, sms=16, mib=9984, media=(1, 1, 1), at_most=1),
    _profile("1g.20gb", 15, (0, 2, 4, 6), 2, sms=26, mib=20096, media=(1, 1, 0)),
    _profile("2g.20gb", 14, (0, 2, 4), 2, sms=32, mib=20096, media=(2, 2, 0)),
    _profile("3g.40gb", 9, (0, 4), 4, sms=60, mib=40448, media=(3, 3, 0)),
    _profile("4g.40gb", 5, (0,), 4, sms=64, mib=40448, media=(4, 4, 0)),
    _profile("7g.80gb", 0, (0,), 8, sms=132, mib=81152, media=(7, 7, 1)),
)
"""As NVML tells them on an H100 80GB HBM3 (nvmlDeviceGetGpuInstanceProfileInfo, driver 580)."""

_H200_141GB = (
    _profile("1g.18gb", 19, _EVERYWHERE, 1, sms=16, mib=16384, media=(1, 1, 0)),
    _profile("1g.18gb+me", 20, _EVERYWHERE, 1, sms=16, mib=16384, media=(1, 1, 1), at_most=1),
    _profile("1g.35gb", 15, (0, 2, 4, 6), 2, sms=26, mib=33280, media=(1, 1, 0)),
    _profile("2g.35gb", 14, (0, 2, 4), 2, sms=32, mib=33280, media=(2, 2, 0)),
    _profile("3g.71gb", 9, (0, 4), 4, sms=60, mib=71424, media=(3, 3, 0)),
    _profile("4g.71gb", 5, (0,), 4, sms=64, mib=71424, media=(4, 4, 0)),
    _profile("7g.141gb", 0, (0,), 8, sms=132, mib=143360, media=(7, 7, 1)),
)
"""As NVML tells them on an H200 (driver 580)."""

_B200_180GB = (
    _profile("1g.23gb", 19, _EVERYWHERE, 1, sms=18, mib=20992, media=(1, 1, 0)),
    _profile("1g.23gb+me", 20, _EVERYWHERE, 1, sms=18, mib=20992, media=(1, 1, 1), at_most=1),
    _profile("1g.45gb", 15, (0, 2, 4, 6), 2, sms=30, mib=45312, media=(1, 1, 0)),
    _profile("2g.45gb", 14, (0, 2, 4), 2, sms=36, mib=45312, media=(2, 2, 0)),
    _profile("3g.90gb", 9, (0, 4), 4, sms=70, mib=91136, media=(3, 3, 0)),
    _profile("4g.90gb", 5, (0,), 4, sms=72, mib=91136, media=(4, 4, 0)),
    _profile("7g.180gb", 0, (0,), 8, sms=148, mib=182784, media=(7, 7, 1)),
)
"""As nvidia-smi printed them on a B200 (NVIDIA/gpu-operator pull request 1351). The media engines of 3g, 4g and 7g are
those of an H200: the user guide's table has one of each everywhere, which nvidia-smi contradicts for 2g."""

_A30 = (
    _profile("1g.6gb", 14, (0, 1, 2, 3), 1, sms=14, mib=5952, media=(1, 0, 0)),
    _profile("1g.6gb+me", 21, (0, 1, 2, 3), 1, sms=14, mib=5952, media=(1, 1, 1), at_most=1),
    _profile("2g.12gb", 5, (0, 2), 2, sms=28, mib=11968, media=(2, 0, 0)),
    _profile("2g.12gb+me", 6, (0, 2), 2, sms=28, mib=11968, media=(2, 1, 1), at_most=1),
    _profile("4g.24gb", 0, (0,), 4, sms=56, mib=24000, media=(4, 1, 1)),
)

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            name="a30",
            product="A30",
            memory_bytes=24576 * _MIB_BYTES,
            memory_slices=4,
            profiles=_A30,
            pci_id=0x20B710DE,
        ),
        Board(
            name="a100-sxm-40gb",
            product="A100-SXM4-40GB",
            memory_bytes=40960 * _MIB_BYTES,
            memory_slices=8,
            profiles=_A100_40GB,
            pci_id=0x20B010DE,
        ),
        Board(
            name="a100-sxm-80gb",
            product="A100-SXM4-80GB",
            memory_bytes=81920 * _MIB_BYTES,
            memory_slices=8,
            profiles=_A100_80GB,
            pci_id=0x20B210DE,
        ),
        Board(
            name="a100-pcie-80gb",
            product="A100 80GB PCIe",
            memory_bytes=81920 * _MIB_BYTES,
            memory_slices=8,
            profiles=_A100_80GB,
            pci_id=0x20B510DE,
        ),
        Board(
            name="h100-sxm-80gb",
            product="H100 80GB HBM3",
            memory_bytes=81559 * _MIB_BYTES,
            memory_slices=8,
            profiles=_H100_80GB,
            pci_id=0x233010DE,
            resetless=True,
            has_gpm=True,
        ),
        Board(
            name="h200-sxm-141gb",
            product="H200",
            memory_bytes=143771 * _MIB_BYTES,
            memory_slices=8,
            profiles=_H200_141GB,
            pci_id=0x233510DE,
            resetless=True,
            has_gpm=True,
        ),
        Board(
            name="b200-sxm-180gb",
            product="B200",
            memory_bytes=183359 * _MIB_BYTES,
            memory_slices=8,
            profiles=_B200_180GB,
            pci_id=0x290110DE,
            resetless=True,
            has_gpm=True,
        ),
    )
}
"""Every simulated board by the name used in `--slices sim:<board>`."""
