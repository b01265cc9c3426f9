"""The link to a sampler, with real sampler processes over simulated devices."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.runner import sampler_link
from heteromig.runner.sampler_link import SamplerLink

DEADLINE_S = 30.0


class Linked:
    """A link, and all that was heard over it."""

    def __init__(self, link: SamplerLink) -> None:
        self.link = link
        self.heard: list[ev.AnyEvent] = link.start(time.monotonic_ns())

    def until(self, condition: Callable[[list[ev.AnyEvent]], object]) -> list[ev.AnyEvent]:
        """Listen until `condition` holds for what was heard."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition(self.heard):
            assert time.monotonic() < deadline_s, self.heard
            if self.link.fd is not None:
                select.select([self.link.fd], [], [], 0.02)
                self.heard += self.link.read(time.monotonic_ns())
            self.heard += self.link.check(time.monotonic_ns())
        return self.heard

    def of(self, kind: type[ev.Event]) -> list[ev.AnyEvent]:
        return [event for event in self.heard if isinstance(event, kind)]

    def kill(self) -> None:
        assert self.link.pid is not None
        os.kill(self.link.pid, signal.SIGKILL)


def _has(kind: type[ev.Event], count: int = 1) -> Callable[[list[ev.AnyEvent]], bool]:
    return lambda heard: sum(isinstance(event, kind) for event in heard) >= count


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Callable[..., Linked]]:
    links: list[SamplerLink] = []

    def make(slices: str = "sim:a30", *, faults: Path | None = None, silence_limit_s: float = 5.0) -> Linked:
        link = SamplerLink(
            slices=slices,
            runs_dir=str(tmp_path),
            run_dir=tmp_path,
            period_ms=100,
            cpus=(),
            faults=str(faults) if faults else None,
            silence_limit_s=silence_limit_s,
        )
        links.append(link)
        return Linked(link)

    yield make
    for link in links:
        link.close()
        assert link.pid is None


def test_modules_in_the_users_directory_are_not_the_samplers(
    linked: Callable[..., Linked], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    for module in ("random", "select", "signal", "platform", "argparse", "msgspec"):
        (home / f"{module}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(home)
    assert linked().until(_has(ev.SampleTaken))


def test_inventory_comes_first_and_samples_follow(linked: Callable[..., Linked]) -> None:
    sampler = linked()
    first, *rest = sampler.until(_has(ev.SampleTaken, 2))
    assert isinstance(first, ev.SlicesDiscovered)
    assert len(first.inventory.slices) == 4
    assert first.cpus == tuple(sorted(os.sched_getaffinity(0)))
    assert all(isinstance(event, ev.SampleTaken) for event in rest)


def test_request_is_answered_at_once(linked: Callable[..., Linked]) -> None:
    sampler = linked()
    sampler.until(_has(ev.SampleTaken))
    before = len(sampler.of(ev.SampleTaken))
    for _ in range(5):
        sampler.link.request()
        sampler.until(_has(ev.SampleTaken, before + 1))
        before = len(sampler.of(ev.SampleTaken))


def test_refusal_says_what_to_do_and_needs_no_sampler(linked: Callable[..., Linked]) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    sampler = linked("mig")
    (refused,) = sampler.until(_has(ev.DiscoveryFailed))
    assert isinstance(refused, ev.DiscoveryFailed)
    assert "NVML" in refused.message
    assert sampler.link.fd is None
    assert sampler.link.check(1 << 62) == []
    assert sampler.link.read(0) == []
    sampler.link.request()  # to nobody


def test_dead_sampler_is_replaced_once(linked: Callable[..., Linked]) -> None:
    sampler = linked()
    sampler.until(_has(ev.SampleTaken))
    first_pid, first_fd = sampler.link.pid, sampler.link.fd
    sampler.kill()
    sampler.until(_has(ev.SamplerLost))
    assert sampler.link.pid != first_pid
    (lost,) = sampler.of(ev.SamplerLost)
    assert isinstance(lost, ev.SamplerLost)
    assert lost.restarted
    assert "the sampler ended; see" in lost.message
    assert first_fd is not None
    sampler.heard.clear()
    sampler.until(_has(ev.SampleTaken))
    assert sampler.of(ev.SlicesDiscovered) == []  # the inventory of a run stays what it was

    sampler.kill()
    sampler.until(_has(ev.SamplerLost))
    (lost,) = sampler.of(ev.SamplerLost)
    assert isinstance(lost, ev.SamplerLost)
    assert not lost.restarted
    assert lost.message.startswith("It was restarted once, and the sampler ended")
    assert sampler.link.fd is None
    assert sampler.link.deadline_ns > time.monotonic_ns() + 10**18


def test_silent_sampler_is_abandoned(linked: Callable[..., Linked], tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    sampler = linked(faults=faults, silence_limit_s=0.6)
    sampler.until(_has(ev.SampleTaken))
    hanging = sampler.link.pid
    faults.write_text('{"hang_s": 3600}')
    sampler.until(_has(ev.SamplerLost))
    (lost,) = sampler.of(ev.SamplerLost)
    assert isinstance(lost, ev.SamplerLost)
    assert lost.restarted
    assert "did not answer for" in lost.message
    assert not Path(f"/proc/{hanging}").exists()
    sampler.heard.clear()
    sampler.until(_has(ev.SampleTaken))


def test_starting_sampler_is_given_more_time(linked: Callable[..., Linked]) -> None:
    began_ns = time.monotonic_ns()
    sampler = linked(silence_limit_s=0.1)
    limit_ns = round(sampler_link.STARTUP_LIMIT_S * 1e9)
    assert sampler.link.deadline_ns >= began_ns + limit_ns
    sampler.until(_has(ev.SampleTaken))
    assert sampler.link.deadline_ns < time.monotonic_ns() + limit_ns


def test_fault_of_a_device_is_passed_on(linked: Callable[..., Linked], tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    sampler = linked(faults=faults)
    sampler.until(_has(ev.SampleTaken))
    faults.write_text('{"xid": 79}')
    sampler.until(_has(ev.DeviceFaulted))
    (fault,) = sampler.of(ev.DeviceFaulted)
    assert isinstance(fault, ev.DeviceFaulted)
    assert "Xid 79" in fault.message


def test_nonsense_costs_a_sampler_only_once(
    linked: Callable[..., Linked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that prints lines and lines of something else is one lost sampler, not two."""
    chatty = tmp_path / "chatty"
    chatty.write_text(
        f"#!{sys.executable} -IS\nprint('Traceback:\\n' * 50, flush=True)\nimport time\ntime.sleep(3600)\n"
    )
    chatty.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(chatty))
        sampler = linked()
    sampler.link._argv = (sys.executable, *sampler.link._argv[1:])  # the one that takes over is a good one
    sampler.until(_has(ev.SampleTaken))
    (lost,) = sampler.of(ev.SamplerLost)
    assert isinstance(lost, ev.SamplerLost)
    assert lost.restarted
    assert "said something unreadable" in lost.message


def test_sampler_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    link = SamplerLink(slices="sim:a30", runs_dir="r", run_dir=tmp_path, period_ms=100, cpus=(), faults=None)
    (lost,) = link.start(5)
    assert isinstance(lost, ev.SamplerLost)
    assert not lost.restarted
    assert "cannot be started" in lost.message
    assert link.fd is None
