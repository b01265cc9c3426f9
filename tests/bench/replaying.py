"""A journal of half an hour, seven workers, through the core again at full speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.machine import Run
from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.runner.journal import JOURNAL, Asked, Heard, Journal, JournalText, Line, read_journal
from heteromig.runner.replaying import replay
from tests.bench import real
from tests.bench.launching import MeasuringFailedError, scratch
from tests.bench.table import Row, judge, spread

LASTS_S = 1800
BUDGET_EVENTS_PER_S = 20_000
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
        journal = read_journal(long_dir)
        lines = (long_dir / JOURNAL).read_bytes().splitlines()
        count = len(journal.events)
        whole = _rates(lambda: _replay(long_dir, read_journal(long_dir)), count)
        parts = {
            "reading alone": _rates(lambda: read_journal(long_dir), count),
            "  of which decoding lines": _rates(lambda: [_DECODER.decode(line) for line in lines], count),
            "the core alone": _rates(lambda: _handle(journal), count),
            "the core, and comparing what it asks for": _rates(lambda: _replay(long_dir, journal), count),
        }
    samples = sum(isinstance(event, ev.SampleTaken) for event in journal.events)
    return [
        Row(
            what=f"replay at full speed: {count} events, {samples} of them samples",
            measured=spread(whole, "events/s"),
            budget=f">= {BUDGET_EVENTS_PER_S} events/s",
            verdict=judge(BUDGET_EVENTS_PER_S / sorted(whole)[len(whole) // 2], 1.0),
        ),
        *(
            Row(what=f"  {what}", measured=spread(rates, "events/s"), budget="", verdict="")
            for what, rates in parts.items()
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


def _rates(call: Callable[[], object], count: int) -> list[float]:
    rates = []
    for _ in range(ROUNDS):
        before_s = time.perf_counter()
        call()
        rates.append(count / (time.perf_counter() - before_s))
    return rates
