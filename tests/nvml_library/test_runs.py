"""Whole runs on slices that the stand-in library shows: what goes wrong with the devices, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample, Reading, Unavailable
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.runner.recording import Certificate
from heteromig.runner.rundir import CERTIFICATE, TELEMETRY
from heteromig.runner.verification import verify_run
from tests.e2e.product import until
from tests.nvml_library.fixtures import Build
from tests.nvml_library.layout import COMPUTE_PROCESS, Process
from tests.nvml_library.runs import LONG, Run, machine, run, stranger
from tests.nvml_library.state import DOUBLE_BIT_ECC, GPU_UNAVAILABLE, XID, State

__all__ = ["machine", "run"]


def test_a_run_on_real_slices_is_valid(run: Run, machine: State) -> None:
    command = run()
    record = command.expect(0)
    assert not record.simulated
    assert [one.uuid for one in record.slices] == [*machine.slice_uuids(0), *machine.slice_uuids(1)]
    assert [worker.slice_uuid for worker in record.workers] == machine.slice_uuids(0)[:2]
    assert {one.kind for one in record.slices} == {"mig"}
    assert record.overlap.proven
    assert verify_run(command.run_dir).verdict.exit_code == 0


@pytest.mark.parametrize("machine", ["h100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb"], indirect=True)
def test_telemetry_tells_what_each_slice_does_and_what_is_missing(run: Run, machine: State) -> None:
    with machine.edit() as shared:
        for instance in shared.gpus[0].gpu_instances:
            instance.metrics[1].value = 10.5 * instance.id
            instance.metrics[4].id = 0
    command = run()
    command.expect(0)
    first, *rest = [
        msgspec.json.decode(line, type=DeviceSample) for line in (command.run_dir / TELEMETRY).read_bytes().splitlines()
    ]
    assert {one.activity for one in first.slices} == {None}
    assert first.unavailable == ()
    measured = [[one.activity and one.activity.sm_percent for one in sample.slices] for sample in rest]
    expected = [10.5 * (one.gpu_instance_id or 0) for one in command.record().slices]
    assert expected in measured
    for percent, of_slice in zip(expected, zip(*measured, strict=True), strict=True):
        assert {None, percent} >= set(of_slice)  # None after too short a time
    (missing,) = [sample.unavailable for sample in rest if sample.unavailable is not None]
    assert missing == (Unavailable(tuple(machine.slice_uuids()), (Reading.TENSOR,), "this board has no such counter"),)
    assert verify_run(command.run_dir).verdict.exit_code == 0


def xid(machine: State, gpu: int) -> None:
    machine.post(XID, 79, gpu=gpu)


def ecc(machine: State, gpu: int) -> None:
    machine.post(DOUBLE_BIT_ECC, gpu=gpu)


def unavailable(machine: State, gpu: int) -> None:
    machine.post(GPU_UNAVAILABLE, gpu=gpu)


def recut(machine: State, gpu: int) -> None:
    machine.remake(machine.slice_uuids(gpu)[3])


def silently_recut(machine: State, gpu: int) -> None:
    machine.recut("2g.12gb,2x1g.6gb", gpu, announced=False)


def lost(machine: State, gpu: int) -> None:
    machine.lose(gpu)


def pending(machine: State, gpu: int) -> None:
    with machine.edit() as shared:
        shared.gpus[gpu].mig_pending = 0


Befalls = Callable[[State, int], None]


@pytest.mark.parametrize(
    ("befalls", "guard", "says"),
    [
        (xid, "no_fault_reported", "Xid 79"),
        (ecc, "no_fault_reported", "a double-bit ECC error"),
        (unavailable, "no_fault_reported", "became unavailable"),
        (recut, "geometry_unchanged", "The partitioning of GPU {} changed during main-running"),
        (silently_recut, "geometry_unchanged", "The partitioning of GPU {} changed during main-running"),
        (lost, "no_fault_reported", "GPU is lost"),
        (pending, "mig_mode_settled", "The MIG mode of GPU {} is not settled any more during main-running"),
    ],
)
def test_what_befalls_the_gpu_ends_the_run(run: Run, machine: State, befalls: Befalls, guard: str, says: str) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    befalls(machine, 0)
    record = command.expect(7, says.format(machine.gpu_uuid()))
    (violated,) = [one for one in record.device_guards if one.status is Status.VIOLATED]
    assert (violated.guard, violated.scope) == (guard, machine.gpu_uuid())
    assert violated.before != violated.after
    verified = verify_run(command.run_dir)
    assert verified.verdict.exit_code == 7
    assert verified.device_guards == record.device_guards
    assert f"{guard.replace('_', ' ')}: violated on {machine.gpu_uuid()}" in command.finish().stdout


@pytest.mark.parametrize(
    ("befalls", "says"),
    [
        (xid, "Not part of the run: NVIDIA's driver reported Xid 79 on GPU {}"),
        (ecc, "Not part of the run: NVIDIA's driver reported a double-bit ECC error on GPU {}"),
        (unavailable, "Not part of the run: NVML says that GPU {} became unavailable"),
        (recut, "GPU {}, which is not part of the run, was cut anew meanwhile."),
        (lost, "Not part of the run: NVML cannot read GPU {} any more: it says 'GPU is lost'"),
    ],
)
def test_what_befalls_another_gpu_is_a_note(run: Run, machine: State, befalls: Befalls, says: str) -> None:
    command = run("--main-benchmark-duration", "2s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    befalls(machine, 1)
    record = command.expect(0)
    (note,) = record.notes
    assert note.startswith(says.format(machine.gpu_uuid(1)))
    assert {one.status for one in record.device_guards} == {Status.OK}
    assert verify_run(command.run_dir).verdict.exit_code == 0


def test_a_stranger_on_a_slice_ends_the_run(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    victim = machine.slice_uuids()[1]
    with stranger(f"MIG-{machine.gpu_uuid()}/4/0") as pid:  # by its older name
        command.wait_for_phase(Phase.DRAINING)
    record = command.expect(7, f"Slice {victim} is used by a process that is not part of this run: pid {pid} (")
    (violated,) = [one for one in record.device_guards if one.status is Status.VIOLATED]
    assert (violated.guard, violated.scope) == ("only_own_processes", victim)
    assert violated.evidence.startswith(f"pid {pid} (")
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_a_process_that_nothing_is_known_of_ends_the_run(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with machine.edit() as shared:
        shared.gpus[0].processes[0] = Process(COMPUTE_PROCESS, 1 << 30, 4, 0, 1 << 20)
    command.wait_for_phase(Phase.DRAINING)
    with machine.edit() as shared:
        shared.gpus[0].processes[0].kind = 0
    command.expect(7, f"is used by a process that is not part of this run: pid {1 << 30} (")


def test_a_slow_driver_delays_nobody(run: Run, machine: State) -> None:
    slow = machine.inject("nvmlDeviceGetPowerUsage", sleep_s=0.3)
    command = run()
    command.expect(0)
    assert slow.hits > 0


def test_a_driver_that_hangs_is_given_up_and_asked_anew(run: Run, machine: State) -> None:
    command = run("--main-benchmark-duration", "8s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    hang = machine.inject("nvmlDeviceGetMigMode", sleep_s=600, times=1)
    until(lambda: hang.hits, "it hangs")
    lost = command.wait_for(ev.SamplerLost)
    assert lost.restarted
    command.expect(0)


def test_who_may_not_cut_may_run(run: Run, machine: State) -> None:
    machine.deny()
    run().expect(0)


# Device guards


GPU_GUARDS = ["geometry_unchanged", "mig_mode_settled", "no_fault_reported", "not_slowed_down"]
SLICE_GUARDS = ["only_own_processes", "process_on_its_slice", "memory_returned"]


def test_a_good_run_has_every_guard_about_everything_and_says_nothing_of_them(run: Run, machine: State) -> None:
    command = run()
    record = command.expect(0)
    assert {one.status for one in record.device_guards} == {Status.OK}, record.device_guards
    about_gpus = {(guard, machine.gpu_uuid()) for guard in GPU_GUARDS}
    about_slices = {(guard, uuid) for guard in SLICE_GUARDS for uuid in machine.slice_uuids()[:2]}
    assert {(one.guard, one.scope) for one in record.device_guards} == about_gpus | about_slices
    assert len(record.device_guards) == 4 + 3 * 2
    assert record.notes == ()
    assert "Guards" not in command.finish().stdout
    certificate = msgspec.json.decode((command.run_dir / CERTIFICATE).read_bytes(), type=Certificate)
    assert certificate.device_guards == record.device_guards
    assert verify_run(command.run_dir).device_guards == record.device_guards


@pytest.mark.parametrize(("counter", "cause"), [("sw_thermal_ns", "heat"), ("hw_power_brake_ns", "its power brake")])
def test_a_slowdown_is_said_beside_the_verdict(run: Run, machine: State, counter: str, cause: str) -> None:
    command = run("--main-benchmark-duration", "2s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with machine.edit() as shared:
        setattr(shared.gpus[0], counter, 3_200_000_000)
        shared.gpus[0].violation_ns[0] = 1_000_000_000  # the power cap, which is normal
        shared.gpus[1].hw_thermal_ns = 1
    record = command.expect(0)
    (violated,) = [one for one in record.device_guards if one.status is not Status.OK]
    remark = f"Main was measured while GPU {machine.gpu_uuid()} was slowed down by {cause} for 3.2 s."
    assert (violated.guard, violated.status, violated.remark) == ("not_slowed_down", Status.VIOLATED, remark)
    assert "power cap 1.000 s" in (violated.after or "")
    assert record.notes == (remark,)
    lines = " ".join(command.finish().stdout.split())
    assert lines.startswith("VALID (exit 0)")
    assert lines.count(remark) == 1
    assert "Guards not slowed down: violated on" in lines
    assert verify_run(command.run_dir).device_guards == record.device_guards


def test_the_power_cap_alone_is_reported_and_no_violation(run: Run, machine: State) -> None:
    command = run("--main-benchmark-duration", "2s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with machine.edit() as shared:
        shared.gpus[0].violation_ns[0] = 1_500_000_000
    record = command.expect(0)
    (finding,) = [one for one in record.device_guards if one.guard == "not_slowed_down"]
    assert finding.status is Status.OK
    assert "by its power cap, which is normal under load, for 1.5 s" in finding.evidence


def test_memory_that_does_not_come_back_is_said(run: Run, machine: State) -> None:
    command = run("--main-benchmark-duration", "2s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with machine.edit() as shared:
        shared.gpus[0].gpu_instances[1].memory_used_bytes += 500 << 20
        shared.gpus[0].gpu_instances[2].memory_used_bytes += 8 << 20
    record = command.expect(0)
    (violated,) = [one for one in record.device_guards if one.status is not Status.OK]
    assert (violated.guard, violated.scope) == ("memory_returned", machine.slice_uuids()[1])
    assert (violated.before, violated.after) == ("13.0 MiB", "513.0 MiB")
    assert record.notes == (f"Slice {violated.scope} has 500.0 MiB more in use than before the run.",)


@pytest.mark.parametrize(
    ("without", "guard", "says"),
    [
        (("nvmlEventSetCreate",), "no_fault_reported", "the driver does not report Xid, double-bit ECC, GPU"),
        (("nvmlEventSetWait_v2",), "no_fault_reported", "the driver does not report Xid, double-bit ECC, GPU"),
        (("nvmlDeviceGetFieldValues",), "not_slowed_down", "does not count slowdowns by heat and its power brake"),
        (("nvmlDeviceGetMemoryInfo",), "memory_returned", "the device does not show its memory"),
    ],
)
def test_what_an_old_library_cannot_tell_is_not_observable(
    run: Run, build_library: Build, without: tuple[str, ...], guard: str, says: str
) -> None:
    command = run(library=build_library(*without))
    record = command.expect(0)
    blind = [one for one in record.device_guards if one.status is not Status.OK]
    assert {(one.guard, one.status) for one in blind} == {(guard, Status.NOT_OBSERVABLE)}
    assert all(says in one.evidence for one in blind)
    assert f"{guard.replace('_', ' ')}: not observable on" in " ".join(command.finish().stdout.split())


def test_types_of_events_that_are_not_offered_are_named(run: Run, machine: State) -> None:
    with machine.edit() as shared:
        shared.gpus[0].supported_events = XID
    record = run().expect(0)
    (finding,) = [one for one in record.device_guards if one.status is not Status.OK]
    assert finding.evidence == "the driver does not report double-bit ECC, GPU unavailable; listened to Xid"


def test_while_the_sampler_was_lost_nobody_listened(run: Run, machine: State) -> None:
    command = run("--main-benchmark-duration", "8s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    hang = machine.inject("nvmlDeviceGetMigMode", sleep_s=600, times=1)
    until(lambda: hang.hits, "it hangs")
    record = command.expect(0)
    (finding,) = [one for one in record.device_guards if one.guard == "no_fault_reported"]
    assert finding.status is Status.NOT_OBSERVABLE
    assert "nobody listened until a lost sampler was replaced" in finding.evidence


def test_the_lost_gpu_that_is_asked_for_is_refused_and_the_others_run(run: Run, machine: State) -> None:
    machine.lose(0)
    run("--gpu", "0").expect(7, "NVML cannot read GPU 0: it says 'GPU is lost'")
    record = run().expect(0)
    assert [worker.slice_uuid for worker in record.workers] == machine.slice_uuids(1)[:2]
    (note,) = record.notes
    assert note.startswith("No run can use it: NVML cannot read GPU 0")
    assert run("--gpu", "1").expect(0).gpus[0].uuid == machine.gpu_uuid(1)


def test_a_slice_is_known_by_its_older_name(run: Run, machine: State) -> None:
    record = run("--main-slice", f"MIG-{machine.gpu_uuid(1)}/5/0").expect(0)
    assert record.workers[0].slice_uuid == machine.slice_uuids(1)[2]
