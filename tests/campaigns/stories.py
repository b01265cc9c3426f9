"""Campaigns and runs as tests need them, without a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heteromig.campaign.probes import Confirm, Probe, RunProbe, Side
from heteromig.campaign.tuning import next_step
from heteromig.campaigns.asking import tune_settings
from heteromig.campaigns.directory import Campaign, Entry, Wanted, ask, begin
from heteromig.core.record import RunRecord, VerdictRecord
from heteromig.core.spec import Goal, RunSpec
from heteromig.core.verdict import Reason
from heteromig.runner.config import Config, MainConfig, TuneConfig, resolve
from tests.campaign.worlds import Answerer
from tests.views.records import make_record, make_worker

SIM = Config(slices="sim:a30/4x1g.6gb", harness="loadgen", main=MainConfig(scenario="server"))


def specs(config: Config = SIM) -> dict[Side, RunSpec]:
    return {Side.ISOLATED: resolve(config, goal=Goal.BASELINE), Side.BESIDE: resolve(config)}


def begun(directory: Path, **more: Any) -> Campaign:
    spec = specs()[Side.BESIDE]
    return begin(directory, ask(tune_settings(spec, TuneConfig(start_qps=300.0, **more)), spec))


def entry(step: Wanted, probe: Probe | None, exit_code: int = 0) -> Entry:
    return Entry(step=step, run_dir="20260101T000000Z", exit_code=exit_code, took_s=step.duration_s + 5, probe=probe)


def driven(campaign: Campaign, world: Answerer, most: int = 100) -> Campaign:
    """Until the planner has its answer, or after so many runs."""
    for _ in range(most):
        step = next_step(campaign.asked.tune, campaign.probes)
        if not isinstance(step, RunProbe | Confirm):
            return campaign.answered(step)
        probe = world(step)
        campaign = campaign.after(entry(step, probe, 0 if probe.outcome.value == "valid" else 3))
    return campaign


def record(exit_code: int, *reasons: Reason, metrics: dict[str, float] | None = None, **main: Any) -> RunRecord:
    changes: dict[str, Any] = {"scenario": "server", "metrics": metrics or {}, **main}
    worker = make_worker(0, "resnet50", **changes)
    verdict = VerdictRecord("valid" if exit_code == 0 else "failed", exit_code, reasons)
    return make_record(workers=(worker, make_worker(1, "bert")), verdict=verdict)
