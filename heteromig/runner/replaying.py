"""A journal through the core once more: the same phases and the same requests, or the journal is not what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.errors import EvidenceError
from heteromig.core.machine import REPLIES, Run
from heteromig.core.names import odd_names
from heteromig.core.phases import Phase
from heteromig.runner.journal import JOURNAL, Heard, JournalText


class Step(Struct, frozen=True):
    """One event, and what the core asked for because of it when it was given to it again."""

    number: int
    event: ev.AnyEvent
    effects: tuple[ef.AnyEffect, ...]


def fresh_run(run_dir: Path, journal: JournalText) -> Run:
    """A core that has heard nothing yet, for the run of this journal.

    Raises:
        EvidenceError: the header is of no run that there can be.
    """
    spec = journal.header.spec
    catalog = {info.name: info for info in spec.catalog}
    main = catalog.get(spec.main.benchmark)
    if main is None or spec.main.scenario not in main.scenarios or not catalog.keys() >= {*spec.background.candidates}:
        raise EvidenceError(f"The header of the journal {run_dir / JOURNAL} contradicts itself: it was altered.")
    if next(odd_names(spec), None) is not None:  # which would be looked for elsewhere
        raise EvidenceError(f"The header of the journal {run_dir / JOURNAL} has names that no run has: it was altered.")
    return Run(spec)


Substitute = Callable[[Run, ev.AnyEvent], ev.AnyEvent]
"""What to give the core instead of an event; the run is as it is before it."""


def replay(run_dir: Path, journal: JournalText, run: Run, *, substitute: Substitute | None = None) -> Iterator[Step]:
    """Give the events of a journal to `run`, a fresh core, one at a time.

    What the core asks for has to be what is written behind the event, as far as the journal reaches; with `substitute`,
    which may change what the verdict rests on, this holds but for the verdict itself.

    Raises:
        EvidenceError: the core asks for something else than the run did.
    """
    groups = _groups(run_dir, journal)
    for number, (event, asked) in enumerate(groups, start=1):
        if isinstance(event, REPLIES) and run.phase is not Phase.VALIDATING:
            raise _altered(run_dir, number, event)
        effects = tuple(run.handle(event if substitute is None else substitute(run, event)))
        written = effects if number < len(groups) else effects[: len(asked)]  # the last group may be cut
        if [_settled(effect, substitute) for effect in written] != [_settled(effect, substitute) for effect in asked]:
            raise _altered(run_dir, number, event)
        yield Step(number=number, event=event, effects=effects)


def _groups(run_dir: Path, journal: JournalText) -> list[tuple[ev.AnyEvent, list[ef.AnyEffect]]]:
    """Each event with the effects that are written behind it."""
    groups: list[tuple[ev.AnyEvent, list[ef.AnyEffect]]] = []
    for line in journal.lines:
        if isinstance(line, Heard):
            groups.append((line.event, []))
        elif groups:
            groups[-1][1].append(line.effect)
        else:
            raise EvidenceError(f"The journal {run_dir / JOURNAL} begins with something that no event asked for.")
    return groups


def _settled(effect: ef.AnyEffect, substitute: Substitute | None) -> ef.AnyEffect | type[ef.AnyEffect]:
    """What has to be the same: all of it, or only that a verdict was asked for where its grounds were replaced."""
    return ef.WriteVerdict if isinstance(effect, ef.WriteVerdict) and substitute is not None else effect


def _altered(run_dir: Path, number: int, event: ev.AnyEvent) -> EvidenceError:
    return EvidenceError(
        f"The journal {run_dir / JOURNAL} does not replay to what it records from event {number} "
        f"({type(event).__name__}) on: it was altered, or written by another version of heteromig."
    )
