"""The live table: the picture of a run on a terminal, drawn anew once a second."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePath

from msgspec.structs import replace
from rich.console import Console
from rich.live import Live

from heteromig.core.guards import Finding
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.units import MonotonicNs
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.frame import Frame, Moments, render
from heteromig.views.outlet import Outlet


class LiveTable:
    """Draws on `tick` and once more at the end, never in between and in no thread of its own.

    Rich composes the update, cursor movements included, into memory; the outlet brings it to the terminal without
    waiting. While the terminal has not taken the last picture yet, no further one is composed: Rich has to know what
    is on the screen.
    """

    def __init__(self, outlet: Outlet, campaign: CampaignProgress | None = None) -> None:
        self._outlet = outlet
        self._screen = io.StringIO()
        self._console = Console(file=self._screen, force_terminal=True, highlight=False)
        self._console.size = outlet.size()
        self._moments = Moments(run_id="", begun_ns=0, entered_ns=0, campaign=campaign)
        self._live = self._new_live()
        self._started = False
        self._run: Run | None = None
        self._last_lines: dict[int, str] = {}

    @property
    def wants_ticks(self) -> bool:
        """As long as there is a terminal."""
        return not self._outlet.gone

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        """Remember the name; the first tick draws."""
        self._moments = replace(self._moments, run_id=PurePath(run_directory).name, begun_ns=at_ns, entered_ns=at_ns)

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - the run knows both
        """Remember when the phase was entered."""
        self._run = run
        self._moments = replace(self._moments, entered_ns=at_ns)

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:
        """Nothing to do: the picture shows what the run waits for."""

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:
        """Nothing to do: the picture shows it."""

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:
        """Draw, unless the terminal is not keeping up."""
        self._run = run
        self._last_lines.update(last_lines)  # workers that have exited are not in it any more
        if not self._outlet.behind:
            self._draw(run, now_ns)

    def end(self, at_ns: MonotonicNs) -> None:
        """Leave the last picture where it is, or that of one run of many to the line about it; give the cursor back."""
        if self._run is not None and not self._outlet.behind:
            self._draw(self._run, at_ns)
        if self._started:
            self._live.stop()
            self._show()
        self._outlet.close()

    def _draw(self, run: Run, now_ns: MonotonicNs) -> None:
        size = self._outlet.size()
        if size != self._console.size:
            self._resize(size)
        width, height = size
        # The cursor rests below the last line, so one line is left for it.
        frame = render(run, self._moments, now_ns, self._last_lines, width=width, height=height - 1)
        if not self._started:
            self._started = True
            self._live.start()
        self._live.update(frame, refresh=True)
        self._show()

    def _resize(self, size: tuple[int, int]) -> None:
        """Start over on a clean screen: the terminal has rewrapped the old picture, so nobody knows its height."""
        if self._started:
            self._live.stop()
            self._screen.seek(0)
            self._screen.truncate()
            self._console.clear()
            self._live = self._new_live()
            self._started = False
        self._console.size = size

    def _new_live(self) -> Live:
        return Live(
            Frame([]),
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
            transient=self._moments.campaign is not None,
        )

    def _show(self) -> None:
        self._outlet.write(self._screen.getvalue())
        self._screen.seek(0)
        self._screen.truncate()
