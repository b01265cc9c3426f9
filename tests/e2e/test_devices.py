"""What the device guards see: strangers, workers in the wrong place, faults, a dying sampler, somebody else's run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Say, Start
from tests.e2e.product import BOARD, until
from tests.e2e.strangers import slices_of, stranger

LONG = ("--main-benchmark-duration", "60s")


def test_stranger_on_a_slice_before_the_run(quick: Start, say: Say) -> None:
    with stranger(slices_of(say)[1]) as pid:
        command = quick()
        command.expect(7, "is used by a process that is not part of this run", f"pid {pid}")
    assert not list(command.heard(ev.WorkerSpawned))
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_stranger_on_a_slice_while_main_runs(run: Start, say: Say) -> None:
    victim = slices_of(say)[0]
    command = run(*LONG, "--sample-period", "200ms")
    command.wait_for(ev.TimedSectionBegan, 0)
    with stranger(victim) as pid:
        command.wait_for_phase(Phase.DRAINING)
    command.expect(7, f"Slice {victim} is used by a process that is not part of this run", f"pid {pid}")
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_stranger_on_a_slice_that_the_run_does_not_use(quick: Start, say: Say) -> None:
    bystander = slices_of(say)[3]
    with stranger(bystander) as pid:
        record = quick().expect(0)
    (note,) = record.notes
    assert note.startswith(f"Slice {bystander}, which is not part of the run, was used meanwhile by pid {pid} (")


def test_worker_on_another_slice_than_its_own(quick: Start, say: Say) -> None:
    main, own, *_ = slices_of(say)
    command = quick(environ={"QUICK_SLICE": main})
    command.expect(7, f"Background 1 (dlrm) runs on slice {main} instead of its own ({own})")
    assert command.record().workers[0].pid is None
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_worker_that_the_device_never_shows_does_not_let_main_start(quick: Start) -> None:
    command = quick("--background-start-timeout", "1500ms", environ={"QUICK_SLICE": "SIM-MIG-none"})
    record = command.expect(6, "none, but the device guards did not hold")
    assert record.workers[0].pid is None
    assert verify_run(command.run_dir).verdict.exit_code == 6


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ('{"geometry_changed": true}', "changed during buffering: somebody else reconfigured it"),
        ('{"xid": 79}', "Xid 79"),
        ('{"gpu_lost": true}', "any more: it says 'GPU is lost'"),
    ],
)
def test_fault_of_the_device(quick: Start, tmp_path: Path, fault: str, words: str) -> None:
    faults = tmp_path / "faults.json"
    command = quick("--start-time-buffer", "60s", "--sim-faults", str(faults), "--sample-period", "100ms")
    command.wait_for_phase(Phase.BUFFERING)
    faults.with_suffix(".new").write_text(fault)
    faults.with_suffix(".new").replace(faults)
    command.expect(7, words)
    assert verify_run(command.run_dir).verdict.exit_code == 7


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        ('{"gpu": 1, "xid": 79}', "Not part of the run: NVIDIA's driver reported Xid 79"),
        ('{"gpu": 1, "gpu_lost": true}', "Not part of the run: NVML cannot read GPU "),
        ('{"gpu": 1, "geometry_changed": true}', ", which is not part of the run, was cut anew meanwhile."),
    ],
)
def test_fault_of_a_gpu_that_the_run_does_not_use(quick: Start, tmp_path: Path, fault: str, note: str) -> None:
    faults = tmp_path / "faults.json"
    host = ("--slices", "sim:2xa30", "--gpu", "0", "--main-benchmark-duration", "3s", "--sample-period", "100ms")
    command = quick(*host, "--sim-faults", str(faults))
    command.wait_for_phase(Phase.MAIN_RUNNING)
    faults.with_suffix(".new").write_text(fault)
    faults.with_suffix(".new").replace(faults)
    record = command.expect(0)
    assert [note in told for told in record.notes] == [True]
    assert Status.VIOLATED not in {finding.status for finding in record.device_guards}
    assert verify_run(command.run_dir).device_guards == record.device_guards


def test_simulated_devices_count_no_slowdown_and_a_good_run_does_not_dwell_on_it(quick: Start) -> None:
    command = quick("--main-benchmark-duration", "2s", "--sample-period", "100ms")
    record = command.expect(0)
    assert {finding.guard for finding in record.device_guards if finding.status is not Status.OK} == {"not_slowed_down"}
    assert "Guards" not in command.finish().stdout


def test_xid_while_the_embedded_main_runs(run: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    command = run(*LONG, "--sim-faults", str(faults), "--sample-period", "200ms")
    command.wait_for(ev.TimedSectionBegan, 0)
    faults.write_text('{"xid": 79}')
    command.expect(7, "Xid 79")


def test_sampler_that_dies_twice_makes_the_run_inconclusive(quick: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    command = quick("--main-benchmark-duration", "4s", "--sim-faults", str(faults), "--sample-period", "100ms")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    faults.write_text('{"die": true}')
    until(lambda: not faults.exists(), "the first sampler has died")
    command.wait_for(ev.SamplerLost)
    faults.write_text('{"die": true}')
    record = command.expect(9, "The devices could not be observed from main-running on: It was restarted once")
    assert record.overlap.proven
    assert [event.restarted for event in command.heard(ev.SamplerLost)] == [True, False]
    assert verify_run(command.run_dir).verdict.exit_code == 9


def test_second_run_on_the_same_gpus_is_refused(quick: Start) -> None:
    first = quick("--start-time-buffer", "60s")
    first.wait_for_phase(Phase.BUFFERING)
    first_dir = first.run_dir
    second = quick()
    finished = second.finish()
    assert finished.exit_code == 7
    assert f"in use by another heteromig run (pid {first.pid})" in finished.stderr + finished.stdout
    assert second.run_dir != first_dir
    assert first.process.poll() is None
    first.send(15)
    assert first.finish().exit_code == 143
    assert verify_run(first_dir).verdict.exit_code == 143


def test_runs_on_different_gpus_of_a_host_leave_each_other_alone_and_say_so(quick: Start) -> None:
    host = ("--slices", "sim:2xa30/4x1g.6gb", "--sample-period", "100ms")
    first = quick(*host, "--gpu", "0", *LONG)
    first.wait_for(ev.TimedSectionBegan, 0)
    first_dir = first.run_dir
    refused = quick(*host, "--gpu", "0").finish()
    assert refused.exit_code == 7
    assert "in use by another heteromig run" in refused.stderr + refused.stdout

    finished = quick(*host, "--gpu", "1", "--json").finish()
    assert finished.exit_code == 0, finished.stderr
    second = msgspec.json.decode(finished.stdout, type=RunRecord)
    spawned = {
        event.pid: event.worker for event in read_journal(first_dir).events if isinstance(event, ev.WorkerSpawned)
    }
    for pid, worker in spawned.items():
        place = second.slices[worker].uuid
        assert any(note.startswith(f"Slice {place}, which is not part of the run") for note in second.notes)
        assert any(f" pid {pid} " in note for note in second.notes)
    used = {worker.slice_uuid: worker.role for worker in second.workers}
    gpus = {place.uuid: place.gpu_uuid for place in second.slices}
    assert {gpus[uuid] for uuid in used} == {second.gpus[1].uuid}

    first.send(15)
    assert first.finish().exit_code == 143
    record = msgspec.json.decode((first_dir / "run.json").read_bytes(), type=RunRecord)
    assert {uuid for uuid in used if any(uuid in note for note in record.notes)} == set(used)
    assert len(list((first.home / "runs" / ".locks").iterdir())) == 2, "one for each GPU that was used"
    assert verify_run(first_dir).verdict.exit_code == 143


def test_plan_says_of_no_stranger_and_locks_nothing(quick: Start, say: Say) -> None:
    first = quick("--start-time-buffer", "60s")
    first.wait_for_phase(Phase.BUFFERING)
    assert say("plan", "--slices", BOARD, "--runs-dir", "runs").finish().exit_code == 0
    first.send(15)
    first.expect(143)
    assert list((first.home / "runs" / ".locks").iterdir())
