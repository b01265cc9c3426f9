"""What `heteromig mig` does around a change: locks, signals, where journals are."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError, UsageError
from heteromig.slices import nvml
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.mig import access
from heteromig.slices.mig.access import (
    Machine,
    apply_layout,
    close_journal,
    journal_of,
    machine_of,
    open_journals,
    plan_layout_on,
    show_gpus,
)
from heteromig.slices.mig.journal import JournalFile, journal_directory
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.source import parse_slices
from tests.slices.conftest import Spawn
from tests.slices.mig.bench import Bench, failing

FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"

HESITANT = """
import sys
from pathlib import Path
from heteromig.slices.mig import access
from tests.slices.mig.bench import tampered

real_open = access.open_library

def open_library(*args):
    library = real_open(*args)
    destroy, count = library.nvmlGpuInstanceDestroy, 0
    def hesitate(handle):
        nonlocal count
        count += 1
        if count == 2:
            print("here", flush=True)
            sys.stdin.readline()
        return destroy(handle)
    return tampered(library, nvmlGpuInstanceDestroy=hesitate)

access.open_library = open_library
access.apply_layout(access.machine_of(sys.argv[1], Path(sys.argv[2])), None, "4g.24gb", None, enable_mig_mode=False)
"""
"""Applies a layout, and waits for a line on its input before it destroys the second GPU instance."""


def machine_at(bench: Bench) -> Machine:
    return machine_of(bench.slices, bench.runs_dir)


def apply(bench: Bench, layout: str, journal: Path | None = None) -> JournalFile:
    _, path = apply_layout(machine_at(bench), None, layout, journal, enable_mig_mode=False)
    return JournalFile(path)


def hesitate(bench: Bench, spawn: Spawn) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", HESITANT, bench.slices, str(bench.runs_dir)]
    child = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    return child


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_half_way_takes_back_what_was_done(a30: Bench, spawn: Spawn, signum: signal.Signals) -> None:
    child = hesitate(a30, spawn)
    assert a30.cut != FOUR
    child.send_signal(signum)
    assert child.wait() == 128 + signum
    assert a30.cut == FOUR
    assert open_journals(machine_at(a30), None) == []


def test_a_second_process_waits_for_none_and_is_told_whose_turn_it_is(a30: Bench, spawn: Spawn) -> None:
    child = hesitate(a30, spawn)
    between = a30.cut
    with pytest.raises(PreflightError, match=rf"in use by another heteromig run \(pid {child.pid}\)"):
        apply(a30, "2x2g.12gb")
    (journal,) = open_journals(machine_at(a30), None)
    with pytest.raises(PreflightError, match=f"pid {child.pid}"):
        close_journal(journal, forget=False, enable_mig_mode=False)
    assert a30.cut == between
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert child.wait() == 0
    assert a30.cut == "4g.24gb@0"


def test_what_a_killed_process_left_is_cut_back(a30: Bench, spawn: Spawn) -> None:
    child = hesitate(a30, spawn)
    child.kill()
    child.wait()
    assert a30.cut != FOUR
    (journal,) = open_journals(machine_at(a30), a30.uuid)
    closed = close_journal(journal, forget=False, enable_mig_mode=False)
    assert closed.outcome is not None
    assert closed.outcome.changed
    assert a30.cut == FOUR
    assert close_journal(journal, forget=False, enable_mig_mode=False).outcome is None


def test_a_gpu_that_a_run_has_locked_is_not_cut(a30: Bench) -> None:
    source = parse_slices(a30.slices)
    held = lock_gpus([a30.uuid], lock_directory(source, a30.runs_dir))
    with closing(held), pytest.raises(PreflightError, match="in use by another heteromig run"):
        apply(a30, "4g.24gb")
    assert a30.cut == FOUR


def test_each_gpu_has_its_own_journal(tmp_path: Path) -> None:
    machine = machine_of("sim:2xa30", tmp_path)
    first, second = show_gpus(machine, None).gpus
    for gpu in ("1", first.gpu.uuid):
        apply_layout(machine, gpu, "2x2g.12gb", None, enable_mig_mode=False)
    assert [one.cut for one in show_gpus(machine, None).gpus] == ["2g.12gb@0,2g.12gb@2"] * 2
    (one,) = open_journals(machine, second.gpu.uuid)
    assert [file.path for file in open_journals(machine, "1")] == [one.path]
    assert len(open_journals(machine, None)) == 2
    close_journal(one, forget=False, enable_mig_mode=False)
    assert [one.cut for one in show_gpus(machine, None).gpus] == ["2g.12gb@0,2g.12gb@2", FOUR]
    assert [file.path for file in open_journals(machine, None)] != [one.path]
    assert len(open_journals(machine_of("sim:a30", tmp_path), None)) == 0


def test_one_gpu_is_chosen_only_where_there_is_one(tmp_path: Path) -> None:
    machine = machine_of("sim:2xa30", tmp_path)
    with pytest.raises(UsageError, match=r"choose it with --gpu, of 0 \(Simulated A30, SIM-GPU-.*\), 1 \("):
        plan_layout_on(machine, None, "4g.24gb")
    for wanted in ("2", "GPU-none", ""):
        with pytest.raises(UsageError, match=f"--gpu {wanted} is none of the GPUs"):
            plan_layout_on(machine, wanted, "4g.24gb")
    assert plan_layout_on(machine, "1", "4g.24gb").index == 1
    assert not list(tmp_path.iterdir())


def test_a_run_directory_has_its_journal_in_it(a30: Bench) -> None:
    run_dir = a30.runs_dir / "a run"
    run_dir.mkdir()
    assert apply(a30, "4g.24gb", run_dir).path == run_dir / "layout.json"
    assert open_journals(machine_at(a30), None) == []
    journal = journal_of(run_dir)
    assert journal.path == journal_of(run_dir / "layout.json").path
    assert close_journal(journal, forget=False, enable_mig_mode=False).outcome is not None
    assert a30.cut == FOUR
    with pytest.raises(UsageError, match=r"There is no journal of a layout at .*/nowhere"):
        journal_of(a30.runs_dir / "nowhere")


def test_a_run_on_top_of_a_layout_goes_back_to_the_layout_first(a30: Bench) -> None:
    outer = apply(a30, "2x2g.12gb")
    run_dir = a30.runs_dir / "run"
    run_dir.mkdir()
    inner = apply(a30, "4g.24gb", run_dir)
    close_journal(inner, forget=False, enable_mig_mode=False)
    assert a30.cut == "2g.12gb@0,2g.12gb@2"
    close_journal(outer, forget=False, enable_mig_mode=False)
    assert a30.cut == FOUR


def test_a_journal_that_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    machine = machine_of("sim:2xa30", tmp_path)
    for gpu in ("0", "1"):
        apply_layout(machine, gpu, "4g.24gb", None, enable_mig_mode=False)
    (first, _) = show_gpus(machine, None).gpus
    assert first.journal is not None
    Path(first.journal.path).write_text("{}")
    (first, second) = show_gpus(machine, None).gpus
    assert (first.cut, second.cut) == ("4g.24gb@0", "4g.24gb@0")
    assert first.unknown is not None
    assert "it was altered" in first.unknown
    assert first.journal is None
    assert second.journal is not None
    assert len(open_journals(machine, None)) == 2
    assert len(open_journals(machine, second.gpu.uuid)) == 1


def test_a_gpu_shows_how_it_may_be_cut_and_by_whom_it_was(a30: Bench) -> None:
    (before,) = show_gpus(machine_at(a30), None).gpus
    assert (before.cut, before.unknown, before.journal) == (FOUR, None, None)
    assert {device.uuid: device.start for device in before.devices} == {
        uuid: start for start, uuid in enumerate(a30.uuids.values())
    }
    assert before.profiles is not None
    assert {profile.name for profile in before.profiles} == {"1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.24gb"}
    journal = apply(a30, "4g.24gb")
    (after,) = show_gpus(machine_at(a30), "0").gpus
    assert after.cut == "4g.24gb@0"
    assert after.journal is not None
    assert (after.journal.path, after.journal.progress, after.journal.before) == (str(journal.path), "applied", FOUR)


def test_a_user_without_privileges_is_shown_what_there_is_to_see(a30: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = failing(a30.library, "nvmlDeviceGetGpuInstancePossiblePlacements", nvml.ERROR_NO_PERMISSION, times=99)
    monkeypatch.setattr(access, "open_library", lambda *_: denied)
    (shown,) = show_gpus(machine_at(a30), None).gpus
    assert (shown.cut, shown.profiles) == (None, None)
    assert [(device.profile, device.start, device.uuid) for device in shown.devices] == [
        ("1g.6gb", None, uuid) for uuid in a30.uuids.values()
    ]
    assert shown.unknown is not None
    assert "run it as root" in shown.unknown


def test_a_gpu_that_falls_off_the_bus_is_said_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_of("sim:2xa30", tmp_path)
    lost = failing(machine.open(), "nvmlDeviceGetMaxMigDeviceCount", nvml.ERROR_GPU_IS_LOST, times=1)
    monkeypatch.setattr(access, "open_library", lambda *_: lost)
    (first, second) = show_gpus(machine, None).gpus
    assert first.unknown is not None
    assert first.devices == ()
    assert len(second.devices) == 4


def test_a_plan_says_what_would_be_done_and_does_nothing(a30: Bench) -> None:
    planned = plan_layout_on(machine_at(a30), None, "2g.12gb@0,2x1g.6gb")
    assert (partition_text(planned.present), partition_text(planned.wanted)) == (FOUR, "2g.12gb@0,1g.6gb@2,1g.6gb@3")
    assert [str(step) for step in planned.steps] == [
        "destroy a compute instance of 1g.6gb@0",
        "destroy a compute instance of 1g.6gb@1",
        "destroy the GPU instance 1g.6gb@0",
        "destroy the GPU instance 1g.6gb@1",
        "make the GPU instance 2g.12gb@0",
        "make a compute instance of 2g.12gb@0",
    ]
    assert list(a30.runs_dir.iterdir()) == []


def test_a_layout_out_of_a_file_is_for_the_index_and_the_model_of_the_gpu(tmp_path: Path) -> None:
    file = tmp_path / "layouts.json"
    file.write_text(
        '{"version": "v1", "mig-configs": {"x": ['
        '{"device-filter": "0x20B710DE", "devices": [1], "mig-enabled": true, "mig-devices": {"2g.12gb": 2}},'
        '{"device-filter": "0x233010DE", "devices": "all", "mig-enabled": true, "mig-devices": {"7g.80gb": 1}}]}}'
    )
    machine = machine_of("sim:2xa30;h100-sxm-80gb", tmp_path)
    assert partition_text(plan_layout_on(machine, "1", f"{file}:x").wanted) == "2g.12gb@0,2g.12gb@2"
    assert partition_text(plan_layout_on(machine, "2", f"{file}:x").wanted) == "7g.80gb@0"
    with pytest.raises(UsageError, match="says nothing of GPU 0"):
        plan_layout_on(machine, "0", f"{file}:x")


@pytest.mark.parametrize("slices", ["gpu", "mps:7x14"])
def test_only_mig_is_cut(slices: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is about GPUs without MIG"):
        machine_of(slices, tmp_path)


def test_journals_of_real_gpus_are_where_only_their_user_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parse_slices("mig")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert journal_directory(real, tmp_path) == Path("/var/lib/heteromig/layouts")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert journal_directory(real, Path("elsewhere")) == tmp_path / "heteromig" / "layouts"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert journal_directory(real, tmp_path) == Path("/home/somebody/.local/state/heteromig/layouts")
    assert journal_directory(parse_slices("sim:a30"), tmp_path) == tmp_path / ".layouts"
