from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.slices.messages import Discovered, Faulted, Message, Refused, Sampled, decode_line
from tests.slices.conftest import Spawn
from tests.slices.waiting import DEADLINE_S, until

ON_REQUEST_MS = 600_000


class Sampler:
    """The controller's side of one sampler process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self._unread = b""

    def hear(self) -> Message | None:
        """The next message, None at the end of the output."""
        deadline = time.monotonic() + DEADLINE_S
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"the sampler said nothing for {DEADLINE_S} s"
            chunk = os.read(self.stdout.fileno(), 1 << 16)
            if not chunk:
                assert not self._unread, f"its last line is cut short: {self._unread!r}"
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return decode_line(line)

    def inventory(self) -> Inventory:
        message = self.hear()
        assert isinstance(message, Discovered)
        return message.inventory

    def sample(self) -> DeviceSample:
        message = self.hear()
        assert isinstance(message, Sampled)
        return message.sample

    def ask(self) -> None:
        self.stdin.write(b"s")
        self.stdin.flush()

    def leave(self) -> int:
        """Close the lifeline; the exit status."""
        self.stdin.close()
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Sampler]


def argv(tmp_path: Path, *options: str, slices: str = "sim:a30", period_ms: int = ON_REQUEST_MS) -> list[str]:
    command = [sys.executable, "-m", "heteromig.slices.sampler", "--slices", slices, "--runs-dir", str(tmp_path)]
    return [*command, "--period-ms", str(period_ms), *options]


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path) -> Start:
    def begin(*options: str, stderr: int | None = None, **named: Any) -> Sampler:
        command = argv(tmp_path, *options, **named)
        return Sampler(spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr))

    return begin


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults.json"


def rehearse(path: Path, **what: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(what))
    fresh.replace(path)


def test_it_discovers_and_samples_at_once_and_ends_with_its_lifeline(start: Start, inventory: Inventory) -> None:
    before_ns = time.monotonic_ns()
    sampler = start()
    assert sampler.inventory() == inventory
    sample = sampler.sample()
    assert before_ns < sample.taken_ns < time.monotonic_ns()
    assert sample.geometry == inventory.geometry
    assert [one.slice_uuid for one in sample.slices] == [one.uuid for one in inventory.slices]
    assert sampler.leave() == 0
    assert sampler.hear() is None


def test_samples_stay_on_their_grid_even_after_a_slow_one(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults), period_ms=100)
    sampler.inventory()
    taken_ms = [sampler.sample().taken_ns / 1e6 for _ in range(5)]
    assert median(later - earlier for earlier, later in pairwise(taken_ms)) == pytest.approx(100, abs=25)
    rehearse(faults, hang_s=0.25)
    until(lambda: not faults.exists(), "it hangs")
    sampler.sample()
    late_ms = [sampler.sample().taken_ns / 1e6 - taken_ms[0] for _ in range(7)]
    # Half a period off would be the sign of deadlines counted from the last sample.
    assert median(abs(late - 100 * round(late / 100)) for late in late_ms) < 25


def test_a_request_is_answered_at_once(start: Start, inventory: Inventory, spawn: Spawn) -> None:
    sampler = start()
    sampler.inventory()
    first = sampler.sample()
    child = spawn(visible=inventory.slices[2].uuid)
    asked_ns = time.monotonic_ns()
    seen: list[int] = []
    while not seen:
        sampler.ask()
        sample = sampler.sample()
        assert sample.taken_ns > asked_ns > first.taken_ns
        seen = [occupant.pid for occupant in sample.slices[2].occupants or ()]
    assert seen == [child.pid]
    assert sampler.leave() == 0


def test_why_readings_are_missing_is_said_once(start: Start) -> None:
    sampler = start(slices="sim:h100-sxm-80gb/7g.80gb")
    inventory = sampler.inventory()
    first = sampler.sample()
    (missing,) = first.unavailable or ()
    assert (missing.scopes, missing.reason) == ((inventory.gpus[0].uuid,), "the simulator measures no such thing")
    sampler.ask()
    second = sampler.sample()
    while second.slices[0].activity is None:
        assert second.unavailable is None
        time.sleep(0.12)  # two samples of a counter are that far apart
        sampler.ask()
        second = sampler.sample()
    assert second.slices[0].activity.sm_percent == 0
    assert len(second.unavailable or ()) == 2  # now the counters that a simulated board lacks are known as well
    assert second.shared is None
    assert sampler.leave() == 0


def test_it_is_killed_when_its_parent_is_even_if_the_lifeline_stays_open(spawn: Spawn, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    lifeline, ours = os.pipe()
    try:
        parent = spawn([sys.executable, "-c", program, *argv(tmp_path)], stdin=lifeline, stdout=subprocess.PIPE)
        assert parent.stdout is not None
        sampler = int(parent.stdout.readline())
        until(lambda: b"sampler" in Path(f"/proc/{sampler}/cmdline").read_bytes(), "it executes")
        until(lambda: _ignores(sampler, signal.SIGINT), "it is set up")
        parent.kill()
        parent.wait()
        until(lambda: not _alive(sampler), "it is gone")
    finally:
        os.close(lifeline)
        os.close(ours)


def _alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _ignores(pid: int, signum: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) & 1 << (signum - 1))


def test_the_keyboard_does_not_end_it_and_term_does(start: Start) -> None:
    sampler = start()
    sampler.inventory()
    sampler.sample()
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        sampler.process.send_signal(signum)
    sampler.ask()
    sampler.sample()
    sampler.process.terminate()
    assert sampler.process.wait(DEADLINE_S) == -signal.SIGTERM


def test_it_ends_when_nobody_reads(start: Start) -> None:
    sampler = start()
    sampler.inventory()
    sampler.stdout.close()
    assert sampler.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("slices", "exit_code", "says"),
    [
        ("sim:a31", 2, "did you mean a30?"),
        ("sim:a30/5x1g.6gb", 2, "write 4x1g.6gb or less"),
        ("mps:7x14", 7, "NVML (libnvidia-ml.so.1) is not on this machine"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(start: Start, slices: str, exit_code: int, says: str) -> None:
    sampler = start(slices=slices)
    message = sampler.hear()
    assert isinstance(message, Refused)
    assert message.exit_code == exit_code
    assert says in message.message
    assert sampler.hear() is None
    assert sampler.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("slices", ["mig", "gpu"])
def test_without_nvml_real_slices_are_refused(start: Start, slices: str) -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has NVML")
    message = start(slices=slices).hear()
    assert isinstance(message, Refused)
    assert message.exit_code == 7
    assert "NVML (libnvidia-ml.so.1) is not on this machine" in message.message
    assert "--slices sim:a100-sxm-80gb" in message.message


def test_it_stays_on_the_processors_it_was_given(start: Start) -> None:
    cpu = min(os.sched_getaffinity(0))
    sampler = start("--cpus", str(cpu))
    sampler.inventory()
    assert os.sched_getaffinity(sampler.process.pid) == {cpu}
    message = start("--cpus", "100000").hear()
    assert isinstance(message, Refused)
    assert message.exit_code == 2
    assert sampler.leave() == 0


def test_a_gpu_that_is_lost_from_the_start_is_refused(start: Start, faults: Path) -> None:
    rehearse(faults, gpu_lost=True)
    sampler = start("--sim-faults", str(faults))
    message = sampler.hear()
    assert isinstance(message, Refused)
    assert message.exit_code == 7
    assert "GPU is lost" in message.message
    assert sampler.leave() == 0


def test_real_devices_do_not_rehearse(start: Start, faults: Path) -> None:
    message = start("--sim-faults", str(faults), slices="mig").hear()
    assert isinstance(message, Refused)
    assert message.exit_code == 2


@pytest.mark.parametrize("option", ["--period-ms=0", "--cpus=a", "--faults=x"])
def test_a_wrong_call_is_refused(start: Start, option: str) -> None:
    sampler = start(option, stderr=subprocess.PIPE)
    assert sampler.process.wait(DEADLINE_S) == 2
    assert sampler.process.stderr is not None
    assert option[:6].encode() in sampler.process.stderr.read()


def test_faults_are_said_once_and_the_lost_gpu_is_not_sampled(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults))
    inventory = sampler.inventory()
    sampler.sample()
    rehearse(faults, xid=31)
    sampler.ask()
    sampler.sample()
    rehearse(faults, xid=79)
    sampler.ask()
    message = sampler.hear()
    assert isinstance(message, Faulted)
    assert "Xid 79" in message.message
    sampler.sample()
    rehearse(faults, gpu_lost=True)
    sampler.ask()
    message = sampler.hear()
    assert isinstance(message, Faulted)
    assert "GPU is lost" in message.message
    assert inventory.gpus[0].uuid in message.message
    sampler.ask()
    until(lambda: _pending_bytes(sampler.process.stdin) == 0, "the second request was taken")
    rehearse(faults)
    sampler.ask()
    assert sampler.sample().geometry == inventory.geometry
    assert sampler.leave() == 0


def test_a_changed_geometry_is_in_the_next_sample_that_was_not_even_asked_for(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults), period_ms=20)
    inventory = sampler.inventory()
    assert sampler.sample().geometry == inventory.geometry
    rehearse(faults, geometry_changed=True)
    until(lambda: sampler.sample().geometry != inventory.geometry, "it notices")
    assert sampler.leave() == 0


def test_faults_that_cannot_be_understood_are_said(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults))
    sampler.inventory()
    sampler.sample()
    faults.write_text("xid = 79")
    sampler.ask()
    message = sampler.hear()
    assert isinstance(message, Faulted)
    assert "cannot be understood" in message.message
    assert sampler.leave() == 0


def test_it_can_die_and_its_successor_lives(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults))
    sampler.inventory()
    sampler.sample()
    rehearse(faults, die=True)
    sampler.ask()
    assert sampler.hear() is None
    assert sampler.process.wait(DEADLINE_S) == -signal.SIGKILL
    successor = start("--sim-faults", str(faults))
    successor.inventory()
    successor.sample()


def test_while_a_call_hangs_only_kill_ends_it(start: Start, faults: Path) -> None:
    sampler = start("--sim-faults", str(faults))
    sampler.inventory()
    sampler.sample()
    rehearse(faults, hang_s=600)
    sampler.ask()
    until(lambda: not faults.exists(), "it hangs")
    sampler.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        sampler.process.wait(0.3)
    sampler.process.kill()
    assert sampler.process.wait(DEADLINE_S) == -signal.SIGKILL


def _pending_bytes(pipe: Any) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0\0\0\0"))
    return int(count)


def test_a_controller_that_does_not_read_holds_up_nothing_and_loses_only_samples(
    start: Start, faults: Path, inventory: Inventory, spawn: Spawn
) -> None:
    for _ in range(20):  # so that a line is longer than the 4096 bytes which a pipe takes whole or not at all
        spawn(["sleep", "600", *["0"] * 120], visible=inventory.slices[0].uuid)
    sampler = start("--sim-faults", str(faults), period_ms=1)
    fcntl.fcntl(sampler.stdout, fcntl.F_SETPIPE_SZ, 4096)
    filled = [0, -1]

    def is_full() -> bool:
        time.sleep(0.1)
        filled.append(_pending_bytes(sampler.stdout))
        return filled[-1] == filled[-2] > 0

    until(is_full, "the pipe is full")
    rehearse(faults, xid=79)
    sampler.ask()
    until(lambda: _pending_bytes(sampler.stdin) == 0, "a request is still taken")
    time.sleep(0.2)  # for a hundred samples that nobody wants any more
    assert sampler.inventory() == inventory
    heard: list[Message | None] = []
    while not any(isinstance(message, Faulted) for message in heard):
        heard.append(sampler.hear())
    assert len(heard) < 20
    later = [sampler.sample() for _ in range(5)]
    assert all(len(sample.slices[0].occupants or ()) == 20 for sample in later)
    assert any(sample.unavailable for sample in later)  # what a lost one may have said is said again
    sampler.stdin.close()
    assert sampler.process.wait(DEADLINE_S) == 0
