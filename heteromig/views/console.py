"""How a run is shown: live where somebody is looking at a capable terminal, else in plain lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from heteromig.views.live import LiveTable
from heteromig.views.outlet import Outlet
from heteromig.views.plain import PlainLines
from heteromig.views.reporter import Reporter, Unfailing
from heteromig.views.silent import Silent

_DUMB_TERMINALS = frozenset({"dumb", "unknown"})
_NO = frozenset({"", "0", "false", "no"})


def choose_reporter(*, live: bool | None, quiet: bool, environ: Mapping[str, str], stderr_isatty: bool) -> Reporter:
    """The reporter for standard error.

    `live` is None where the user said neither `--live` nor `--no-live`: then CI, NO_COLOR and a dumb terminal speak
    for plain lines. An explicit `--live` overrules the environment, but cannot move the cursor of a file, of a pipe or
    of a dumb terminal.
    """
    if quiet:
        return Silent()
    outlet = Outlet(sys.stderr)
    if wants_live(live=live, environ=environ, stderr_isatty=stderr_isatty):
        return Unfailing(LiveTable(outlet))
    return Unfailing(PlainLines(outlet))


def wants_live(*, live: bool | None, environ: Mapping[str, str], stderr_isatty: bool) -> bool:
    """Whether the live table is wanted and possible."""
    if not stderr_isatty or environ.get("TERM", "").lower() in _DUMB_TERMINALS:
        return False
    if live is not None:
        return live
    return environ.get("CI", "").lower() in _NO and not environ.get("NO_COLOR", "")
