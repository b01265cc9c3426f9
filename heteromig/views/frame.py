"""One picture of a run, as a pure function of what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.spec import Isolation
from heteromig.core.units import NS_PER_S, MonotonicNs, format_duration_s
from heteromig.core.verdict import Verdict
from heteromig.core.view import View
from heteromig.views import rows, waiting
from heteromig.views.campaign_bar import BAR_EMPTY, BAR_FULL, CampaignProgress, campaign_line
from heteromig.views.footnotes import footnotes
from heteromig.views.rows import BAD, BOLD, DIM, GOOD, PLAIN, WAIT, Line, Piece
from heteromig.views.text import cells, crop, fit, printable, wrap

BADGE = " SIMULATED "
SOFT_BADGE = " SOFT ISOLATION "
_BADGE_STYLE = Style(color="black", bgcolor="yellow", bold=True)
_CURRENT_STYLE = Style(color="cyan", bold=True)

_BAR_WIDTH_MAX = 40
_LABEL_WIDTH = 7
_BARS_NEED_LINES = 18
"""Below this height the rows of slices are worth more than the bars of phases that are over or to come."""

_SHORT_PHASES = {
    Phase.DISCOVERING: "discover",
    Phase.BUILDING: "build",
    Phase.BACKGROUND_STARTING: "start",
    Phase.BUFFERING: "buffer",
    Phase.MAIN_RUNNING: "main",
    Phase.DRAINING: "drain",
    Phase.VALIDATING: "validate",
    Phase.FINISHED: "finished",
}


class Moments(Struct, frozen=True):
    """What a view of a run remembers besides the run: its id, when it began, and when its phase was entered.

    `campaign` is how far that is of which it is one of many.
    """

    run_id: str
    begun_ns: MonotonicNs
    entered_ns: MonotonicNs
    campaign: CampaignProgress | None = None


class Frame:
    """Finished lines; rendering them costs next to nothing."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        """One segment a piece, newlines between the lines and after the last."""
        for line in self.lines:
            for text, style in line:
                yield Segment(text, style)
            yield Segment.line()


def render(
    run: Run, moments: Moments, now_ns: MonotonicNs, last_lines: Mapping[int, str], *, width: int, height: int
) -> Frame:
    """The picture at `now_ns` in at most `height` lines of at most `width` cells."""
    elapsed_s = max(0, now_ns - moments.begun_ns) / NS_PER_S
    top = [
        *([campaign_line(moments.campaign, elapsed_s, width)] if moments.campaign is not None else []),
        _title(run.view, moments, now_ns, width),
        *_breadcrumb(run, moments, now_ns, width),
        *_status(run, moments, now_ns, width),
    ]
    bars = _bars(run, moments, now_ns, width)
    if height < _BARS_NEED_LINES:
        bars = [(phase, line) for phase, line in bars if phase is run.phase]
    lines = [*top, *(line for _, line in bars)]
    lines += _table(run.view, now_ns, last_lines, width, height - len(lines))
    return Frame([_cropped(line, width) for line in lines[:height]])


def _title(view: View, moments: Moments, now_ns: MonotonicNs, width: int) -> Line:
    simulated = view.spec.simulated or (view.inventory is not None and view.inventory.simulated)
    elapsed = format_duration_s(max(0, now_ns - moments.begun_ns) / NS_PER_S)
    badge = BADGE if simulated else SOFT_BADGE if view.spec.isolation is Isolation.SOFT else ""
    badge_width = len(badge) + 2 if badge else 0
    name = crop(f"heteromig {printable(moments.run_id)}", max(10, width - badge_width - len(elapsed) - 2))
    pieces: list[Piece] = [(name, BOLD)]
    if badge:
        pieces += [("  ", PLAIN), (badge, _BADGE_STYLE)]
    pieces.append((elapsed.rjust(max(0, width - len(name) - badge_width)), PLAIN))
    return tuple(pieces)


def _breadcrumb(run: Run, moments: Moments, now_ns: MonotonicNs, width: int) -> list[Line]:
    passed = {transition.source for transition in run.transitions}
    since = format_duration_s(max(0, now_ns - moments.entered_ns) / NS_PER_S)
    names = {phase: phase.value for phase in Phase if phase is not Phase.FINISHED or run.phase is phase}
    if sum(len(name) + 3 for name in names.values()) + len(since) > width:
        names = {phase: _SHORT_PHASES[phase] for phase in names}
    pieces: list[Piece] = []
    for phase, name in names.items():
        if pieces:
            pieces.append((" › ", DIM))  # noqa: RUF001 - a breadcrumb's arrow
        if phase is run.phase:
            pieces.append((f"[{name}]" if phase is Phase.FINISHED else f"[{name} {since}]", _CURRENT_STYLE))
        else:
            pieces.append((name, GOOD if phase in passed else DIM))
    return [tuple(pieces)]


def _status(run: Run, moments: Moments, now_ns: MonotonicNs, width: int) -> list[Line]:
    """Why the run waits; below it what went wrong, the weightiest two."""
    finished = run.phase is Phase.FINISHED
    verdict: Verdict | None = run.verdict if finished else None
    style = PLAIN if verdict is None else (GOOD if verdict.exit_code == 0 else BAD)
    lines: list[Line] = [((crop(waiting.sentence(run, moments.entered_ns, now_ns), width), style),)]
    reasons = run.view.reasons if verdict is None else verdict.reasons
    for reason in reasons[:2]:
        lines += [((text, BAD),) for text in wrap(printable(reason.sentence), width, lines=3)]
    if len(reasons) > 2:  # noqa: PLR2004 - as above
        lines.append(((f"... and {len(reasons) - 2} more reasons", BAD),))
    return lines


def _bars(run: Run, moments: Moments, now_ns: MonotonicNs, width: int) -> list[tuple[Phase, Line]]:
    view = run.view
    progress = {
        Phase.BUILDING: waiting.building(view, now_ns),
        Phase.BUFFERING: waiting.buffering(run, moments.entered_ns, now_ns),
        Phase.MAIN_RUNNING: waiting.measuring(view, now_ns),
    }
    return [(phase, _bar(bar, width, current=phase is run.phase)) for phase, bar in progress.items()]


def _bar(progress: waiting.Progress, width: int, *, current: bool) -> Line:
    cells = max(10, min(_BAR_WIDTH_MAX, width // 2 - _LABEL_WIDTH))
    full = int(progress.fraction * cells)
    return (
        (fit(progress.label, _LABEL_WIDTH), PLAIN if current else DIM),
        (BAR_FULL * full, GOOD if current else DIM),
        (BAR_EMPTY * (cells - full), DIM),
        (f"  {progress.note}", PLAIN if current else DIM),
    )


def _table(view: View, now_ns: MonotonicNs, last_lines: Mapping[int, str], width: int, height: int) -> list[Line]:
    """GPUs above their slices: with second lines where everything fits, else cropped with a count of the rest.

    Below them, as far as there is room, is why readings are missing; one line of that goes before the second lines.
    """
    inventory = view.inventory
    if inventory is None:
        return []
    groups = [(gpu, rows.places(view, inventory, last_lines, gpu)) for gpu in inventory.gpus]
    columns = rows.columns_for(width, (place for _, places in groups for place in places))
    readings = {reading.gpu_uuid: reading for reading in view.sample.gpus} if view.sample else {}
    notes = footnotes(view)
    count = sum(1 + len(places) for _, places in groups)
    used = sum(place.worker is not None for _, places in groups for place in places)
    doubled = rows.LAST not in columns and 1 + count + used + min(1, len(notes)) <= height
    room = height - 1
    cut = count > room
    lines: list[Line] = [rows.title_line(columns, width)]
    hidden: list[rows.Place] = []
    for gpu, places in groups:
        # A GPU's line without at least one of its slices says little: it then goes with the rest.
        if cut and len(lines) + 2 > room:
            hidden += places
            continue
        lines.append(rows.gpu_line(gpu, readings.get(gpu.uuid), view, now_ns))
        for place in places:
            if cut and len(lines) + 1 > room:
                hidden.append(place)
                continue
            lines.append(rows.slice_line(columns, width, place))
            if doubled and place.worker is not None:
                lines.append(rows.second_line(width, place))
    if hidden:
        lines.append(((f" ... {len(hidden)} more slices: {_counted(hidden)}", WAIT),))
    lines += [((f" {note}", DIM),) for note in notes]
    return lines[: max(0, height)]


def _counted(places: list[rows.Place]) -> str:
    states = Counter("unused" if place.worker is None else place.worker.state.value for place in places)
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def _cropped(line: Line, width: int) -> Line:
    """The pieces that fit into `width` cells, the last of them cropped."""
    pieces: list[Piece] = []
    left = width
    for text, style in line:
        short = crop(text, left)
        pieces.append((short, style))
        left -= cells(short)
        if short != text:
            break
    return tuple(pieces)
