"""Records of runs as `run.json` holds them."""

from __future__ import annotations

from typing import Any

import msgspec

from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.record import (
    HostRecord,
    ObserverPhase,
    ObserverRecord,
    OverlapRecord,
    PhaseRecord,
    RunRecord,
    SliceRecord,
    Tool,
    VerdictRecord,
    WorkerRecord,
)
from heteromig.core.verdict import Reason
from tests.views.stories import covered

RUN_DIR = "runs/20260401T120000Z-resnet50-offline"


def make_worker(index: int, benchmark: str, **changes: Any) -> WorkerRecord:
    role = "background" if index else "main"
    worker = WorkerRecord(
        index=index,
        role=role,
        benchmark=benchmark,
        scenario="offline",
        mode="performance",
        accuracy="99",
        config_ver="",
        slice_uuid=f"MIG-{index}",
        directory=f"workers/{index}-{role}-{benchmark}",
        pid=100 + index,
        command=("python",),
        env={},
        exit_code=0,
        signal=None,
        timed_begin="2026-04-01T12:00:10.000Z",
        timed_end="2026-04-01T12:00:20.000Z",
        evidence="busy",
        stopped_by="clean stop" if index else None,
        metrics={} if index else {"result_samples_per_second": 1234.56, "result_99.00_percentile_latency_ns": 9.9e9},
    )
    return msgspec.structs.replace(worker, **changes)


def make_overlap(*backgrounds: BackgroundOverlap, **changes: Any) -> OverlapRecord:
    overlap = OverlapRecord(
        proven=True, coverage=1.0, slack_before_s=5.321, slack_after_s=1.512, backgrounds=backgrounds
    )
    return msgspec.structs.replace(overlap, **changes)


NOT_KNOWN: dict[str, Any] = {"proven": False, "coverage": None, "slack_before_s": None, "slack_after_s": None}


def make_record(**changes: Any) -> RunRecord:
    record = RunRecord(
        schema_version=1,
        tool=Tool("heteromig", "0.1.0"),
        run_id="20260401T120000Z-resnet50-offline",
        started_at="2026-04-01T12:00:00.000Z",
        ended_at="2026-04-01T12:00:30.000Z",
        heartbeat_at="2026-04-01T12:00:30.000Z",
        phase="finished",
        goal="run",
        harness="loadgen",
        simulated=True,
        isolation="simulated",
        lenient=False,
        host=HostRecord("host", "6.1", "3.11.7", None, (0, 1), None),
        gpus=(),
        slices=tuple(SliceRecord(f"MIG-{index}", "sim", "1g.10gb", "GPU-0", index, 0, (index,)) for index in range(3)),
        workers=(make_worker(0, "resnet50"), make_worker(1, "bert"), make_worker(2, "dlrm")),
        left_out=(),
        overlap=make_overlap(covered(1, "bert"), covered(2, "dlrm")),
        observer=ObserverRecord(0.4, 0.21, 345, (ObserverPhase("main-running", 0.05, 60),)),
        phases=(
            PhaseRecord("main-running", "2026-04-01T12:00:09.000Z", "2026-04-01T12:00:21.500Z"),
            PhaseRecord("finished", "2026-04-01T12:00:30.000Z", None),
        ),
        notes=(),
        verdict=VerdictRecord("valid", 0, ()),
    )
    return msgspec.structs.replace(record, **changes)


def failed(status: str, exit_code: int, *sentences: str) -> VerdictRecord:
    return VerdictRecord(status, exit_code, tuple(Reason(exit_code, sentence) for sentence in sentences))
