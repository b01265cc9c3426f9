"""`heteromig mig` over the real pynvml and the stand-in library, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.nvml_library.fixtures import Build, MakeState, environment
from tests.nvml_library.layout import KILL_AFTER, KILL_BEFORE
from tests.nvml_library.state import State
from tests.slices.conftest import Spawn, spawn
from tests.slices.waiting import until

__all__ = ["spawn"]

Mig = Callable[..., subprocess.CompletedProcess[str]]
Enter = Callable[..., State]

A30 = "a30/4x1g.6gb"
FOUR = [("1g.6gb", start, 1) for start in range(4)]


@pytest.fixture
def enter(make_state: MakeState, library_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Enter:
    """A machine that children of this test find as their NVML."""

    def make(*boards: str, library: Path = library_dir) -> State:
        state = make_state(*boards)
        for name, value in environment(library, state).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        return state

    return make


def mig(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "heteromig", "mig", *arguments),
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )


def apply(layout: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mig("apply", layout, "--journal", "journal.json", *arguments)


def restore(*arguments: str) -> subprocess.CompletedProcess[str]:
    return mig("restore", "journal.json", *arguments)


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(process: subprocess.CompletedProcess[str], code: int = 7) -> str:
    assert process.returncode == code, process
    assert "Traceback" not in process.stderr
    return process.stderr


def cut(state: State, gpu: int = 0) -> list[tuple[str, int, int]]:
    """Profile, start and number of compute instances of each GPU instance, by its start."""
    return sorted(
        ((profile, start, computes) for profile, _, start, computes in state.geometry(gpu)), key=lambda one: one[1]
    )


def mode(state: State, gpu: int = 0) -> tuple[int, int]:
    with state.edit() as machine:
        return machine.gpus[gpu].mig_current, machine.gpus[gpu].mig_pending


def test_there_and_back(enter: Enter) -> None:
    state = enter("a100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb", "a30")
    before, uuids = cut(state), state.slice_uuids()
    shown = json.loads(done(mig("show", "--json")))["gpus"]
    assert [device["uuid"] for device in shown[0]["devices"]] == [
        device["uuid"] for device in sorted(shown[0]["devices"], key=lambda one: uuids.index(one["uuid"]))
    ]
    assert {profile["name"] for profile in shown[0]["profiles"]} >= {"1g.10gb", "1g.10gb+me", "7g.80gb"}
    assert len(shown[1]["profiles"]) == 5
    done(apply("3g.40gb@4,4x1g.10gb", "--gpu", "0"))
    assert cut(state) == [("1g.10gb", start, 1) for start in range(4)] + [("3g.40gb", 4, 1)]
    outcome = json.loads(done(restore("--json")))["restored"][0]["outcome"]
    assert cut(state) == before
    assert {one["before"]: one["after"] for one in outcome["replaced"]}.keys() == set(uuids)
    assert {one["after"] for one in outcome["replaced"]} == set(state.slice_uuids())
    assert "was closed before" in done(restore())


@pytest.mark.parametrize("board", ["a30", "a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb"])
def test_every_board_can_be_cut_as_it_offers(enter: Enter, board: str) -> None:
    state = enter(f"{board}/")
    profiles = json.loads(done(mig("show", "--json")))["gpus"][0]["profiles"]
    for profile in profiles:
        wanted = f"{profile['max_instances']}x{profile['profile_id']}"
        done(apply(wanted))
        assert cut(state) == [(profile["name"], start, 1) for start in profile["starts"][: profile["max_instances"]]]
    done(restore())
    assert cut(state) == []


STEPS = [
    ("nvmlComputeInstanceDestroy", 0),
    ("nvmlComputeInstanceDestroy", 1),
    ("nvmlGpuInstanceDestroy", 0),
    ("nvmlGpuInstanceDestroy", 1),
    ("nvmlDeviceCreateGpuInstanceWithPlacement", 1),
    ("nvmlGpuInstanceCreateComputeInstance", 0),
]
"""Every call that takes four slices to a 2g.12gb in the place of two of them, and how many of its uses come before: the
first creation only asks whether there may be one."""
LAYOUT = "2g.12gb@2,2x1g.6gb"


@pytest.mark.parametrize(("call", "skip"), STEPS)
@pytest.mark.parametrize("action", [KILL_BEFORE, KILL_AFTER])
def test_what_a_killed_process_left_is_cut_back(enter: Enter, call: str, skip: int, action: int) -> None:
    state = enter(A30)
    state.inject(call, action=action, skip=skip, times=1)
    assert apply(LAYOUT).returncode == -signal.SIGKILL
    between = cut(state)
    assert (between == FOUR) == ((call, skip, action) == (*STEPS[0], KILL_BEFORE))
    done(restore())
    assert cut(state) == FOUR
    state.inject(call, action=action, skip=skip, times=1)
    apply(LAYOUT)
    done(apply(LAYOUT))
    assert cut(state) == [("1g.6gb", 0, 1), ("1g.6gb", 1, 1), ("2g.12gb", 2, 1)]
    state.inject("nvmlGpuInstanceDestroy", action=action, times=1)
    assert restore().returncode == -signal.SIGKILL
    done(restore())
    assert cut(state) == FOUR


@pytest.mark.parametrize(("call", "skip"), STEPS)
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (pynvml.NVML_ERROR_IN_USE, "stop what runs there"),
        (pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, "ask for less"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "run it as root"),
    ],
)
def test_a_step_that_is_refused_leaves_the_gpu_as_it_was(
    enter: Enter, call: str, skip: int, error: int, remedy: str
) -> None:
    state = enter(A30)
    state.inject(call, error, skip=skip, times=1)
    sentence = refused(apply(LAYOUT))
    assert remedy in sentence
    assert "The GPU is cut as it was before." in sentence
    assert cut(state) == FOUR


def test_a_user_who_may_not_cut_changes_nothing(enter: Enter) -> None:
    state = enter(A30)
    uuids = state.slice_uuids()
    state.deny()
    assert "run it as root" in refused(apply(LAYOUT))
    assert "run it as root" in done(mig("show"))
    assert all(uuid in done(mig("show")) for uuid in uuids)
    assert state.slice_uuids() == uuids
    assert not Path("journal.json").exists()


def test_a_gpu_in_use_is_not_cut(enter: Enter, spawn: Spawn) -> None:
    state = enter(A30)
    uuids = state.slice_uuids()
    child = spawn(visible=uuids[3])
    until(lambda: f"in use by pid {child.pid} (sleep 600)" in refused(apply("2g.12gb@0,2x1g.6gb")), "it is seen")
    assert state.slice_uuids() == uuids


def test_parts_of_instances_come_back(enter: Enter, connect: Callable[..., Any]) -> None:
    state = enter("h100-sxm-80gb/")
    remote = connect(state)
    gpu = remote.nvmlDeviceGetHandleByIndex(0)
    half = remote.nvmlDeviceCreateGpuInstance(gpu, 9)
    remote.nvmlGpuInstanceCreateComputeInstance(half, 0)
    remote.nvmlGpuInstanceCreateComputeInstance(half, 0)
    remote.nvmlDeviceCreateGpuInstance(gpu, 14)
    before = json.loads(done(mig("show", "--json")))["gpus"][0]["cut"]
    assert "(1c+1c)" in before
    assert "(no compute instance)" in before
    done(apply("7g.80gb"))
    done(restore())
    assert json.loads(done(mig("show", "--json")))["gpus"][0]["cut"] == before


def test_the_mig_mode(enter: Enter) -> None:
    state = enter("h100-sxm-80gb", "a100-sxm-80gb")
    assert "--enable-mig-mode" in refused(apply("7x1g.10gb", "--gpu", "0"))
    assert "takes a reset of the GPU, which heteromig never does" in refused(
        apply("7x1g.10gb", "--gpu", "1", "--enable-mig-mode")
    )
    assert (mode(state), mode(state, 1)) == ((0, 0), (0, 0))
    done(apply("7x1g.10gb", "--gpu", "0", "--enable-mig-mode"))
    assert (len(cut(state)), mode(state)) == (7, (1, 1))
    done(restore())
    assert (cut(state), mode(state)) == ([], (0, 0))
    with state.edit() as machine:
        machine.gpus[0].held_open = 1
    assert "cannot turn MIG on" in refused(apply("7x1g.10gb", "--gpu", "0", "--enable-mig-mode"))
    assert mode(state) == (0, 0)
    with state.edit() as machine:
        machine.gpus[0].mig_pending = 1
    assert "is off and will be on after a reset" in refused(apply("7x1g.10gb", "--gpu", "0", "--enable-mig-mode"))


def test_a_lost_gpu_is_said(enter: Enter) -> None:
    state = enter(A30)
    done(apply(LAYOUT))
    state.lose()
    assert "GPU is lost" in refused(restore())
    state.lose(lost=False)
    done(restore())
    assert cut(state) == FOUR


def test_what_somebody_else_has_cut_since_is_left_to_them(enter: Enter) -> None:
    state = enter(A30)
    done(apply(LAYOUT))
    state.recut("2x2g.12gb")
    assert "Somebody else has cut" in refused(restore())
    assert [profile for profile, _, _ in cut(state)] == ["2g.12gb"] * 2


@pytest.mark.parametrize(
    ("without", "layout"),
    [
        (("nvmlDeviceGetGpuInstanceProfileInfoV", "nvmlGpuInstanceGetComputeInstanceProfileInfoV"), "2x5"),
        (("nvmlGpuInstanceCreateComputeInstanceWithPlacement",), "2x2g.12gb"),
        (("nvmlDeviceGetMPSComputeRunningProcesses_v3",), "2x2g.12gb"),
    ],
)
def test_older_libraries_will_do(enter: Enter, build_library: Build, without: tuple[str, ...], layout: str) -> None:
    state = enter(A30, library=build_library(*without))
    done(apply(layout))
    assert [profile for profile, _, _ in cut(state)] == ["2g.12gb"] * 2
    done(restore())
    assert cut(state) == FOUR


@pytest.mark.parametrize(
    "without",
    [
        "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlComputeInstanceGetInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ],
)
def test_libraries_that_are_too_old_are_said_to_be(enter: Enter, build_library: Build, without: str) -> None:
    state = enter(A30, library=build_library(without))
    sentence = refused(apply(LAYOUT))
    assert "too old" in sentence
    assert cut(state) == FOUR
