"""The controller's end of the sampler process: its messages as events, and the watch over its silence."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import msgspec

from heteromig.core import events as ev
from heteromig.core.errors import HeteromigError
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs
from heteromig.runner.rundir import SAMPLER_LOG
from heteromig.slices import messages
from heteromig.slices.lines import LINE_BYTES_MAX
from heteromig.workers.spawn import Helper, spawn_helper

SILENCE_LIMIT_S = 5.0
"""A sampler that says nothing for that long is abandoned: a call into the driver hangs."""

STARTUP_LIMIT_S = 20.0
"""Until its first message: loading and enumerating may take a while on a machine with many GPUs."""

PATIENT_PERIODS = 5
"""With a long period, silence is measured in periods."""


class SamplerLink:
    """One sampler at a time; a lost one is replaced once."""

    def __init__(
        self,
        *,
        slices: str,
        runs_dir: str,
        run_dir: Path,
        period_ms: int,
        cpus: tuple[int, ...],
        faults: str | None,
        whole_host: bool = False,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        self._argv = (
            sys.executable, "-m", "heteromig.slices.sampler",
            "--slices", slices,
            "--runs-dir", str(Path(runs_dir).absolute()),
            "--period-ms", str(period_ms),
            *(("--sim-faults", faults) if faults else ()),
            *(("--whole-host",) if whole_host else ()),
        )  # fmt: skip
        self._cpus = cpus
        self._allowed = tuple(sorted(os.sched_getaffinity(0)))
        self._log = run_dir / SAMPLER_LOG
        self._run_dir = run_dir
        self._silence_limit_ns = max(round(silence_limit_s * NS_PER_S), PATIENT_PERIODS * period_ms * NS_PER_MS)
        self._helper: Helper | None = None
        self._text = b""
        self._discovered = False
        self._lost = 0
        self._silent_since_ns: MonotonicNs = 0
        self._heard_since_start = False

    @property
    def fd(self) -> int | None:
        """To wait for; None while there is no sampler. It is another one after a restart."""
        return None if self._helper is None else self._helper.stdout.fileno()

    @property
    def pid(self) -> int | None:
        """The sampler's pid."""
        return None if self._helper is None else self._helper.pid

    def start(self, at_ns: MonotonicNs, *, gpu: str | None = None) -> list[ev.AnyEvent]:
        """Start a sampler; its first message is the inventory. `gpu` is the UUID of the one that is shared."""
        if gpu is not None:
            self._argv = (*self._argv, "--gpu", gpu)
        self._text = b""
        self._silent_since_ns = at_ns
        self._heard_since_start = False
        try:
            # In a directory of our own: `python -m` looks for modules in the current one first, and the user's may
            # hold a random.py.
            first = () if self._lost else ("--probe-pids",)  # a later one would find, or disturb, what is measured
            self._helper = spawn_helper((*self._argv, *first), stderr=self._log, cpus=self._cpus, cwd=self._run_dir)
        except HeteromigError as error:
            return [ev.SamplerLost(at_ns=at_ns, restarted=False, message=str(error))]
        os.set_blocking(self._helper.stdout.fileno(), False)
        return []

    def request(self) -> None:
        """Ask for a sample now."""
        if self._helper is not None:
            with contextlib.suppress(OSError):  # a dead sampler is noticed by the end of its output
                os.write(self._helper.stdin.fileno(), b"s")

    def read(self, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        """Everything it said since the last call; the end of its output means that it died."""
        found: list[ev.AnyEvent] = []
        while (helper := self._helper) is not None:
            try:
                chunk = os.read(helper.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return found
            if not chunk:
                return [*found, *self._replace(at_ns, f"the sampler ended; see {self._log}.")]
            self._silent_since_ns = at_ns
            self._heard_since_start = True
            *lines, self._text = (self._text + chunk).split(b"\n")
            for line in lines:
                found.extend(self._event(line, at_ns))
                if self._helper is not helper:
                    break  # what else the one before said is of no interest, and must not cost the new one
            if self._helper is helper and len(self._text) > LINE_BYTES_MAX:
                found.extend(self._replace(at_ns, "the sampler said something unreadable (a line without an end)."))
        return found

    def check(self, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        """Abandon a sampler that has been silent for too long."""
        if self._helper is None or at_ns < self.deadline_ns:
            return []
        silence_s = (at_ns - self._silent_since_ns) / NS_PER_S
        return self._replace(at_ns, f"the sampler did not answer for {silence_s:.1f} s; the driver may hang.")

    @property
    def deadline_ns(self) -> MonotonicNs:
        """When to `check`; far away while there is no sampler."""
        if self._helper is None:
            return 1 << 62
        startup_limit_ns = round(STARTUP_LIMIT_S * NS_PER_S)
        return self._silent_since_ns + (self._silence_limit_ns if self._heard_since_start else startup_limit_ns)

    def close(self) -> None:
        """End the sampler."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _event(self, line: bytes, at_ns: MonotonicNs) -> list[ev.AnyEvent]:  # noqa: PLR0911 - one arm a message
        try:
            message = messages.decode_line(line)
        except msgspec.DecodeError as error:
            return self._replace(at_ns, f"the sampler said something unreadable ({error}).")
        match message:
            case messages.Discovered():
                if self._discovered:
                    return []  # after a restart: the inventory of this run stays what it was
                self._discovered = True
                return [ev.SlicesDiscovered(at_ns=at_ns, inventory=message.inventory, cpus=self._allowed)]
            case messages.Refused():
                self.close()
                if self._discovered:
                    return [ev.SamplerLost(at_ns=at_ns, restarted=False, message=message.message)]
                return [ev.DiscoveryFailed(at_ns=at_ns, message=message.message)]
            case messages.Sampled():
                return [ev.SampleTaken(at_ns=at_ns, sample=message.sample)]
            case messages.Faulted():
                return [ev.DeviceFaulted(at_ns=at_ns, message=message.message, gpu_uuid=message.gpu_uuid)]

    def _replace(self, at_ns: MonotonicNs, why: str) -> list[ev.AnyEvent]:
        """The sampler is lost: start another one, once."""
        self.close()
        self._lost += 1
        if self._lost > 1:
            return [ev.SamplerLost(at_ns=at_ns, restarted=False, message=f"It was restarted once, and {why}")]
        failed = self.start(at_ns)
        return failed or [ev.SamplerLost(at_ns=at_ns, restarted=True, message=f"It was restarted: {why}")]
