"""The process that talks to the devices, so that a hanging driver can hold up nobody else.

`python -m heteromig.slices.sampler --slices SOURCE --runs-dir DIR --period-ms N [--gpu GPU]
[--sim-faults FILE] [--cpus 0,1] [--probe-pids] [--whole-host]`

It writes messages (see `messages`) to its standard output, one JSON object a line: `Discovered` or `Refused`, after
the latter it exits with 0; then `Sampled` once a period, and `Faulted` when a device misbehaves.

Its standard input is its lifeline: a byte `s` asks for a sample at once, the end of it ends the process. It is also
killed by the kernel when its parent dies. That is the only way to be rid of it while a call to the driver hangs: such a
call cannot be interrupted, and neither requests nor the end of the input are noticed meanwhile. Whoever waits for an
answer in vain gives up and sends KILL. The keyboard's signals do not end it: the devices are still watched while
the controller winds the run up. TERM does.

`--probe-pids` has it find out, within a pid namespace of our own, whether the driver's pids mean anything here; see
`pids`. That makes a CUDA context, and is therefore for the first sampler of a run, before anything is measured.

`--whole-host` has each sample tell of the GPUs too that no slice is on, which a baseline wants to know.

A controller that does not read (stopped, or busy) makes the pipe fill up. The sampler never waits for it: samples that
find unsent data before them are dropped, faults are kept.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import select
import signal
import stat
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from heteromig.core.devices import Inventory
from heteromig.core.errors import HeteromigError, PreflightError, UsageError
from heteromig.core.units import NS_PER_MS, NS_PER_S
from heteromig.slices import nvml
from heteromig.slices.discovery import take_inventory
from heteromig.slices.faultwatch import FaultWatch
from heteromig.slices.libraries import open_library
from heteromig.slices.messages import Discovered, Faulted, Message, Refused, Sampled, encode_line
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.occupants import read_others
from heteromig.slices.pids import in_initial_namespace, probe_pids
from heteromig.slices.series import Series
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample

_STDIN = 0
_STDOUT = 1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_REOPEN_PERIOD_NS = 10 * NS_PER_S
"""How often the library is opened anew without being asked. Each time costs 10 ms on an H100, 1 % of a core if it
were done every second; a request, and a driver that announces a new partitioning, do not wait for it."""


class _Outbox:
    """Lines on their way to a pipe that may be full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent: deque[bytes] = deque()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_blocking(descriptor, False)  # of a terminal this would change the shell's side as well

    @property
    def congested(self) -> bool:
        """Whether there is something that the pipe did not take yet."""
        return bool(self._unsent)

    def put(self, message: Message) -> bool:
        """Send the message as soon as there is room; whether it was not dropped.

        Raises:
            BrokenPipeError: nobody reads.
        """
        if isinstance(message, Sampled) and self.congested:
            return False
        self._unsent.append(encode_line(message))
        self.flush()
        return True

    def flush(self) -> None:
        """Send what the pipe takes now. Raises BrokenPipeError when nobody reads."""
        while self._unsent:
            line = self._unsent[0]
            try:
                sent = os.write(self._descriptor, line)
            except BlockingIOError:
                return
            if sent == len(line):
                self._unsent.popleft()
            else:
                self._unsent[0] = line[sent:]


class _Lifeline:
    """Standard input and output as the controller's ends see them."""

    def __init__(self, outbox: _Outbox) -> None:
        self._outbox = outbox
        self._poll = select.poll()
        self._poll.register(_STDIN, select.POLLIN)

    def wait(self, until_ns: int) -> bool | None:
        """Sleep until that time or until something is said; then whether a sample was asked for, None at the end."""
        # An empty mask still reports that nobody reads any more.
        self._poll.register(_STDOUT, select.POLLOUT if self._outbox.congested else 0)
        remaining_ms = math.ceil(max(0, until_ns - time.monotonic_ns()) / NS_PER_MS)
        requested = False
        for descriptor, conditions in self._poll.poll(remaining_ms):
            if descriptor == _STDIN:
                said = os.read(_STDIN, 4096)
                if not said:
                    return None
                requested = b"s" in said
            elif conditions & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return None
            else:
                self._outbox.flush()
        return requested


class _Watch:
    """The devices of one inventory, read again and again."""

    def __init__(self, library: Library, inventory: Inventory, outbox: _Outbox, *, whole_host: bool) -> None:
        self._library = library
        self._whole_host = whole_host
        self._inventory = inventory
        self._outbox = outbox
        self._faults = FaultWatch(library, (gpu.uuid for gpu in inventory.gpus))
        self._series = Series(library, inventory)
        self._reported: set[str] = set()
        self._reopen_at_ns = 0

    def read(self, *, requested: bool) -> None:
        """Take one sample and pass on what was heard; the library is opened anew when that is due or asked for."""
        try:
            heard = self._faults.heard()
            for fault in heard.faults:
                self._outbox.put(Faulted(fault.message, fault.gpu_uuid))
            now_ns = time.monotonic_ns()
            thorough = requested or heard.repartitioned or now_ns >= self._reopen_at_ns
            if thorough:
                # An Xid within the few milliseconds until `arm` goes unheard: NVML keeps nothing for later.
                self._faults.disarm()
                self._series.end_session(trusted=not heard.repartitioned)
                nvml.reopen(self._library)
                self._faults.arm()
                self._reopen_at_ns = now_ns + _REOPEN_PERIOD_NS
            sample = take_sample(
                self._library,
                self._inventory,
                energy=thorough,
                series=self._series,
                listened=self._faults.listened,
            )
            if self._whole_host:
                sample = msgspec.structs.replace(sample, others=read_others(self._library, self._inventory))
            if not self._outbox.put(Sampled(sample)):
                self._series.repeat()
        except NVMLError as error:
            self._report(f"NVML cannot read any GPU any more: it says {str(error)!r}; see the kernel's log.")
        except HeteromigError as error:
            self._report(str(error))

    def _report(self, fault: str) -> None:
        if fault not in self._reported:
            self._reported.add(fault)
            self._outbox.put(Faulted(fault))


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the controller is gone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before we asked to be told
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    options = _options(argv)
    outbox = _Outbox(_STDOUT)
    try:
        return _run(options, outbox)
    except BrokenPipeError:
        return 0


def _run(options: argparse.Namespace, outbox: _Outbox) -> int:
    lifeline = _Lifeline(outbox)
    try:
        _pin(options.cpus)
        source = parse_slices(options.slices)
        library = open_library(source, options.runs_dir, options.sim_faults)
        inventory = take_inventory(library, source, options.gpu)
        if options.probe_pids and not source.simulated and not in_initial_namespace():
            inventory = msgspec.structs.replace(inventory, pids_resolve=probe_pids(library, inventory))
    except HeteromigError as error:
        return _refuse(lifeline, outbox, str(error), error.exit_code)
    except NVMLError as error:
        sentence = f"NVML cannot enumerate the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
        return _refuse(lifeline, outbox, sentence, PreflightError.exit_code)
    outbox.put(Discovered(inventory))
    _watch(lifeline, _Watch(library, inventory, outbox, whole_host=options.whole_host), options.period_ms * NS_PER_MS)
    return 0


def _watch(lifeline: _Lifeline, watch: _Watch, period_ns: int) -> None:
    """Sample at multiples of the period after the start; those that passed while the driver was slow are left out."""
    due_ns = time.monotonic_ns()
    requested: bool | None = False
    while requested is not None:
        now_ns = time.monotonic_ns()
        if requested or now_ns >= due_ns:
            watch.read(requested=requested)
        now_ns = time.monotonic_ns()
        if now_ns >= due_ns:
            due_ns += period_ns * ((now_ns - due_ns) // period_ns + 1)
        requested = lifeline.wait(due_ns)


def _refuse(lifeline: _Lifeline, outbox: _Outbox, sentence: str, exit_code: int) -> int:
    outbox.put(Refused(sentence, exit_code))
    while outbox.congested and lifeline.wait(time.monotonic_ns() + NS_PER_S) is not None:
        pass
    return 0


def _pin(cpus: tuple[int, ...]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The sampler cannot run on the processors {cpus}: {error}; name some of this machine."
        ) from error


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m heteromig.slices.sampler", allow_abbrev=False)
    parser.add_argument("--slices", required=True, metavar="SOURCE")
    parser.add_argument("--runs-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--period-ms", required=True, type=_positive, metavar="N")
    parser.add_argument("--gpu", metavar="GPU")
    parser.add_argument("--sim-faults", type=Path, metavar="FILE")
    parser.add_argument("--probe-pids", action="store_true")
    parser.add_argument("--whole-host", action="store_true")
    parser.add_argument("--cpus", type=_cpu_list, default=(), metavar="0,1")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _cpu_list(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",")) if text else ()


if __name__ == "__main__":
    sys.exit(main())
