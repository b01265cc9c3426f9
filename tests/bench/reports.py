"""The page of a run of half an hour: seven workers, a device sample and a heartbeat of each a second."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from heteromig.core import events as ev
from heteromig.core.devices import Activity, DeviceSample, GpuSample, Reading, SliceSample
from heteromig.core.units import NS_PER_S
from heteromig.runner.journal import JOURNAL, Asked, Heard, JournalText, Line, read_journal
from tests.bench import real
from tests.bench.commands import HETEROMIG
from tests.bench.launching import MeasuringFailedError, scratch
from tests.bench.table import Row, judge, judge_median, ratio, spread

LENGTH_S = 1800
BUDGET_S = 3.0
BUDGET_BYTES = 8_000_000
ROUNDS = 5
_MEASURED = frozenset({Reading.ACTIVITY, Reading.SM, Reading.TENSOR, Reading.DRAM, Reading.PCIE_TX, Reading.PCIE_RX})


def measure() -> list[Row]:
    """`heteromig report`, from the start of the interpreter to its end, in turn with an import of matplotlib."""
    with scratch() as name:
        runs_dir = Path(name)
        real.run(runs_dir)
        stretched = stretch((runs_dir / "latest").resolve(), runs_dir / "stretched")
        journal = read_journal(stretched)
        page = runs_dir / "page.html"
        drawn = "import matplotlib.figure, matplotlib.backends.backend_svg"
        made: list[tuple[float, float]] = []
        imported: list[tuple[float, float]] = []
        for number in range(1 + ROUNDS):
            times_s = (
                _time((HETEROMIG, "report", str(stretched), "-o", str(page))),
                _time((sys.executable, "-c", drawn)),
            )
            if number:
                made.append(times_s[0])
                imported.append(times_s[1])
        size_bytes = page.stat().st_size
    events = len(journal.events)
    walls, imports = [wall_s for wall_s, _ in made], [wall_s for wall_s, _ in imported]
    return [
        Row(
            what=f"report.html of a run of 30 min, 7 workers, {events} events",
            measured=spread(walls, "s"),
            budget=f"<= {BUDGET_S:g} s",
            verdict=judge_median(walls, BUDGET_S),
        ),
        Row(
            what="  of that on a processor, whatever else the machine does",
            measured=spread([cpu_s for _, cpu_s in made], "s"),
            budget="",
            verdict="",
        ),
        Row(
            what="  an interpreter that imports matplotlib, and nothing else",
            measured=spread(imports, "s"),
            budget="",
            verdict=f"the page takes {ratio(statistics.median(walls), statistics.median(imports))}",
        ),
        Row(
            what="  its size",
            measured=f"{size_bytes / 1e6:.3g} MB",
            budget=f"<= {BUDGET_BYTES / 1e6:g} MB",
            verdict=judge(size_bytes, BUDGET_BYTES),
        ),
    ]


def stretch(run_dir: Path, copy: Path) -> Path:
    """A copy of a run whose main took half an hour longer, with all readings of a board that has them all.

    Before the last event of main's timed section come samples and heartbeats for every second of it, made of the
    recorded ones; everything after them is later by that. The logs keep their own times, which only the stamps of the
    certificate show: the work of making a report is the same.
    """
    shutil.copytree(run_dir, copy)
    journal = read_journal(copy)
    lines: list[Line] = [journal.header]
    number = 0
    for line in _stretched(journal):
        if isinstance(line, Heard):
            number += 1
            lines.append(Heard(number=number, event=line.event))
        else:
            lines.append(line)
    encoder = msgspec.json.Encoder()
    (copy / JOURNAL).write_bytes(b"".join(encoder.encode(line) + b"\n" for line in lines))
    return copy


def _stretched(journal: JournalText) -> Iterator[Heard | Asked]:
    later_ns = 0
    sample: DeviceSample | None = None
    beats: dict[int, ev.ProgressMade] = {}
    timed = False
    for line in journal.lines:
        if not isinstance(line, Heard):
            yield line
            continue
        event = line.event
        match event:
            case ev.SampleTaken():
                sample = event.sample.after(sample)
            case ev.ProgressMade():
                beats[event.worker] = event
            case ev.TimedSectionBegan(worker=0):
                timed = True
            case _:
                pass
        if isinstance(event, ev.TimedSectionEnded) and event.worker == 0 and timed:
            if sample is None:
                raise MeasuringFailedError("the run has no device sample before main's end")
            later_ns = LENGTH_S * NS_PER_S
            yield from _filling(event.at_ns, sample, beats)
        yield Heard(number=0, event=_later(event, later_ns))


def _filling(at_ns: int, sample: DeviceSample, beats: dict[int, ev.ProgressMade]) -> Iterator[Heard]:
    """A sample and a heartbeat of each worker for every second; figures move, so that nothing is left out as alike."""
    for second in range(1, LENGTH_S + 1):
        now_ns = at_ns + second * NS_PER_S
        slices = tuple(_busy(one, second + number) for number, one in enumerate(sample.slices))
        gpus = tuple(_hot(one, second) for one in sample.gpus)
        reading = msgspec.structs.replace(sample, taken_ns=now_ns, slices=slices, gpus=gpus)
        if second == 1:
            reading = msgspec.structs.replace(
                reading,
                unavailable=tuple(one for one in sample.unavailable or () if _MEASURED.isdisjoint(one.readings)),
            )
        else:
            reading = msgspec.structs.replace(reading, unavailable=None, shared=None)
        yield Heard(number=0, event=ev.SampleTaken(now_ns, reading))
        for worker, beat in beats.items():
            rate = beat.samples_per_s * (1 + 0.05 * ((second * 7 + worker) % 11) / 11)
            more = beat.completed_samples + round(second * beat.samples_per_s)
            yield Heard(
                number=0,
                event=ev.ProgressMade(at_ns=now_ns, worker=worker, completed_samples=more, samples_per_s=rate),
            )


def _busy(one: SliceSample, number: int) -> SliceSample:
    used_bytes = None if one.memory_used_bytes is None else one.memory_used_bytes + (number % 17 << 20)
    return msgspec.structs.replace(
        one,
        memory_used_bytes=used_bytes,
        activity=Activity(
            sm_percent=80 + number % 19,
            tensor_percent=40 + number % 23,
            dram_percent=30 + number % 13,
            pcie_tx_bytes_per_s=10_000_000 + number % 29 * 100_000,
            pcie_rx_bytes_per_s=90_000_000 + number % 31 * 100_000,
        ),
    )


def _hot(one: GpuSample, number: int) -> GpuSample:
    return msgspec.structs.replace(
        one,
        power_w=300 + number % 37,
        temperature_c=60 + number % 7,
        sm_clock_mhz=1400 + number % 3 * 15,
        memory_clock_mhz=1593,
        throttle_reasons=4 if number % 5 == 0 else 0,
    )


def _later(event: ev.AnyEvent, later_ns: int) -> ev.AnyEvent:
    moved = msgspec.structs.replace(event, at_ns=event.at_ns + later_ns)
    if isinstance(moved, ev.SampleTaken):
        sample = msgspec.structs.replace(moved.sample, taken_ns=moved.sample.taken_ns + later_ns)
        return msgspec.structs.replace(moved, sample=sample)
    return moved


def _time(argv: Sequence[str]) -> tuple[float, float]:
    """Seconds by the wall clock, and on a processor."""
    before_s = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - before_s
    if process.returncode != 0:
        raise MeasuringFailedError(f"{' '.join(argv)} ended with {process.returncode}")
    return took_s, used.ru_utime + used.ru_stime
