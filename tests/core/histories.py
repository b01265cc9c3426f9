"""What tests of the core build runs from: a spec of three slices, its inventory, and samples of it.

Everything is frozen; a test says what is different with `msgspec.structs.replace`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from msgspec.structs import replace

from heteromig.core.devices import (
    DeviceSample,
    DriverEvent,
    Gpu,
    GpuSample,
    Inventory,
    Occupant,
    Slice,
    SliceKind,
    SliceSample,
)
from heteromig.core.overlap import CertificateSummary, MainResult, Overlap
from heteromig.core.phases import EvidenceLevel
from heteromig.core.spec import (
    Action,
    BackgroundSpec,
    BenchmarkInfo,
    Drain,
    Goal,
    MainSpec,
    Mode,
    Preparation,
    RunSpec,
    TimingSpec,
)
from heteromig.core.units import MonotonicNs
from heteromig.core.verdict import Reason

CONTROLLER_PID = 77
GEOMETRY = "as it was cut"
EVERY_EVENT = int(DriverEvent.DOUBLE_BIT_ECC | DriverEvent.XID | DriverEvent.GPU_UNAVAILABLE)
_EXAMPLES = int(os.environ.get("HETEROMIG_TEST_EXAMPLES", "0"))
"""More examples than a quick run has, chosen anew each time; e.g. 5000 before a release."""


def examples(count: int) -> settings:
    """Settings of a property test: `count` fixed examples, or as many random ones as the environment asks for."""
    return settings(
        max_examples=_EXAMPLES or count,
        derandomize=not _EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def benchmark(name: str) -> BenchmarkInfo:
    return BenchmarkInfo(
        name=name, model=name, scenarios=("offline", "server"), accuracies=("99", "99.9"), default_accuracy="99"
    )


TIMING = TimingSpec(
    start_time_buffer_ms=3_000,
    background_start_timeout_ms=60_000,
    build_timeout_ms=40_000,
    main_timeout_ms=120_000,
    main_exit_timeout_ms=60_000,
    end_time_buffer_min_ms=5_000,
    clean_stop_ms=5_000,
    grace_ms=4_000,
)

SPEC = RunSpec(
    goal=Goal.RUN,
    slices="sim:a100-sxm-80gb",
    harness="loadgen",
    simulated=True,
    main=MainSpec(benchmark="resnet50", scenario="offline", mode=Mode.PERFORMANCE, accuracy="99", duration_ms=10_000),
    background=BackgroundSpec(
        benchmarks="datacenter",
        explicit=False,
        candidates=("bert", "dlrm"),
        scenario="offline",
        duration_ms=None,
        timeout_ms=10_000_000,
    ),
    timing=TIMING,
    catalog=tuple(benchmark(name) for name in ("resnet50", "bert", "dlrm", "rnnt", "3d-unet", "ssd-resnet34")),
    start_evidence=EvidenceLevel.TIMED,
    drain=Drain.KILL,
    seed=0,
    pin=True,
    lenient=False,
    rebuild=False,
    sample_period_ms=1_000,
    runs_dir="runs",
    engines_dir="engines",
)

ALONE = replace(
    SPEC,
    background=replace(SPEC.background, benchmarks="none", candidates=()),
)
BASELINE = replace(ALONE, goal=Goal.BASELINE)
BATCHED = replace(
    SPEC,
    batch_builds=True,
    main=replace(SPEC.main, config_ver="low"),
    catalog=tuple(
        replace(info, config_vers=(("99", "high" if info.name == "dlrm" else "low"),)) for info in SPEC.catalog
    ),
)
"""Engines of resnet50 and bert have one configuration version, those of dlrm another."""
ABRUPT = replace(SPEC, catalog=tuple(replace(info, stops_cleanly=info.name == "bert") for info in SPEC.catalog))
"""Neither main nor dlrm knows a clean stop, and bert does."""
AUDIT = replace(SPEC, main=replace(SPEC.main, action=Action.TEST01))
LENIENT = replace(SPEC, lenient=True)
KEEPING = replace(SPEC, keeps_backgrounds=True)
"""One run of a campaign, which hands its backgrounds on."""
ANNOUNCED = replace(SPEC, start_evidence=EvidenceLevel.ANNOUNCED)
WAITING = replace(SPEC, drain=Drain.WAIT)
CUT = replace(SPEC, preparation=Preparation.LAYOUT, layout="3x1g.10gb")
SHARED = replace(SPEC, simulated=False, slices="mps:3x33", preparation=Preparation.MPS)
ONLY_BUILDING = replace(SPEC, goal=Goal.BUILD)


def slice_uuid(number: int) -> str:
    return f"SIM-{number}"


def gpu_uuid(number: int) -> str:
    return f"GPU-{number}"


def inventory(slices: int = 3, *more: int, profiles: tuple[str, ...] = ("1g.10gb",)) -> Inventory:
    """GPUs with that many slices; `profiles` are those of a GPU's first slices, the last that of the rest."""
    owners = [
        (gpu, profiles[min(number, len(profiles) - 1)])
        for gpu, count in enumerate((slices, *more))
        for number in range(count)
    ]
    return Inventory(
        simulated=True,
        gpus=tuple(
            Gpu(uuid=gpu_uuid(gpu), name="NVIDIA A100-SXM4-80GB", driver="simulated", index=gpu, geometry=GEOMETRY)
            for gpu in range(1 + len(more))
        ),
        slices=tuple(
            Slice(uuid=slice_uuid(number), kind=SliceKind.SIM, profile=profile, gpu_uuid=gpu_uuid(gpu))
            for number, (gpu, profile) in enumerate(owners)
        ),
    )


def occupant(pid: int, *ancestors: int) -> Occupant:
    return Occupant(pid=pid, ancestors=ancestors, command="harness")


def sample(taken_ns: MonotonicNs, *occupants: tuple[Occupant, ...] | None, geometry: str = GEOMETRY) -> DeviceSample:
    """`occupants` are those of each slice, from the first on; slices that are not mentioned are empty."""
    readings = (*occupants, *((),) * (3 - len(occupants)))
    return DeviceSample(
        taken_ns=taken_ns,
        slices=tuple(
            SliceSample(slice_uuid=slice_uuid(number), occupants=each) for number, each in enumerate(readings)
        ),
        gpus=(gpu_sample(geometry=geometry),),
    )


def gpu_sample(number: int = 0, *, geometry: str | None = GEOMETRY) -> GpuSample:
    """A GPU that does well."""
    return GpuSample(
        gpu_uuid=gpu_uuid(number),
        geometry=geometry,
        listened=EVERY_EVENT,
        sw_thermal_slowdown_ns=0,
        hw_thermal_slowdown_ns=0,
        power_brake_ns=0,
        power_cap_ns=0,
    )


def certificate(*reasons: Reason) -> CertificateSummary:
    """What validating found; without reasons everything is proven."""
    return CertificateSummary(
        overlap=Overlap(proven=not reasons, coverage=1.0, slack_before_s=3.0, slack_after_s=0.5, backgrounds=()),
        main_section=None,
        main_result=MainResult(valid=True, complaints=(), metrics={}),
        reasons=reasons,
    )
