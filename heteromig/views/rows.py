"""Rows of the live table: one a GPU, one a slice, laid out for the width there is.

Rows are pieces of text with a style, not cells of a Rich table: measuring every cell of 56 rows once a second would
cost several times the budget of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum

from msgspec import Struct
from rich.style import Style

from heteromig.core.devices import Activity, DeviceSample, Gpu, GpuSample, Inventory, Reading, Slice, SliceSample
from heteromig.core.phases import EvidenceLevel, Role, WorkerState
from heteromig.core.units import NS_PER_S, MonotonicNs, format_duration_s
from heteromig.core.view import View, WorkerView
from heteromig.views.text import fit, format_cpus, format_rate, format_short_bytes, printable, short_uuid

Piece = tuple[str, "Style | None"]
Line = tuple[Piece, ...]

PLAIN: Style | None = None
BOLD = Style(bold=True)
DIM = Style(dim=True)
GOOD = Style(color="green")
BUSY = Style(color="green", bold=True)
WAIT = Style(color="yellow")
BAD = Style(color="red", bold=True)
MAIN = Style(color="cyan", bold=True)

UNKNOWN = "-"
"""Not there yet."""
NOT_AVAILABLE = "n/a"
"""Will never be there."""

MEDIUM_WIDTH = 100
EXTENDED_WIDTH = 110
LAST_LINE_WIDTH = 24
"""The last lines of workers have a column of their own where that many cells are left for it."""
INDENT = 1

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, NVML_CLOCKS_EVENT_REASON_*); idle and set clocks are no news.
THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}

STATE_STYLES: dict[WorkerState, Style | None] = {
    WorkerState.PLANNED: DIM,
    WorkerState.SPAWNING: WAIT,
    WorkerState.SPAWNED: WAIT,
    WorkerState.ANNOUNCED: WAIT,
    WorkerState.TIMED: GOOD,
    WorkerState.BUSY: BUSY,
    WorkerState.ENDED: PLAIN,
    WorkerState.STOPPING: WAIT,
    WorkerState.RELEASED: GOOD,
    WorkerState.EXITED: DIM,
}


class Place(Struct, frozen=True):
    """One row's subject: a slice, who is on it, and what was last read of it. `last` is that worker's last line.

    `missing` are the readings that there will never be.
    """

    slice: Slice
    worker: WorkerView | None
    sample: SliceSample | None
    last: str
    missing: frozenset[Reading] = frozenset()


class Align(Enum):
    """To which side a column is padded."""

    LEFT = "left"
    RIGHT = "right"


class Column(Struct, frozen=True):
    """One column: `piece` gives text and style of a place, `width` is in cells, 0 for what is left of the line."""

    title: str
    width: int
    piece: Callable[[Place], Piece]
    align: Align = Align.LEFT


def places(view: View, inventory: Inventory, last_lines: Mapping[int, str], gpu: Gpu) -> list[Place]:
    """The slices of `gpu` in the order of the inventory, each with the worker that matters most there."""
    on_slice: dict[str, list[WorkerView]] = {}
    for worker in view.workers:
        on_slice.setdefault(worker.assignment.slice_uuid, []).append(worker)
    samples = {reading.slice_uuid: reading for reading in view.sample.slices} if view.sample else {}
    missing = _missing(view.sample)
    found = []
    for place in inventory.slices:
        if place.gpu_uuid != gpu.uuid:
            continue
        foremost = _foremost(on_slice.get(place.uuid, []))
        last = last_lines.get(foremost.index, "") if foremost is not None else ""
        sample, lacks = samples.get(place.uuid), missing.get(place.uuid, frozenset())
        found.append(Place(slice=place, worker=foremost, sample=sample, last=last, missing=lacks))
    return found


def _missing(sample: DeviceSample | None) -> dict[str, frozenset[Reading]]:
    found: dict[str, frozenset[Reading]] = {}
    for one in (sample.unavailable or ()) if sample is not None else ():
        readings = frozenset(one.readings)
        for scope in one.scopes:
            found[scope] = found.get(scope, frozenset()) | readings
    return found


def _foremost(workers: list[WorkerView]) -> WorkerView | None:
    """A live one, else a build that failed, else the one planned there."""
    ranked = [
        *(worker for worker in workers if worker.live),
        *(worker for worker in workers if worker.role is Role.BUILD and worker.exited_ns and worker.exit_code != 0),
        *(worker for worker in workers if worker.role is not Role.BUILD),
    ]
    return ranked[0] if ranked else None


def gpu_line(gpu: Gpu, sample: GpuSample | None, view: View, now_ns: MonotonicNs) -> Line:
    """What exists for the whole GPU only, the most important first: it may be cropped."""
    simulated = view.inventory is not None and view.inventory.simulated
    name = printable(gpu.name).removeprefix("NVIDIA ")
    head: Piece = (f"GPU {short_uuid(gpu.uuid)} {name.removeprefix('Simulated ') if simulated else name}", BOLD)
    if sample is None:
        return head, ("  no sample yet", DIM)
    pieces: list[Piece] = [head]
    if view.sample is not None:
        age_s = (now_ns - view.sample.taken_ns) / NS_PER_S
        # Three periods are also what guards call stale; the view itself may be a second late.
        if age_s > 3 * view.spec.sample_period_ms / 1000 + 1:
            pieces.append((f"  read {format_duration_s(age_s)} ago", WAIT))
    if sample.power_w is not None:
        pieces.append((f"  {sample.power_w:.0f} W", PLAIN))
    if sample.temperature_c is not None:
        pieces.append((f"  {sample.temperature_c:.0f} C", PLAIN))
    throttles = [name for bit, name in THROTTLES.items() if (sample.throttle_reasons or 0) & bit]
    if throttles:
        pieces.append((f"  throttled: {', '.join(throttles)}", WAIT))
    if sample.sm_clock_mhz is not None:
        pieces.append((f"  SM {sample.sm_clock_mhz} MHz", PLAIN))
    if sample.memory_clock_mhz is not None:
        pieces.append((f"  memory {sample.memory_clock_mhz} MHz", PLAIN))
    lacking = ", ".join(_lacking(sample))
    if lacking:
        pieces.append((f"  n/a{' (simulated)' if simulated else ''}: {lacking}", DIM))
    return tuple(pieces)


def _lacking(sample: GpuSample) -> Iterator[str]:
    if sample.power_w is None:
        yield "power"
    if sample.temperature_c is None:
        yield "temperature"
    clocks = {"SM clock": sample.sm_clock_mhz, "memory clock": sample.memory_clock_mhz}
    unknown = [name for name, clock_mhz in clocks.items() if clock_mhz is None]
    if len(unknown) == len(clocks):
        yield "clocks"  # and so whether they were lowered
        return
    yield from unknown
    if sample.throttle_reasons is None:
        yield "throttle reasons"


def evidence_of(worker: WorkerView) -> EvidenceLevel | None:
    """The highest level that the worker has reached, also after it has left its timed section."""
    if worker.busy_ns is not None:
        return EvidenceLevel.BUSY
    if worker.timed_ns is not None:
        return EvidenceLevel.TIMED
    return EvidenceLevel.ANNOUNCED if worker.announced_ns is not None else None


def _slice(place: Place) -> Piece:
    instance = place.slice.gpu_instance_id
    name = short_uuid(place.slice.uuid)
    return (name if instance is None else f"{name}:{instance}"), PLAIN


def _profile(place: Place) -> Piece:
    return printable(place.slice.profile), PLAIN


def _role(place: Place) -> Piece:
    if place.worker is None:
        return "unused", DIM
    return place.worker.role.value, MAIN if place.worker.role is Role.MAIN else PLAIN


def _short_role(place: Place) -> Piece:
    text, style = _role(place)
    return {"background": "bg", "unused": "-"}.get(text, text), style


def _benchmark(place: Place) -> Piece:
    if place.worker is None:
        return "", DIM
    return printable(place.worker.assignment.benchmark), MAIN if place.worker.role is Role.MAIN else PLAIN


def _scenario(place: Place) -> Piece:
    """The streams without that word, for which the column has no room: `single`, `multi`."""
    return ("" if place.worker is None else printable(place.worker.assignment.scenario).removesuffix("stream")), PLAIN


def _state(place: Place) -> Piece:
    worker = place.worker
    if worker is None:
        return "", DIM
    if worker.state is not WorkerState.EXITED:
        return worker.state.value, STATE_STYLES[worker.state]
    if worker.signal is None and worker.exit_code is None:
        how = "gone"
    elif worker.stopped_by is not None and worker.exit_code != 0:
        how = "stopped"  # how it ends then is nobody's fault: make exits with 2, a harness dies of TERM
    else:
        how = f"exit {worker.exit_code}" if worker.signal is None else f"signal {worker.signal}"
    failed = worker.exit_code != 0 and worker.stopped_by is None
    return how, BAD if failed else DIM


def _evidence(place: Place) -> Piece:
    level = evidence_of(place.worker) if place.worker is not None else None
    return (UNKNOWN, DIM) if level is None else (level.value, PLAIN)


def _state_and_evidence(place: Place) -> Piece:
    """`busy` while both say the same, `exit 0/busy` afterwards."""
    state, style = _state(place)
    level = evidence_of(place.worker) if place.worker is not None else None
    if level is None or level.value == state:
        return state, style
    return f"{state}/{level.value}", style


def _rate(place: Place) -> Piece:
    rate = place.worker.samples_per_s if place.worker is not None else None
    return (UNKNOWN, DIM) if rate is None else (format_rate(rate), PLAIN)


def _memory(place: Place) -> Piece:
    """What is in use, of what there is."""
    used, style = _memory_used(place)
    total = (place.sample.memory_total_bytes if place.sample is not None else None) or place.slice.memory_bytes
    if style is not PLAIN or total is None:
        return used, style
    return f"{used}/{format_short_bytes(total)}", style


def _memory_used(place: Place) -> Piece:
    used = place.sample.memory_used_bytes if place.sample is not None else None
    if used is not None:
        return format_short_bytes(used), PLAIN
    return (UNKNOWN, DIM) if place.sample is None else (NOT_AVAILABLE, DIM)


def _percent(read: Callable[[Activity], float | None], what: Reading) -> Callable[[Place], Piece]:
    def piece(place: Place) -> Piece:
        activity = place.sample.activity if place.sample is not None else None
        percent = None if activity is None else read(activity)
        if percent is not None:
            return f"{percent:.0f}", PLAIN
        lacks = what in place.missing or Reading.ACTIVITY in place.missing
        return (NOT_AVAILABLE if lacks else UNKNOWN), DIM

    return piece


def _cpus(place: Place) -> Piece:
    return (UNKNOWN if place.worker is None else format_cpus(place.worker.assignment.cpus)), PLAIN


def _last(place: Place) -> Piece:
    return printable(place.last), DIM


def _cpus_and_last(place: Place) -> Piece:
    if place.worker is None:
        return "", DIM
    return f"cpus {_cpus(place)[0]}  {printable(place.last)}", DIM


SLICE = Column("SLICE", 11, _slice)
PROFILE = Column("PROFILE", 7, _profile)
BENCHMARK = Column("BENCHMARK", 13, _benchmark)
SCENARIO = Column("SCENARIO", 8, _scenario)
MEMORY = Column("MEMORY", 11, _memory, Align.RIGHT)
SM = Column("SM%", 3, _percent(lambda activity: activity.sm_percent, Reading.SM), Align.RIGHT)
TENSOR = Column("TENS", 4, _percent(lambda activity: activity.tensor_percent, Reading.TENSOR), Align.RIGHT)
DRAM = Column("DRAM", 4, _percent(lambda activity: activity.dram_percent, Reading.DRAM), Align.RIGHT)

NARROW = (
    SLICE,
    PROFILE,
    Column("ROLE", 5, _short_role),
    BENCHMARK,
    Column("SCEN", 7, _scenario),
    Column("STATE", 13, _state_and_evidence),
    Column("SAMPLES", 7, _rate, Align.RIGHT),
    Column("MEM", 5, _memory_used, Align.RIGHT),
    SM,
)
MEDIUM = (
    SLICE,
    PROFILE,
    Column("ROLE", 10, _role),
    BENCHMARK,
    SCENARIO,
    Column("STATE", 9, _state),
    Column("EVIDENCE", 9, _evidence),
    Column("SAMPLES/S", 9, _rate, Align.RIGHT),
    MEMORY,
    SM,
)
EXTENDED = (*MEDIUM, TENSOR, DRAM)
CPUS = Column("CPUS", 6, _cpus)
LAST = Column("LAST LINE", 0, _last)
SECOND_LINE = Column("", 0, _cpus_and_last)


def columns_for(width: int, places: Iterable[Place]) -> tuple[Column, ...]:
    """The columns that fit; narrower than all of them, they are cropped at the right.

    Counters that no slice has get no column, but for the first.
    """
    if width < MEDIUM_WIDTH:
        return NARROW
    extended = width >= EXTENDED_WIDTH and any(map(_has_more_counters, places))
    columns = EXTENDED if extended else MEDIUM
    wide = (*columns, CPUS, LAST)
    return wide if width - INDENT - sum(column.width + 1 for column in wide[:-1]) >= LAST_LINE_WIDTH else columns


def _has_more_counters(place: Place) -> bool:
    if place.sample is None or Reading.ACTIVITY in place.missing:
        return False
    return not place.missing >= {Reading.TENSOR, Reading.DRAM}


def title_line(columns: tuple[Column, ...], width: int) -> Line:
    """The names of the columns."""
    return _line(columns, width, lambda column: (column.title, DIM))


def slice_line(columns: tuple[Column, ...], width: int, place: Place) -> Line:
    """The row of a slice."""
    return _line(columns, width, lambda column: column.piece(place))


def second_line(width: int, place: Place) -> Line:
    """What did not fit into the row: processors and last output line."""
    return (" " * (INDENT + 2), PLAIN), (fit(SECOND_LINE.piece(place)[0], max(0, width - INDENT - 2)), DIM)


def _line(columns: tuple[Column, ...], width: int, piece: Callable[[Column], Piece]) -> Line:
    left = max(0, width - INDENT)
    pieces: list[Piece] = [(" " * INDENT, PLAIN)]
    for column in columns:
        cells = min(column.width or left, left)
        text, style = piece(column)
        pieces.append((fit(text, cells, right=column.align is Align.RIGHT), style))
        left -= cells
        if left > 0 and column is not columns[-1]:
            pieces.append((" ", PLAIN))
            left -= 1
    return tuple(pieces)
