"""What befalls the devices: faults that the simulator rehearses, NVML's errors, strangers, the sampler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pynvml

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.slices.access import enumerate_slices
from tests.e2e.product import BOARD, processes_with, until
from tests.faults.cells import VALID, Act, Cell, Kind, cell, failed, inconclusive
from tests.faults.stage import Stage
from tests.nvml_library.runs import stranger
from tests.nvml_library.state import XID

TOPIC = "device"
BUILDING, STARTING, BUFFERING, RUNNING, DRAINING = (
    Phase.BUILDING,
    Phase.BACKGROUND_STARTING,
    Phase.BUFFERING,
    Phase.MAIN_RUNNING,
    Phase.DRAINING,
)
REHEARSED = ("--sim-faults", "faults.json", "--sample-period", "100ms")
SECONDS = ("--main-benchmark-duration", "3s", "--sample-period", "100ms")
WAITING = ("--background-benchmark-duration", "6s", "--end-time-buffer-min", "0")


def _rehearse(fault: str) -> Callable[[Stage], None]:
    return lambda stage: stage.write("faults.json", fault)


def _rehearsals() -> Iterator[Cell]:
    xid = Act("Xid 79", strike=_rehearse('{"xid": 79}'), flags=REHEARSED)
    lost = Act("the GPU is lost", strike=_rehearse('{"gpu_lost": true}'), flags=REHEARSED)
    recut = Act("the geometry is changed", strike=_rehearse('{"geometry_changed": true}'), flags=REHEARSED)
    for phase in (BUILDING, STARTING, BUFFERING, RUNNING, DRAINING):
        yield cell(TOPIC, xid, phase, failed(7, "Xid 79"), fast=phase is RUNNING)
        yield cell(TOPIC, lost, phase, failed(7, "any more: it says 'GPU is lost'"))
        if phase is not DRAINING:
            said = f"changed during {phase.value}: somebody else reconfigured it"
            yield cell(TOPIC, recut, phase, failed(7, said), fast=phase is BUFFERING)
    # How a GPU is cut is guarded until draining begins.
    yield cell(TOPIC, Act(recut.words, strike=recut.strike, flags=(*REHEARSED, *WAITING)), DRAINING, VALID)


def _slices(stage: Stage) -> list[str]:
    inventory, _ = enumerate_slices(BOARD, stage.runs, None, activity=False)
    return [place.uuid for place in inventory.slices]


def _come(stage: Stage) -> None:
    """A process of somebody else, on main's slice."""
    uuid = _slices(stage)[0] if stage.cell.kind is Kind.QUICK else stage.machine.slice_uuids()[0]
    visit: AbstractContextManager[int] = stranger(uuid)
    stage.keep(visit)
    stage.struck()


def _leave(stage: Stage) -> None:
    stage.let_go()


def _foreign() -> Iterator[Cell]:
    words, says = "a foreign process comes to main's slice", "is used by a process that is not part of this run"
    act = Act(words, strike=_come, after=_leave, flags=("--sample-period", "100ms"))
    yield cell(TOPIC, Act("a foreign process is there", before=_come, after=_leave), Phase.DISCOVERING, failed(7, says))
    for phase in (BUILDING, STARTING, BUFFERING, RUNNING):
        yield cell(TOPIC, act, phase, failed(7, says), fast=phase is RUNNING)
    by_nvml = Act(f"{words}, as NVML tells", strike=_come, after=_leave)
    yield cell(TOPIC, by_nvml, RUNNING, failed(7, says), kind=Kind.MIG)


def _on_mains_slice(stage: Stage) -> None:
    stage.environ["QUICK_SLICE"] = _slices(stage)[0]


def _misplaced() -> Iterator[Cell]:
    yield cell(
        TOPIC,
        Act("a background runs on main's slice", before=_on_mains_slice),
        STARTING,
        failed(7, "Background 1 (dlrm) runs on slice"),
    )
    yield cell(
        TOPIC,
        Act(
            "a background runs on no slice",
            environ={"QUICK_SLICE": "SIM-MIG-none"},
            flags=("--background-start-timeout", "1500ms"),
        ),
        STARTING,
        failed(6, "none, but the device guards did not hold"),
    )


def sampler(stage: Stage) -> int:
    found: list[int] = []

    def look() -> bool:
        here = processes_with(str(stage.home)).items()
        found.extend(pid for pid, command in here if "heteromig.slices.sampler" in command)
        return bool(found)

    until(look, "there is a sampler")
    return found[0]


def _signal_sampler(signum: int) -> Callable[[Stage], None]:
    return lambda stage: os.kill(sampler(stage), signum)


def _kill_twice(stage: Stage) -> None:
    os.kill(sampler(stage), signal.SIGKILL)
    stage.run.wait_for(ev.SamplerLost)
    os.kill(sampler(stage), signal.SIGKILL)


def _sampler() -> Iterator[Cell]:
    killed = Act("the sampler is SIGKILLed", strike=_signal_sampler(signal.SIGKILL))
    yield cell(TOPIC, killed, Phase.DISCOVERING, VALID)
    yield cell(TOPIC, Act(killed.words, strike=killed.strike, flags=("--start-time-buffer", "2s")), BUFFERING, VALID)
    yield cell(TOPIC, Act(killed.words, strike=killed.strike, flags=SECONDS), RUNNING, VALID, fast=True)
    yield cell(
        TOPIC,
        Act("the sampler is SIGKILLed, and its successor", strike=_kill_twice, flags=SECONDS),
        RUNNING,
        inconclusive("The devices could not be observed from main-running on: It was restarted once"),
        fast=True,
    )
    yield cell(
        TOPIC,
        Act("the sampler is SIGKILLed, and its successor", strike=_kill_twice, flags=("--start-time-buffer", "3s")),
        BUFFERING,
        inconclusive("The devices could not be observed from buffering on: It was restarted once"),
    )
    yield cell(
        TOPIC,
        Act(
            "the sampler is stopped (SIGSTOP)",
            strike=_signal_sampler(signal.SIGSTOP),
            flags=("--main-benchmark-duration", "8s", "--sample-period", "100ms"),
        ),
        RUNNING,
        VALID,
    )


FIRST_CALL, A_CALL = "nvmlInitWithFlags", "nvmlDeviceGetMigMode"
AT_FIRST = ("DRIVER_NOT_LOADED", "NO_PERMISSION", "LIB_RM_VERSION_MISMATCH", "TIMEOUT", "UNKNOWN")
MEANWHILE = ("GPU_IS_LOST", "RESET_REQUIRED", "TIMEOUT", "UNKNOWN", "NO_PERMISSION", "MEMORY", "UNINITIALIZED")


def _inject(call: str, name: str) -> Callable[[Stage], None]:
    code = getattr(pynvml, f"NVML_ERROR_{name}")
    return lambda stage: _ignore(stage.machine.inject(call, code))


def _ignore(_made: object) -> None:
    """Nobody asks how often it struck."""


def _slow(stage: Stage) -> None:
    stage.machine.inject("nvmlDeviceGetPowerUsage", sleep_s=0.3)


def _hang(stage: Stage) -> None:
    stage.machine.inject(A_CALL, sleep_s=600, times=1)


def _post_xid(stage: Stage) -> None:
    stage.machine.post(XID, 79)


def _remake(stage: Stage) -> None:
    stage.machine.remake(stage.machine.slice_uuids()[3])


def _pending(stage: Stage) -> None:
    with stage.machine.edit() as machine:
        machine.gpus[0].mig_pending = 0


def _nvml() -> Iterator[Cell]:
    for name in AT_FIRST:
        yield cell(
            TOPIC,
            Act(f"NVML answers {name} at first", before=_inject(FIRST_CALL, name)),
            Phase.DISCOVERING,
            failed(7),
            kind=Kind.MIG,
        )
    for name in MEANWHILE:
        yield cell(
            TOPIC,
            Act(f"NVML answers {name} from now on", strike=_inject(A_CALL, name), flags=SECONDS),
            RUNNING,
            failed(7),
            kind=Kind.MIG,
            fast=name == "GPU_IS_LOST",
        )
    yield cell(TOPIC, Act("NVML is slow", before=_slow), Phase.DISCOVERING, VALID, kind=Kind.MIG)
    yield cell(
        TOPIC,
        Act("NVML hangs", strike=_hang, flags=("--main-benchmark-duration", "8s")),
        RUNNING,
        VALID,
        kind=Kind.MIG,
    )
    yield cell(TOPIC, Act("Xid 79 is posted", strike=_post_xid), RUNNING, failed(7, "Xid 79"), kind=Kind.MIG)
    yield cell(
        TOPIC,
        Act("a slice is made anew", strike=_remake),
        RUNNING,
        failed(7, "changed during main-running"),
        kind=Kind.MIG,
    )
    yield cell(
        TOPIC,
        Act("the MIG mode is to be turned off", strike=_pending),
        RUNNING,
        failed(7, "is not settled any more"),
        kind=Kind.MIG,
    )


CELLS: tuple[Cell, ...] = (*_rehearsals(), *_foreign(), *_misplaced(), *_sampler(), *_nvml())
