"""What is found of the machine, from files as the kernel and the driver have them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from heteromig.core.devices import Gpu, Inventory, Slice, SliceKind
from heteromig.doctor.clients import about_clients, about_namespace, about_sharing, take_census
from heteromig.doctor.facts import Answer, GpuFacts, Health
from heteromig.doctor.findings import Finding, Status
from heteromig.doctor.host import about_clock, about_processors, about_runs_dir
from heteromig.doctor.kernel_log import LoggedXid, about_xids, find_xids
from heteromig.doctor.permissions import about_nodes
from heteromig.slices.source import parse_slices

NONE: Answer[int] = Answer(why="not asked")
GPU = Gpu(uuid="GPU-a", name="NVIDIA A30", driver="580", mig_current=True, mig_pending=True)


def facts(*, minor: int, pids: tuple[int, ...] = ()) -> GpuFacts:
    nothing: Answer[bool] = Answer(why="not asked")
    return GpuFacts(
        index=0,
        gpu=GPU,
        health=Health(
            minor=Answer(minor),
            bus_id=Answer("0000:0f:00"),
            whole_memory_bytes=NONE,
            whole_pids=Answer(pids),
            ecc_current=nothing,
            ecc_pending=nothing,
            uncorrected=NONE,
            uncorrected_ever=NONE,
            remapped=Answer(why="not asked"),
            retirement_pending=nothing,
            temperature_c=NONE,
            slowdown_c=NONE,
            power_mw=NONE,
            power_limit_mw=NONE,
            power_default_mw=NONE,
            throttle_reasons=NONE,
            persistence=nothing,
            compute_mode=NONE,
            activity=nothing,
            events=NONE,
        ),
    )


def process(proc: Path, pid: int, name: str, *files: str) -> None:
    descriptors = proc / str(pid) / "fd"
    descriptors.mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    for number, file in enumerate(files):
        (descriptors / str(number)).symlink_to(file)


def only(findings: list[Finding]) -> tuple[Status, str, str]:
    (one,) = findings
    return one.status, one.what, one.fix or ""


def test_who_has_a_gpu_open(tmp_path: Path) -> None:
    process(tmp_path, 11, "nv-hostengine", "/dev/null", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl")
    process(tmp_path, 12, "nvidia-persiste", "/dev/nvidia0")
    process(tmp_path, 13, "python", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0x")
    process(tmp_path, 14, "nvtop", "/dev/nvidia3")
    (tmp_path / "self").mkdir()
    census = take_census(tmp_path)
    assert [(one.pid, one.minors) for one in census.clients] == [(11, (0, 1)), (12, (0,)), (14, (3,))]
    status, what, fix = only(list(about_clients(census, (facts(minor=0),))))
    assert status is Status.WARNING
    assert "nv-hostengine (pid 11), nvidia-persiste (pid 12)" in what
    assert "nvtop" not in what  # which has another GPU open
    assert "sudo systemctl stop nvidia-dcgm" in fix


def test_the_persistence_daemon_is_expected(tmp_path: Path) -> None:
    process(tmp_path, 12, "nvidia-persiste", "/dev/nvidia0")
    status, what, _ = only(list(about_clients(take_census(tmp_path), ())))
    assert (status, "nvidia-persiste (pid 12)" in what) == (Status.OK, True)


def test_who_shares_a_gpu(tmp_path: Path) -> None:
    assert only(list(about_sharing(take_census(tmp_path))))[0] is Status.OK
    process(tmp_path, 21, "nvidia-cuda-mps")
    status, what, fix = only(list(about_sharing(take_census(tmp_path))))
    assert (status, "nvidia-cuda-mps (pid 21)" in what) == (Status.WARNING, True)
    assert "echo quit | nvidia-cuda-mps-control" in fix


def test_pids_in_a_container(tmp_path: Path) -> None:
    namespace = tmp_path / "self" / "ns"
    namespace.mkdir(parents=True)
    (namespace / "pid").touch()  # of another number than the host's
    (tmp_path / "1").mkdir()
    (tmp_path / "7").mkdir()
    status, what, fix = only(list(about_namespace((facts(minor=0, pids=(7, 8)),), tmp_path)))
    assert (status, "(1 of the 2 pids that NVML lists are not here)" in what) == (Status.WARNING, True)
    assert "--pid=host" in fix
    (namespace / "pid").unlink()
    assert only(list(about_namespace((), tmp_path)))[0] is Status.UNKNOWN


def test_processes_of_others_may_be_hidden(tmp_path: Path) -> None:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").touch()
    first, second = about_namespace((), tmp_path)
    assert (first.fix, second.status) == ("sudo mount -o remount,hidepid=0 /proc", Status.WARNING)


def sliced() -> Inventory:
    place = Slice(
        uuid="MIG-1", kind=SliceKind.MIG, profile="1g.6gb", gpu_uuid="GPU-a", gpu_instance_id=3, compute_instance_id=0
    )
    return Inventory(simulated=False, gpus=(GPU,), slices=(place,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with the devices of GPU 0 and of one slice."""
    caps = tmp_path / "proc/driver/nvidia-caps"
    caps.mkdir(parents=True)
    (caps / "mig-minors").write_text("config 1\nmonitor 2\ngpu0/gi3/access 30\ngpu0/gi3/ci0/access 31\n")
    (tmp_path / "dev/nvidia-caps").mkdir(parents=True)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31"):
        (tmp_path / "dev" / name).touch()
    return tmp_path


def test_device_files_of_slices(root: Path) -> None:
    status, what, _ = only(list(about_nodes(sliced(), (facts(minor=0),), root)))
    assert (status, what) == (Status.OK, "this user may open the 5 device files of the slices")
    (root / "dev/nvidia-caps/nvidia-cap31").unlink()
    status, what, fix = only(list(about_nodes(sliced(), (facts(minor=0),), root)))
    assert (status, "there is no /dev/nvidia-caps/nvidia-cap31" in what) == (Status.WARNING, True)
    assert "as root" in fix
    (root / "proc/driver/nvidia-caps/mig-minors").unlink()
    assert only(list(about_nodes(sliced(), (facts(minor=0),), root)))[0] is Status.UNKNOWN


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_device_files_that_are_not_for_this_user(root: Path) -> None:
    (root / "dev/nvidia-caps/nvidia-cap30").chmod(0)
    status, what, _ = only(list(about_nodes(sliced(), (facts(minor=0),), root)))
    assert (status, "may not open /dev/nvidia-caps/nvidia-cap30" in what) == (Status.WARNING, True)


XIDS = (
    b"4,1,2,-;NVRM: Xid (PCI:0000:0f:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n",
    b"6,2,3,-;usb 1-1: new device\n",
    b"4,3,4,-;NVRM: Xid (PCI:0000:0F:00): 31, pid=12, name=python, Ch 00000008, MMU Fault\n",
    b"4,4,5,-;NVRM: Xid (0000:10:00): 43, Ch 00000010\n",
)


def test_xids_are_found_in_the_log_of_the_kernel() -> None:
    assert list(find_xids(XIDS)) == [
        LoggedXid("0000:0f:00", 79),
        LoggedXid("0000:0f:00", 31),
        LoggedXid("0000:10:00", 43),
    ]


def test_xids_so_far(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_bytes(b"6,2,3,-;usb 1-1: new device\n")
    status, what, _ = only(list(about_xids((facts(minor=0),), log)))
    assert (status, "NVML keeps no history" in what) == (Status.OK, True)
    log.write_bytes(b"".join(XIDS))
    status, what, _ = only(list(about_xids((facts(minor=0),), log)))
    assert status is Status.WARNING
    assert "3 Xids, the last of them 79 on GPU 0, 31 on GPU 0, 43 on 0000:10:00" in what
    log.unlink()
    status, what, fix = only(list(about_xids((facts(minor=0),), log)))
    assert (status, fix) == (Status.UNKNOWN, "sudo dmesg | grep Xid")
    assert "not observable: NVML keeps no history of Xids" in what


def test_the_real_log_of_the_kernel_is_read_to_its_end_or_refused() -> None:
    assert only(list(about_xids(())))[0] in {Status.OK, Status.WARNING, Status.UNKNOWN}


def test_a_runs_directory_is_not_made(tmp_path: Path) -> None:
    status, what, _ = only(list(about_runs_dir(tmp_path / "new" / "runs")))
    assert (status, f"{tmp_path}/new/runs, " in what, "free" in what) == (Status.OK, True, True)
    assert list(tmp_path.iterdir()) == []


def test_a_runs_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    status, what, fix = only(list(about_runs_dir(tmp_path / "runs")))
    assert status is Status.PROBLEM
    assert what == (
        f"No run directory can be made in {tmp_path}/runs: Not a directory. Choose another place with --runs-dir."
    )
    assert fix == "Choose another place with --runs-dir."
    assert ": Not a directory. " in only(list(about_runs_dir(tmp_path / "runs" / "of" / "mine")))[1]


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        list(about_runs_dir(tmp_path))
        list(about_xids(()))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before


@pytest.mark.parametrize(("source", "status"), [("tsc", Status.OK), ("hpet", Status.WARNING)])
def test_the_clock(tmp_path: Path, source: str, status: Status) -> None:
    file = tmp_path / "sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert only(list(about_clock(tmp_path)))[0] is Status.UNKNOWN
    file.parent.mkdir(parents=True)
    file.write_text(f"{source}\n")
    found = only(list(about_clock(tmp_path)))
    assert (found[0], found[1].startswith(f"{source}, resolution ")) == (status, True)


def test_one_processor_is_few_for_a_simulation() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        simulated = only(list(about_processors(parse_slices("sim:a30"))))
        real = only(list(about_processors(parse_slices("mig"))))
    finally:
        os.sched_setaffinity(0, allowed)
    assert (simulated[0], real[0]) == (Status.WARNING, Status.OK)
    assert "main cannot have one for itself" in simulated[1]
