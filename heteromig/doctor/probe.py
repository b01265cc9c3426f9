"""The process that asks the devices for `doctor`, so that a hanging driver cannot hang it.

`python -m heteromig.doctor.probe --slices SOURCE --runs-dir DIR [--gpu GPU]`

It writes messages (see `facts`) to its standard output and exits. Each call into NVML is announced before it is made,
so that whoever kills it knows which one did not come back. The first ones are those of a run: what they refuse, a run
would be refused. It is killed by the kernel when its parent dies.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from heteromig.core.devices import Inventory
from heteromig.core.errors import HeteromigError, PreflightError
from heteromig.core.units import NS_PER_S
from heteromig.doctor import facts
from heteromig.doctor.findings import Latency
from heteromig.doctor.reading import read_facts
from heteromig.doctor.watching import Watched, latency
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.libraries import open_library
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.nvml import NVMLError
from heteromig.slices.source import SliceSource, parse_slices
from heteromig.slices.telemetry import take_sample

SAMPLE = "sample"
"""What the latency of a whole reading is called."""

_STDOUT = 1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SAMPLES = 50
_MEASURING_S = 1.0
_REOPENED_EVERY = 10
_LISTS_PROCESSES = "nvmlDeviceGetComputeRunningProcesses"


class _Probe:
    """One look at the devices."""

    def __init__(self, source: SliceSource, runs_dir: Path, gpu: str | None) -> None:
        self._source = source
        self._gpu = gpu
        self._watched = Watched(open_library(source, runs_dir), lambda call: _say(facts.Calling(call)))
        self._library = cast("PartitionLibrary", self._watched)

    def look(self) -> None:
        """Say everything there is to say."""
        inventory = self._discover()
        latencies: tuple[Latency, ...] = ()
        with contextlib.suppress(NVMLError):  # no session, or it was lost, as it was said before
            for index in range(self._library.nvmlDeviceGetCount()):
                _say(facts.GpuRead(read_facts(self._watched, self._library, index, simulated=self._source.simulated)))
            measured = inventory or self._whole_gpus()
            if measured is not None:
                latencies = self._measure(measured)
        _say(facts.Concluded(latencies, self._watched.lacking))

    def _discover(self) -> Inventory | None:
        """What a run does first."""
        try:
            nvml.reopen(self._library)
            self._introduce()
            inventory = take_inventory(self._library, self._source, self._gpu)
        except HeteromigError as error:
            _say(facts.Refused(str(error)))
            return None
        except NVMLError as error:  # the sentence of `slices.sampler`
            _say(
                facts.Refused(
                    f"NVML cannot enumerate the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
                )
            )
            return None
        _say(facts.Discovered(inventory))
        try:
            sample = take_sample(self._library, inventory)
        except NVMLError as error:  # the same
            gpus = ", ".join(gpu.uuid for gpu in inventory.gpus)
            sentence = f"NVML cannot read the GPU any more ({gpus}): it says {str(error)!r}; see the kernel's log."
            _say(facts.Refused(sentence))
            return None
        _say(facts.Sampled(sample, self._watched.refused.get(_LISTS_PROCESSES, "")))
        return inventory

    def _introduce(self) -> None:
        driver = self._watched.ask("nvmlSystemGetDriverVersion")
        if self._source.simulated:
            nothing = "simulated"
            _say(facts.Opened(driver, facts.Answer(why=nothing), facts.Answer(why=nothing)))
            return
        version = self._watched.ask("nvmlSystemGetNVMLVersion")
        _say(
            facts.Opened(
                driver=_as_text(driver),
                nvml=_as_text(version),
                cuda=self._watched.ask("nvmlSystemGetCudaDriverVersion_v2"),
            )
        )

    def _whole_gpus(self) -> Inventory | None:
        """Something to measure calls on where there are no slices."""
        with contextlib.suppress(PreflightError):
            return take_inventory(self._library, parse_slices("gpu"))
        return None

    def _measure(self, inventory: Inventory) -> tuple[Latency, ...]:
        """How long the sampler's calls take, opening the library anew included, which it does now and then."""
        watch = FaultWatch(self._library, (gpu.uuid for gpu in inventory.gpus))
        watch.arm()
        until_ns = time.perf_counter_ns() + round(_MEASURING_S * NS_PER_S)
        samples_ns: list[int] = []
        self._watched.times_ns.clear()
        while len(samples_ns) < _SAMPLES and (not samples_ns or time.perf_counter_ns() < until_ns):
            if len(samples_ns) % _REOPENED_EVERY == 0:
                watch.disarm()
                nvml.reopen(self._library)
                watch.arm()
            begun_ns, announcing_ns = time.perf_counter_ns(), self._watched.announcing_ns
            watch.heard()
            take_sample(self._library, inventory)
            took_ns = time.perf_counter_ns() - begun_ns
            samples_ns.append(took_ns - (self._watched.announcing_ns - announcing_ns))
        watch.disarm()
        return (latency(SAMPLE, samples_ns), *self._watched.latencies())


def _as_text(answer: facts.Answer[str]) -> facts.Answer[str]:
    return answer if answer.value is None else facts.Answer(nvml.text(answer.value))


def _say(message: facts.Message) -> None:
    os.write(_STDOUT, facts.encode_line(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Look once."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before we asked to be told
    parser = argparse.ArgumentParser(prog="python -m heteromig.doctor.probe", allow_abbrev=False)
    parser.add_argument("--slices", required=True, metavar="SOURCE")
    parser.add_argument("--runs-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--gpu", metavar="GPU")
    options = parser.parse_args(argv)
    with contextlib.suppress(BrokenPipeError):
        _Probe(parse_slices(options.slices), options.runs_dir, options.gpu).look()
    return 0


if __name__ == "__main__":
    sys.exit(main())
