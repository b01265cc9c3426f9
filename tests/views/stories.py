"""Runs to look at: real events through the real core, up to any phase."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.devices import (
    DeviceSample,
    Gpu,
    GpuSample,
    Inventory,
    Occupant,
    Shared,
    Slice,
    SliceKind,
    SliceSample,
    Unavailable,
)
from heteromig.core.effects import AnyEffect
from heteromig.core.machine import Run
from heteromig.core.overlap import BackgroundOverlap, CertificateSummary, MainResult, Overlap
from heteromig.core.phases import EvidenceLevel, Phase
from heteromig.core.plan import Plan
from heteromig.core.spec import (
    BackgroundSpec,
    BenchmarkInfo,
    Drain,
    Goal,
    MainSpec,
    Mode,
    RunSpec,
    TimingSpec,
)
from heteromig.core.units import NS_PER_S

GIB = 2**30
NAMES = ("resnet50", "ssd-resnet34", "ssd-mobilenet", "bert", "dlrm", "3d-unet", "rnnt")
MS = 1_000_000


def make_spec(*, lenient: bool = False, goal: Goal = Goal.RUN, mode: Mode = Mode.PERFORMANCE) -> RunSpec:
    return RunSpec(
        goal=goal,
        slices="sim:a100-sxm-80gb",
        harness="loadgen",
        simulated=True,
        main=MainSpec(benchmark="resnet50", scenario="offline", mode=mode, accuracy="99", duration_ms=10_000),
        background=BackgroundSpec(
            benchmarks="all",
            explicit=False,
            candidates=NAMES[1:],
            scenario="offline",
            duration_ms=None,
            timeout_ms=10**7,
        ),
        timing=TimingSpec(
            start_time_buffer_ms=3000,
            background_start_timeout_ms=60_000,
            build_timeout_ms=60_000,
            main_timeout_ms=60_000,
            main_exit_timeout_ms=60_000,
            end_time_buffer_min_ms=30_000,
            clean_stop_ms=5000,
            grace_ms=5000,
        ),
        catalog=tuple(BenchmarkInfo(name, name, ("offline", "server"), ("99", "99.9"), "99") for name in NAMES),
        start_evidence=EvidenceLevel.TIMED,
        drain=Drain.KILL,
        seed=0,
        pin=True,
        lenient=lenient,
        rebuild=False,
        sample_period_ms=1000,
        runs_dir="runs",
        engines_dir="engines",
    )


def make_inventory(*, slices: int = 7, gpus: int = 1, simulated: bool = True) -> Inventory:
    """`slices` per GPU, with UUIDs as MIG devices have them."""
    boards = tuple(
        Gpu(
            uuid=f"GPU-{gpu:02x}c0ffee-1111-2222-3333-444444444444",
            name="NVIDIA A100-SXM4-80GB",
            driver="535.54.03",
            memory_bytes=80 * GIB,
            mig_current=True,
            mig_pending=True,
        )
        for gpu in range(gpus)
    )
    places = tuple(
        Slice(
            uuid=f"MIG-{gpu:02x}{number:02x}beef-aaaa-5bbb-8ccc-dddddddddddd",
            kind=SliceKind.SIM if simulated else SliceKind.MIG,
            profile="1g.10gb",
            gpu_uuid=board.uuid,
            gpu_instance_id=7 + number,
            compute_instance_id=0,
            memory_bytes=int(9.5 * GIB),
            sm_count=14,
        )
        for gpu, board in enumerate(boards)
        for number in range(slices)
    )
    return Inventory(simulated=simulated, gpus=boards, slices=places, geometry="a1b2c3d4")


class Story:
    """A run that is told what happens, one fact after another, on a clock of its own."""

    def __init__(self, spec: RunSpec | None = None, inventory: Inventory | None = None) -> None:
        self.run = Run(spec or make_spec())
        self.inventory = inventory or make_inventory()
        self.now_ns = 1_000 * NS_PER_S
        self.begun_ns = self.now_ns
        self.effects: list[AnyEffect] = []
        self.entered_ns = self.now_ns
        self.on_slices = False
        """Whether samples show every live worker on its own slice."""

    @property
    def plan(self) -> Plan:
        assert self.run.view.plan is not None
        return self.run.view.plan

    def expect(self, phase: Phase) -> None:
        assert self.run.phase is phase

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS_PER_S)

    def tell(self, event: ev.AnyEvent) -> None:
        phase = self.run.phase
        self.effects = self.run.handle(event)
        if self.run.phase is not phase:
            self.entered_ns = self.now_ns

    def sample(self, gpus: tuple[GpuSample, ...] | None = None) -> None:
        if gpus is None:
            gpus = tuple(GpuSample(gpu_uuid=gpu.uuid) for gpu in self.inventory.gpus)
        workers = {worker.assignment.slice_uuid: worker for worker in self.run.view.workers if worker.live}
        readings = []
        for place in self.inventory.slices:
            worker = workers.get(place.uuid)
            shown = self.on_slices and worker is not None and worker.guardian_pid is not None
            occupants = (
                (Occupant(worker.pid or 0, (worker.guardian_pid or 0, 1000), "python"),) if shown and worker else ()
            )
            readings.append(SliceSample(place.uuid, occupants, 512 * 2**20 if shown else None))
        reading = DeviceSample(self.now_ns, self.inventory.geometry, tuple(readings), gpus)
        self.tell(ev.SampleTaken(self.now_ns, reading))

    def replace_slices(self, **readings: Any) -> None:
        """Let the last sample have shown this of every slice."""
        assert self.run.view.sample is not None
        slices = tuple(replace(one, **readings) for one in self.run.view.sample.slices)
        self._resample(slices=slices)

    def miss(self, *unavailable: Unavailable, shared: tuple[Shared, ...] = ()) -> None:
        """Let the last sample have said so."""
        self._resample(unavailable=unavailable, shared=shared)

    def _resample(self, **what: Any) -> None:
        assert self.run.view.sample is not None
        self.run.view = replace(self.run.view, sample=replace(self.run.view.sample, **what))

    def spawn(self, worker: int) -> None:
        self.tell(ev.WorkerSpawned(self.now_ns, worker, 2000 + 10 * worker, 2001 + 10 * worker))

    # --- the chapters of a good run, each from the end of the one before -------------------------------------------

    def discover(self) -> Story:
        self.tell(ev.RunStarted(self.now_ns, 0, 1000))
        self.wait(0.3)
        self.tell(ev.SlicesDiscovered(self.now_ns, self.inventory, (0, 1, 2, 3)))
        self.tell(ev.GpusLocked(self.now_ns))
        self.wait(0.1)
        self.sample()
        self.expect(Phase.BUILDING)
        return self

    def build(self, *, engines: int, of: int) -> Story:
        """Build the first `engines` of `of` that are missing; the next one is going on afterwards."""
        missing = tuple((need, "absent") for need in self.plan.engines[:of])
        self.tell(ev.EnginesInspected(self.now_ns, missing))
        for built in range(engines):
            worker = len(self.run.view.workers) - 1
            self.spawn(worker)
            self.wait(2.0)
            self.tell(ev.WorkerExited(self.now_ns, worker, 0, None))
            self.tell(ev.EnginesInspected(self.now_ns, missing[built + 1 :]))
        if engines < of:
            self.spawn(len(self.run.view.workers) - 1)
            self.wait(1.0)
        return self

    def start(self, *, timed: int | None = None) -> Story:
        """Spawn all backgrounds; the first `timed` begin."""
        count = len(self.plan.backgrounds)
        for worker in range(1, count + 1):
            self.spawn(worker)
        self.wait(1.5)
        for worker in range(1, (count if timed is None else timed) + 1):
            self.tell(ev.StartAnnounced(self.now_ns, worker))
            self.wait(0.01)
            self.tell(ev.TimedSectionBegan(self.now_ns, worker))
            self.wait(0.01)
        self.on_slices = True
        self.sample()
        return self

    def buffer(self) -> Story:
        self.expect(Phase.BUFFERING)
        for worker in range(1, len(self.plan.backgrounds) + 1):
            self.tell(ev.ProgressMade(self.now_ns, worker, 100 * worker, 123.4 * worker))
        self.wait(3.0)
        self.sample()
        self.tell(ev.DeadlinePassed(self.now_ns, ev.Timer.BUFFER, self.run.entry))
        self.expect(Phase.MAIN_RUNNING)
        return self

    def measure(self, seconds: float) -> Story:
        self.spawn(0)
        self.wait(1.2)
        self.tell(ev.StartAnnounced(self.now_ns, 0))
        self.tell(ev.TimedSectionBegan(self.now_ns, 0))
        self.wait(seconds)
        for worker in range(1, len(self.plan.backgrounds) + 1):
            self.tell(ev.ProgressMade(self.now_ns, worker, 200 * worker, 123.4 * worker))
        self.tell(ev.ProgressMade(self.now_ns, 0, 9_000, 1234.5))
        self.sample()
        return self

    def finish_main(self) -> Story:
        self.tell(ev.TimedSectionEnded(self.now_ns, 0))
        self.wait(0.4)
        self.tell(ev.WorkerExited(self.now_ns, 0, 0, None))
        self.expect(Phase.DRAINING)
        return self

    def drain(self) -> Story:
        for worker in self.run.view.live_workers:
            self.wait(0.1)
            self.tell(ev.WorkerExited(self.now_ns, worker.index, 0, None, "clean stop"))
        self.wait(0.1)
        self.sample()
        self.expect(Phase.VALIDATING)
        return self

    def judge(self, summary: CertificateSummary | None = None) -> Story:
        self.tell(ev.CertificateComputed(self.now_ns, summary or certificate(self.plan)))
        self.tell(ev.VerdictWritten(self.now_ns))
        self.expect(Phase.FINISHED)
        return self


def certificate(plan: Plan) -> CertificateSummary:
    return CertificateSummary(
        overlap=Overlap(
            proven=True,
            coverage=1.0,
            slack_before_s=4.321,
            slack_after_s=0.512,
            backgrounds=tuple(covered(worker.index, worker.benchmark) for worker in plan.backgrounds),
        ),
        main_section=None,
        main_result=MainResult(valid=True, complaints=(), metrics={"result_samples_per_second": 1234.5}),
        reasons=(),
    )


def covered(worker: int, benchmark: str) -> BackgroundOverlap:
    return BackgroundOverlap(
        worker=worker,
        benchmark=benchmark,
        evidence=EvidenceLevel.TIMED,
        begin_utc_ns=1,
        end_utc_ns=2,
        begin_source="power_begin",
        end_source="power_end",
        slack_before_s=4.321 + worker,
        slack_after_s=0.512 + worker,
        uncertainty_s=0.002,
        coverage=1.0,
        covered=True,
    )
