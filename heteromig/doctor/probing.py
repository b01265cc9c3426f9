"""The controller's end of the probe: it is listened to until it has finished, or for as long as it may take."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.units import NS_PER_MS, NS_PER_S
from heteromig.doctor import facts
from heteromig.doctor.facts import GpuFacts, Opened
from heteromig.doctor.findings import Latency
from heteromig.slices.source import SliceSource
from heteromig.workers.spawn import Helper, spawn_helper

LIMIT_S = 10.0
"""How long the devices may take to answer everything: with eight GPUs it is less than 2 s where the driver is well."""

_CHUNK_BYTES = 1 << 16


class Stuck(Struct, frozen=True):
    """A call that did not come back, and how long it had been waited for when that was given up."""

    call: str
    waited_s: float


class Probed(Struct, frozen=True):
    """What the probe has told. What is not known is None, or missing from the end; `stuck` or `crash` then says why."""

    opened: Opened | None = None
    refusal: str | None = None
    inventory: Inventory | None = None
    sample: DeviceSample | None = None
    why_blind: str = ""
    gpus: tuple[GpuFacts, ...] = ()
    latencies: tuple[Latency, ...] = ()
    lacking: tuple[str, ...] = ()
    concluded: bool = False
    calling: str = ""
    stuck: Stuck | None = None
    crash: str | None = None

    def after(self, message: facts.Message) -> Probed:  # noqa: PLR0911 - one arm a message
        """The same and one more message."""
        replace = msgspec.structs.replace
        match message:
            case facts.Calling():
                return replace(self, calling=message.call)
            case facts.Opened():
                return replace(self, opened=message)
            case facts.Refused():
                return replace(self, refusal=message.message)
            case facts.Discovered():
                return replace(self, inventory=message.inventory)
            case facts.Sampled():
                return replace(self, sample=message.sample, why_blind=message.why_blind)
            case facts.GpuRead():
                return replace(self, gpus=(*self.gpus, message.facts))
            case facts.Concluded():
                return replace(self, latencies=message.latencies, lacking=message.lacking, concluded=True)


def probe(source: SliceSource, runs_dir: Path, gpu: str | None = None, *, limit_s: float = LIMIT_S) -> Probed:
    """Look at the devices from a child process, for that long at most.

    Raises:
        PreflightError: no child process can be started.
    """
    argv = (
        *(sys.executable, "-m", "heteromig.doctor.probe"),
        *("--slices", str(source), "--runs-dir", str(runs_dir.absolute())),
        *(() if gpu is None else (f"--gpu={gpu}",)),
    )
    with tempfile.TemporaryDirectory(prefix="heteromig-doctor-") as directory:
        # In a directory of our own: `python -m` looks for modules in the current one first.
        errors = Path(directory, "probe.log")
        with contextlib.closing(spawn_helper(argv, stderr=errors, cwd=Path(directory))) as helper:
            found = _listen(helper, time.monotonic_ns() + round(limit_s * NS_PER_S))
        if found.concluded or found.stuck is not None or found.crash is not None:
            return found
        said = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
        return msgspec.structs.replace(found, crash=said[-1] if said else "it said nothing")


def _listen(helper: Helper, until_ns: int) -> Probed:
    found, text = Probed(), b""
    called_ns = time.monotonic_ns()
    poll = select.poll()
    poll.register(helper.stdout, select.POLLIN)
    while not found.concluded:
        remaining_ns = until_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            waited_s = (time.monotonic_ns() - called_ns) / NS_PER_S
            return msgspec.structs.replace(found, stuck=Stuck(found.calling, waited_s))
        if not poll.poll(remaining_ns / NS_PER_MS):
            continue
        chunk = os.read(helper.stdout.fileno(), _CHUNK_BYTES)
        if not chunk:
            return found
        *lines, text = (text + chunk).split(b"\n")
        for line in lines:
            try:
                found = found.after(facts.decode_line(line))
            except msgspec.DecodeError as error:
                return msgspec.structs.replace(found, crash=f"it said something unreadable ({error})")
            called_ns = time.monotonic_ns()
    return found
