"""The boards that the stand-in library can show: what the simulator's tables say of them, and what a driver adds.

Profiles, placements, memory and multiprocessors come from `heteromig.slices.boards`. Everything else of an H200 was
read off one (driver 580.159.04, MIG off); the others are filled in from data sheets and NVIDIA's MIG user guide.
"""

from __future__ import annotations

from msgspec import Struct

from heteromig.slices.boards import BOARDS, Board, Profile

_MIB_BYTES = 1 << 20

_EXTENDED = {1: 7, 2: 8}
_WHOLE = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}
_DOUBLE_MEMORY = 9


class Engines(Struct, frozen=True):
    """Engines of an instance beside its multiprocessors."""

    copy: int
    decoders: int = 0
    jpegs: int = 0
    ofas: int = 0


class Driven(Struct, frozen=True):
    """A board as its driver shows it. Clocks are of graphics, SM, memory and video."""

    board: Board
    product: str
    pci_device_id: int
    architecture: int
    capability: tuple[int, int]
    core_count: int
    engines: dict[str, Engines]
    power_mw: int
    power_limits_mw: tuple[int, int]
    clocks_mhz: tuple[int, int, int, int]
    max_clocks_mhz: tuple[int, int, int, int]
    thresholds_c: tuple[int, int, int, int]
    reserved_mib: int
    gpm: bool
    mig_needs_reset: bool


def enumerator(profile: Profile) -> int:
    """Which of NVML's NVML_GPU_INSTANCE_PROFILE_* it is; these are no profile ids."""
    if profile.name.endswith("+me"):
        return _EXTENDED[profile.compute_slices]
    if profile.compute_slices == 1 and profile.size > 1:
        return _DOUBLE_MEMORY
    return _WHOLE[profile.compute_slices]


def _profile(name: str, profile_id: int, starts: tuple[int, ...], size: int, *, sms: int, mib: int) -> Profile:
    return Profile(
        name=name,
        profile_id=profile_id,
        starts=starts,
        size=size,
        compute_slices=int(name[0]),
        sm_count=sms,
        memory_bytes=mib * _MIB_BYTES,
        max_instances=1 if name.endswith("+me") else len(starts),
    )


H200 = Board(
    name="h200-sxm-141gb",
    product="H200",
    memory_bytes=143771 * _MIB_BYTES,
    memory_slices=8,
    profiles=(
        _profile("1g.18gb", 19, (0, 1, 2, 3, 4, 5, 6), 1, sms=16, mib=16384),
        _profile("1g.18gb+me", 20, (0, 1, 2, 3, 4, 5, 6), 1, sms=16, mib=16384),
        _profile("1g.35gb", 15, (0, 2, 4, 6), 2, sms=26, mib=33280),
        _profile("2g.35gb", 14, (0, 2, 4), 2, sms=32, mib=33280),
        _profile("3g.71gb", 9, (0, 4), 4, sms=60, mib=71424),
        _profile("4g.71gb", 5, (0,), 4, sms=64, mib=71424),
        _profile("7g.141gb", 0, (0,), 8, sms=132, mib=143360),
    ),
)

_AMPERE = {
    "1": Engines(copy=1),
    "1+me": Engines(copy=1, decoders=1, jpegs=1, ofas=1),
    "1 double": Engines(copy=1, decoders=1),
    "2": Engines(copy=2, decoders=1),
    "3": Engines(copy=3, decoders=2),
    "4": Engines(copy=4, decoders=2),
    "7": Engines(copy=7, decoders=5, jpegs=1, ofas=1),
}
_A30 = {
    "1": Engines(copy=1),
    "1+me": Engines(copy=1, decoders=1, jpegs=1, ofas=1),
    "2": Engines(copy=2, decoders=2),
    "2+me": Engines(copy=2, decoders=2, jpegs=1, ofas=1),
    "4": Engines(copy=4, decoders=4, jpegs=1, ofas=1),
}
_HOPPER = {
    "1": Engines(copy=1, decoders=1, jpegs=1),
    "1+me": Engines(copy=1, decoders=1, jpegs=1, ofas=1),
    "1 double": Engines(copy=1, decoders=1, jpegs=1),
    "2": Engines(copy=2, decoders=2, jpegs=2),
    "3": Engines(copy=3, decoders=3, jpegs=3),
    "4": Engines(copy=4, decoders=4, jpegs=4),
    "7": Engines(copy=8, decoders=7, jpegs=7, ofas=1),
}


def engines_of(driven: Driven, profile: Profile) -> Engines:
    """The engines of a profile."""
    kind = str(profile.compute_slices)
    if enumerator(profile) == _DOUBLE_MEMORY:
        kind += " double"
    return driven.engines[kind + "+me" * profile.name.endswith("+me")]


DRIVEN: dict[str, Driven] = {
    one.board.name: one
    for one in (
        Driven(
            board=BOARDS["a100-sxm-80gb"],
            product="NVIDIA A100-SXM4-80GB",
            pci_device_id=0x20B210DE,
            architecture=7,
            capability=(8, 0),
            core_count=6912,
            engines=_AMPERE,
            power_mw=61_207,
            power_limits_mw=(100_000, 400_000),
            clocks_mhz=(210, 210, 1593, 585),
            max_clocks_mhz=(1410, 1410, 1593, 1290),
            thresholds_c=(92, 89, 95, 85),
            reserved_mib=633,
            gpm=False,
            mig_needs_reset=True,
        ),
        Driven(
            board=BOARDS["a30"],
            product="NVIDIA A30",
            pci_device_id=0x20B710DE,
            architecture=7,
            capability=(8, 0),
            core_count=3584,
            engines=_A30,
            power_mw=27_840,
            power_limits_mw=(100_000, 165_000),
            clocks_mhz=(210, 210, 1215, 585),
            max_clocks_mhz=(1440, 1440, 1215, 1290),
            thresholds_c=(92, 89, 95, 88),
            reserved_mib=446,
            gpm=False,
            mig_needs_reset=True,
        ),
        Driven(
            board=BOARDS["h100-sxm-80gb"],
            product="NVIDIA H100 80GB HBM3",
            pci_device_id=0x233010DE,
            architecture=9,
            capability=(9, 0),
            core_count=16896,
            engines=_HOPPER,
            power_mw=72_310,
            power_limits_mw=(200_000, 700_000),
            clocks_mhz=(345, 345, 2619, 765),
            max_clocks_mhz=(1980, 1980, 2619, 1545),
            thresholds_c=(95, 89, 95, 87),
            reserved_mib=551,
            gpm=True,
            mig_needs_reset=False,
        ),
        Driven(
            board=H200,
            product="NVIDIA H200",
            pci_device_id=0x233510DE,
            architecture=9,
            capability=(9, 0),
            core_count=16896,
            engines=_HOPPER,
            power_mw=103_838,
            power_limits_mw=(200_000, 700_000),
            clocks_mhz=(345, 345, 3201, 765),
            max_clocks_mhz=(1980, 1980, 3201, 1545),
            thresholds_c=(95, 89, 95, 87),
            reserved_mib=615,
            gpm=True,
            mig_needs_reset=False,
        ),
    )
}
"""Every board that can be had, by its name in the simulator's notation."""

METRICS: dict[int, str] = {
    1: "gract",
    2: "smutil",
    3: "smocc",
    4: "intutil",
    5: "mmaact",
    6: "dfmat",
    7: "hmmat",
    9: "immat",
    10: "dram",
    11: "fp64",
    12: "fp32",
    13: "fp16",
    20: "pcitx",
    21: "pcirx",
    60: "nvlrx",
    61: "nvltx",
}
"""GPM metrics of Hopper by their number, with the names that they answer with."""

SUPPORTED_EVENTS = 0xFF9F
"""Types of events that the driver offers, the change of the MIG configuration (0x100) among them."""
