"""The boards that the simulator knows, and how each may be cut.

Only the simulator reads these tables; on a real GPU everything here is asked of the driver. Profile ids, placements
and multiprocessor counts are those of NVIDIA's MIG user guide ("Supported MIG Profiles"), placements as
`nvidia-smi mig -lgipp` prints them, memory as `nvidia-smi mig -lgip` prints it. Drivers differ by up to 0.3 GiB there,
so nothing may ever be identified by its memory.
"""

from __future__ import annotations

from msgspec import Struct

_MIB_BYTES = 1 << 20


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


class Board(Struct, frozen=True):
    """One GPU model. `memory_slices` is a power of two, which numbers the GPU instances (see `instance_id`)."""

    name: str
    product: str
    memory_bytes: int
    memory_slices: int
    profiles: tuple[Profile, ...]

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
    at_most: int | None = None,
) -> Profile:
    return Profile(
        name=name,
        profile_id=profile_id,
        starts=starts,
        size=size,
        compute_slices=int(name[0]),
        sm_count=sms,
        memory_bytes=mib * _MIB_BYTES,
        max_instances=len(starts) if at_most is None else at_most,
    )


_A100_80GB = (
    _profile("1g.10gb", 19, (0, 1, 2, 3, 4, 5, 6), 1, sms=14, mib=9728),
    _profile("1g.10gb+me", 20, (0, 1, 2, 3, 4, 5, 6), 1, sms=14, mib=9728, at_most=1),
    _profile("1g.20gb", 15, (0, 2, 4, 6), 2, sms=14, mib=19968),
    _profile("2g.20gb", 14, (0, 2, 4), 2, sms=28, mib=19968),
    _profile("3g.40gb", 9, (0, 4), 4, sms=42, mib=40192),
    _profile("4g.40gb", 5, (0,), 4, sms=56, mib=40192),
    _profile("7g.80gb", 0, (0,), 8, sms=98, mib=80896),
)

_H100_80GB = (
    _profile("1g.10gb", 19, (0, 1, 2, 3, 4, 5, 6), 1, sms=16, mib=9984),
    _profile("1g.10gb+me", 20, (0, 1, 2, 3, 4, 5, 6), 1, sms=16, mib=9984, at_most=1),
    _profile("1g.20gb", 15, (0, 2, 4, 6), 2, sms=26, mib=20096),
    _profile("2g.20gb", 14, (0, 2, 4), 2, sms=32, mib=20096),
    _profile("3g.40gb", 9, (0, 4), 4, sms=60, mib=40448),
    _profile("4g.40gb", 5, (0,), 4, sms=64, mib=40448),
    _profile("7g.80gb", 0, (0,), 8, sms=132, mib=81152),
)
"""As NVML tells them on an H100 80GB HBM3 (nvmlDeviceGetGpuInstanceProfileInfo, driver 580)."""

_A30 = (
    _profile("1g.6gb", 14, (0, 1, 2, 3), 1, sms=14, mib=5952),
    _profile("1g.6gb+me", 21, (0, 1, 2, 3), 1, sms=14, mib=5952, at_most=1),
    _profile("2g.12gb", 5, (0, 2), 2, sms=28, mib=11968),
    _profile("2g.12gb+me", 6, (0, 2), 2, sms=28, mib=11968, at_most=1),
    _profile("4g.24gb", 0, (0,), 4, sms=56, mib=24000),
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
        ),
        Board(
            name="a100-sxm-80gb",
            product="A100-SXM4-80GB",
            memory_bytes=81920 * _MIB_BYTES,
            memory_slices=8,
            profiles=_A100_80GB,
        ),
        Board(
            name="a100-pcie-80gb",
            product="A100 80GB PCIe",
            memory_bytes=81920 * _MIB_BYTES,
            memory_slices=8,
            profiles=_A100_80GB,
        ),
        Board(
            name="h100-sxm-80gb",
            product="H100 80GB HBM3",
            memory_bytes=81559 * _MIB_BYTES,
            memory_slices=8,
            profiles=_H100_80GB,
        ),
    )
}
"""Every simulated board by the name used in `--slices sim:<board>`."""
