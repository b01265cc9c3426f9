"""What people are told of a campaign while it goes on."""

from __future__ import annotations

import contextlib
import sys
import textwrap

import typer

from heteromig.views.console import is_terminal
from heteromig.views.output import width_of

_INDENT = "   "


def tell(text: str, *, quiet: bool = False) -> None:
    """Print lines for people on standard error, on a terminal broken between words; nothing for who wants it quiet.

    A terminal that is gone is no reason to stop: what comes of it is written to files.
    """
    if quiet:
        return
    lines = text.split("\n")
    if is_terminal():
        # Paths stay whole, to be copied.
        wrapper = textwrap.TextWrapper(
            width_of(sys.stderr), subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
        )
        lines = [part for line in lines for part in wrapper.wrap(line) or [""]]
    with contextlib.suppress(OSError):
        typer.echo("\n".join(lines), err=True)
