"""Runs that end well, with the embedded benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.record import RunRecord
from heteromig.logs.detail import read_detail
from heteromig.runner.config import read_config, resolve
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Say, Start

needs_two_processors = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="main gets a processor of its own only where there are two"
)


@needs_two_processors
def test_valid_run_proves_that_every_background_outlasted_main(run: Start, say: Say) -> None:
    command = run("--main-benchmark-duration", "2s", "--background-benchmarks", "dlrm,rnnt", "--json")
    record = command.expect(0)
    finished = command.finish()
    assert msgspec.json.decode(finished.stdout, type=RunRecord) == record
    assert "main-running -> draining" in finished.stderr

    logs = {path.parent.name: read_detail(path) for path in command.run_dir.glob("workers/*/mlperf_log_detail.txt")}
    assert sorted(logs) == ["0-main-resnet50", "1-background-dlrm", "2-background-rnnt"]
    begins = {name: facts.power_begin_utc_ns for name, facts in logs.items()}
    ends = {name: facts.power_end_utc_ns for name, facts in logs.items()}
    main_begin, main_end = begins.pop("0-main-resnet50"), ends.pop("0-main-resnet50")
    assert main_begin is not None
    assert main_end is not None
    assert all(begin is not None and begin <= main_begin for begin in begins.values())
    assert all(end is not None and end >= main_end for end in ends.values())

    assert record.verdict is not None
    assert record.verdict.status == "valid"
    assert record.simulated
    assert record.overlap.proven
    assert record.overlap.coverage == 1.0
    assert record.workers[0].metrics["result_samples_per_second"] > 0
    assert [worker.stopped_by for worker in record.workers] == [None, "clean stop", "clean stop"]
    assert {worker.exit_code for worker in record.workers} == {0}
    main_cpus, *shared = (set(place.cpus) for place in record.slices[:3])
    assert len(main_cpus) == 1
    assert all(cpus and not cpus & main_cpus for cpus in shared)
    assert sum(phase.wakeups for phase in record.observer.by_phase) == record.observer.wakeups

    # What the run was told is in its directory, and tells the same again.
    assert resolve(read_config(command.run_dir / "plan.toml")) == read_journal(command.run_dir).header.spec
    latest = command.home / "runs" / "latest"
    assert latest.resolve() == command.run_dir
    verified = say("verify", "runs/latest").finish()
    assert verified.exit_code == 0, verified.stderr
    assert "VALID" in verified.stdout


@needs_two_processors
def test_streams_run_as_main_and_as_background(run: Start, say: Say) -> None:
    command = run(
        *("--main-benchmark", "ssd-mobilenet", "--main-scenario", "SingleStream"),
        *("--background-benchmarks", "ssd-mobilenet", "--background-scenario", "multi-stream"),
    )
    record = command.expect(0)
    main, background = record.workers[:2]
    assert (main.scenario, background.scenario) == ("singlestream", "multistream")
    assert main.metrics["early_stopping_latency_ss"] > 0
    assert (background.stopped_by, background.exit_code) == ("clean stop", 0)
    facts = read_detail(command.run_dir / background.directory / "mlperf_log_detail.txt")
    assert (facts.scenario, facts.samples_per_query) == ("MultiStream", 8)
    assert facts.power_end_utc_ns is not None
    assert record.overlap.proven
    verified = say("verify", "runs/latest").finish()
    assert verified.exit_code == 0, verified.stderr
    assert "ms (lower is better)" in command.finish().stdout


def test_unpinned_run_outlives_the_death_of_a_sampler(run: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    command = run("--no-pin", "--sim-faults", str(faults), "--sample-period", "200ms")
    command.wait_for(ev.WorkerSpawned, 1)
    faults.write_text('{"die": true}')
    lost = command.wait_for(ev.SamplerLost)
    assert lost.restarted
    record = command.expect(0)
    assert all(place.cpus == () for place in record.slices)
    assert verify_run(command.run_dir).verdict.exit_code == 0


def test_sampler_that_dies_while_discovering_is_replaced(quick: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('{"die": true}')
    command = quick("--sim-faults", str(faults))
    command.expect(0)
    assert command.wait_for(ev.SamplerLost).restarted


def test_slice_in_the_shell_of_the_user_is_no_occupant(quick: Start) -> None:
    first = quick()
    places = first.expect(0).slices
    quick(environ={"CUDA_VISIBLE_DEVICES": places[1].uuid}).expect(0)


def test_lenient_run_goes_on_without_a_background_that_crashed(quick: Start) -> None:
    command = quick("--lenient", environ={"QUICK_BACKGROUND": "crashing"})
    record = command.expect(0, 'exited with status 3 during background-starting, having said "no such luck"')
    assert record.verdict is not None
    assert record.verdict.status == "lenient"
    assert verify_run(command.run_dir).verdict.status == "lenient"


def test_wait_mode_lets_backgrounds_finish(quick: Start) -> None:
    command = quick("--background-benchmark-duration", "4s", "--end-time-buffer-min", "100ms")
    record = command.expect(0)
    assert record.workers[1].stopped_by is None
    assert record.overlap.slack_after_s is not None
    assert record.overlap.slack_after_s > 0.5


def test_main_alone_needs_no_background(quick: Start) -> None:
    command = quick("--background-benchmarks", "none")
    record = command.expect(0)
    assert [worker.role for worker in record.workers] == ["main"]
    assert verify_run(command.run_dir).verdict.exit_code == 0
