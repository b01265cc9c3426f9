"""A journal of half an hour, seven workers, through the core again at full speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.runner.journal import JOURNAL, Asked, Heard, Journal, JournalText, Line, read_journal
from heteromig.runner.playback import play
from heteromig.runner.recording import read_record
from heteromig.runner.replaying import replay
from heteromig.runner.rundir import RUN_JSON, write_json
from heteromig.views.silent import Silent
from tests.bench import real
from tests.bench.launching import MeasuringFailedError, scratch
from tests.bench.table import Row, judge_median, spread

LASTS_S = 1800
BUDGET_US = 50.0
"""20,000 events/s."""
ROUNDS = 5
_DECODER = msgspec.json.Decoder(Line)


def measure() -> list[Row]:
    """A real run's journal, in which what was heard in one second of main's timed section is heard in 1800."""
    with scratch() as name:
        runs_dir = Path(name)
        real.run(runs_dir)
        short = read_journal((runs_dir / "latest").resolve())
        long_dir = runs_dir / "long"
        long_dir.mkdir()
        prolong(short, long_dir, LASTS_S)
        _write_record((runs_dir / "latest").resolve(), long_dir)
        journal = read_journal(long_dir)
        lines = (long_dir / JOURNAL).read_bytes().splitlines()
        count = len(journal.events)
        whole = _per_event(lambda: play(long_dir, Silent(), None), count)
        parts = {
            "reading the journal": _per_event(lambda: read_journal(long_dir), count),
            "  of which decoding its lines": _per_event(lambda: [_DECODER.decode(line) for line in lines], count),
            "the core alone": _per_event(lambda: _handle(journal), count),
            "the core, and comparing what it asks for": _per_event(lambda: _replay(long_dir, journal), count),
        }
    samples = sum(isinstance(event, ev.SampleTaken) for event in journal.events)
    return [
        Row(
            what=f"replay at full speed: {count} events, {samples} of them samples; each takes",
            measured=spread(whole, "us"),
            budget=f"<= {BUDGET_US:g} us",
            verdict=judge_median(whole, BUDGET_US),
        ),
        *(
            Row(what=f"  {what}", measured=spread(took_us, "us"), budget="", verdict="")
            for what, took_us in parts.items()
        ),
    ]


def prolong(short: JournalText, long_dir: Path, lasts_s: int) -> None:
    """Write the journal of the same run with a main that was timed for `lasts_s`.

    The second in the midst of main's timed section comes again and again: each time that much later, with that many
    more samples completed. What the core asks for is asked anew.
    """
    events = _prolonged(list(short.events), lasts_s)
    run = Run(short.header.spec)
    journal = Journal(long_dir)
    journal.write(short.header)
    for number, event in enumerate(events, start=1):
        journal.write(Heard(number, event), *map(Asked, run.handle(event)))
    journal.close()
    if run.verdict.status != "valid":
        raise MeasuringFailedError(f"the prolonged run is {run.verdict.status}: {run.verdict.reasons}")


def _write_record(run_dir: Path, long_dir: Path) -> None:
    """What `run.json` said while main ran, which is as true of the long run."""
    record = read_record(run_dir)
    entered = [phase.name for phase in record.phases].index(Phase.MAIN_RUNNING.value)
    record = replace(record, ended_at=None, verdict=None, phases=record.phases[: entered + 1])
    write_json(long_dir / RUN_JSON, record, sync=False)


def _prolonged(events: Sequence[ev.AnyEvent], lasts_s: int) -> Iterator[ev.AnyEvent]:
    main_began = next(
        number for number, one in enumerate(events) if isinstance(one, ev.TimedSectionBegan) and one.worker == 0
    )
    samples = [number for number, one in enumerate(events) if isinstance(one, ev.SampleTaken) and number > main_began]
    first, after = samples[0], samples[1]
    again = events[first:after]
    if not all(isinstance(one, ev.SampleTaken | ev.ProgressMade) for one in again):
        raise MeasuringFailedError("the second after main's begin has more in it than samples and heartbeats")
    yield from events[:first]
    for times in range(lasts_s):
        yield from (_later(one, times) for one in again)
    yield from (_later(one, lasts_s - 1) for one in events[after:])


def _later(event: ev.AnyEvent, by_s: int) -> ev.AnyEvent:
    at_ns: MonotonicNs = event.at_ns + by_s * NS_PER_S
    if isinstance(event, ev.SampleTaken):
        sample = replace(event.sample, taken_ns=event.sample.taken_ns + by_s * NS_PER_S)
        return ev.SampleTaken(at_ns=at_ns, sample=sample)
    if isinstance(event, ev.ProgressMade):
        more = round(event.samples_per_s * by_s)
        return replace(event, at_ns=at_ns, completed_samples=event.completed_samples + more)
    return replace(event, at_ns=at_ns)


def _replay(run_dir: Path, journal: JournalText) -> None:
    run = Run(journal.header.spec)
    for _ in replay(run_dir, journal, run):
        pass


def _handle(journal: JournalText) -> None:
    run = Run(journal.header.spec)
    for event in journal.events:
        run.handle(event)


def _per_event(call: Callable[[], object], count: int) -> list[float]:
    """Microseconds."""
    took_us = []
    for _ in range(ROUNDS):
        before_s = time.perf_counter()
        call()
        took_us.append((time.perf_counter() - before_s) / count * 1e6)
    return took_us
