"""What a run was, as a report tells it: one frozen value that the page, Markdown and the trace all render.

Every text in it is fit for display: names, lines and reasons of other programs went through `printable`. What a text
means to HTML or Markdown is the business of whoever renders it. Times are seconds since the run began, unknown is None.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from heteromig.core.degradation import Degradation
from heteromig.core.device_guards import DeviceFinding
from heteromig.core.guards import Finding
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.phases import Role
from heteromig.core.verdict import Reason
from heteromig.runner.rundir import FileHash


class State(Enum):
    """Whether there is more to come."""

    FINISHED = "finished"
    GOING_ON = "going on"
    BROKEN_OFF = "broken off"
    """Its controller is gone, and the journal ends in the middle."""


class Headline(Struct, frozen=True):
    """How it came out, in one sentence; `exit_code` is None while the run goes on. `reasons` are those left over."""

    status: str
    exit_code: int | None
    sentence: str
    reasons: tuple[Reason, ...]


class Kind(Enum):
    """What a slice is used for in an interval, in the order in which a worker goes through them."""

    BUILD = "build"
    """An engine is built on it."""
    START = "start"
    """The process is there, and says nothing yet."""
    ANNOUNCED = "announced"
    """It printed its marker: LoadGen may be loading samples."""
    TIMED = "timed"
    """In its timed section; no completions were heard of yet."""
    BUSY = "busy"
    """In its timed section, and completing samples."""
    STOP = "stop"
    """Its timed section is over, and its process tree is not reaped yet."""


class Interval(Struct, frozen=True):
    """Seconds since the run began; `worker` is who is on the slice."""

    kind: Kind
    begin_s: float
    end_s: float
    worker: int


class Gap(Struct, frozen=True):
    """A background stalled for so long while main was timed; `seen_by` is what shows it."""

    begin_s: float
    end_s: float
    seen_by: str


class Mark(Struct, frozen=True):
    """Something that happened at one moment; `bad` where it is a reason to look closer. No `worker`: to the run."""

    at_s: float
    what: str
    worker: int | None = None
    bad: bool = False


class Worker(Struct, frozen=True):
    """One worker. `ending` says how its process tree ended; `command` is for a shell, `last_line` its last output."""

    index: int
    role: Role
    benchmark: str
    scenario: str
    mode: str
    accuracy: str
    duration_s: float | None
    slice_uuid: str
    cpus: str
    spawned_s: float | None
    exited_s: float | None
    ending: str
    last_line: str
    command: str
    went_on: bool = False
    """Whether the next run of a campaign took it over."""


class Lane(Struct, frozen=True):
    """One slice and what happened on it; `worker` is main or the background that has it, None where nobody does."""

    slice_uuid: str
    name: str
    profile: str
    gpu_uuid: str
    worker: Worker | None
    intervals: tuple[Interval, ...]
    overlap: BackgroundOverlap | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def is_main(self) -> bool:
        """Whether main is measured on it."""
        return self.worker is not None and self.worker.role is Role.MAIN

    @property
    def label(self) -> str:
        """Who is on it: `0 resnet50`."""
        return "idle" if self.worker is None else f"{self.worker.index} {self.worker.benchmark}"

    def first(self, kind: Kind) -> Interval | None:
        """The first interval of a kind."""
        return next((one for one in self.intervals if one.kind is kind), None)


class Stay(Struct, frozen=True):
    """One stay in a phase; `cpu_s` and `wakeups` are what watching cost in it."""

    name: str
    begin_s: float
    end_s: float
    cpu_s: float | None
    wakeups: int | None


class Section(Struct, frozen=True):
    """Main's timed section, and where its ends are known from."""

    begin_s: float
    end_s: float
    begin_source: str
    end_source: str


class Series(Struct, frozen=True):
    """One reading over time. Where `values` is empty, `missing` says why."""

    name: str
    unit: str
    times_s: tuple[float, ...]
    values: tuple[float, ...]
    missing: str = ""


class Chart(Struct, frozen=True):
    """Readings of one unit that belong on the same axes."""

    name: str
    unit: str
    series: tuple[Series, ...]

    @property
    def drawn(self) -> tuple[Series, ...]:
        """Those that there is something to draw of."""
        return tuple(one for one in self.series if one.values)


class Instrument(Struct, frozen=True):
    """Everything that was read of one slice or one GPU; `notes` say what the figures are not."""

    uuid: str
    gpu_uuid: str
    title: str
    is_gpu: bool
    is_main: bool
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]


class Board(Struct, frozen=True):
    """One GPU of the run."""

    uuid: str
    name: str
    driver: str


class Result(Struct, frozen=True):
    """Main's result. `words` are the figures that matter, `metrics` and `parameters` what LoadGen calls them."""

    title: str
    words: str
    valid: bool | None
    complaints: tuple[str, ...]
    metrics: tuple[tuple[str, str], ...]
    parameters: tuple[tuple[str, str], ...]
    parameters_missing: str


class Passage(Struct, frozen=True):
    """The findings on which the run went from one phase to the next."""

    at_s: float
    source: str
    destination: str
    findings: tuple[Finding, ...]


class Step(Struct, frozen=True):
    """Something to do next: `words`, and a command to copy, if there is one."""

    words: str
    command: str = ""


class Story(Struct, frozen=True):
    """All of a run. `as_of` is when the journal was last written to, `length_s` from its begin to then."""

    run_id: str
    run_dir: str
    tool: str
    host: str
    started_at: str
    as_of: str
    length_s: float
    state: State
    phase: str
    headline: Headline
    banners: tuple[str, ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...]
    goal: str
    simulated: bool
    isolation: str
    lenient: bool
    degradation: Degradation | None
    boards: tuple[Board, ...]
    lanes: tuple[Lane, ...]
    workers: tuple[Worker, ...]
    section: Section | None
    overlap_proven: bool | None
    coverage: float | None
    slack_before_s: float | None
    slack_after_s: float | None
    backgrounds: tuple[BackgroundOverlap, ...]
    gap_threshold_s: float | None
    clock: str
    result: Result | None
    stays: tuple[Stay, ...]
    marks: tuple[Mark, ...]
    instruments: tuple[Instrument, ...]
    passages: tuple[Passage, ...]
    waits: tuple[tuple[float, Finding], ...]
    device_guards: tuple[DeviceFinding, ...]
    observer: str
    plan_toml: str
    left_out: tuple[str, ...]
    files: tuple[FileHash, ...]
    files_note: str
    next_steps: tuple[Step, ...]

    @property
    def main(self) -> Worker | None:
        """The measured worker, once planned."""
        return next((one for one in self.workers if one.role is Role.MAIN), None)

    def in_main(self, times_s: tuple[float, ...]) -> Iterator[int]:
        """Which of these moments are within main's timed section; all of them where it has none."""
        for number, at_s in enumerate(times_s):
            if self.section is None or self.section.begin_s <= at_s <= self.section.end_s:
                yield number
