"""The command line: `heteromig run`, `baseline`, `compare`, `report`, `verify`, `doctor`, `mig` and the rest."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import traceback
from typing import Annotated

import typer

from heteromig import __version__
from heteromig.cli import cleaning, comparing, doctor, importing, inspecting, mig, replaying, reporting, running
from heteromig.cli.printing import drop_output
from heteromig.core.errors import HeteromigError

_REFUSALS = {
    errno.ENOSPC: "Make room",
    errno.EDQUOT: "Make room",
    errno.EFBIG: "Allow larger files",
    errno.EROFS: "Choose another place with --runs-dir",
    errno.EACCES: "Choose another place with --runs-dir",
    errno.EIO: "Look into the kernel's log",
    errno.EMFILE: "Allow more open files",
    errno.ENFILE: "Allow more open files",
    errno.ENOMEM: "Free some memory",
    errno.ENOENT: "Leave the run directory, and the directory you started in, where they are",
    errno.ENOTDIR: "Leave the run directory where it is",
}
"""What goes wrong with the machine rather than with this program, and what to do about it."""

app = typer.Typer(
    name="heteromig",
    help="Measure one benchmark on one GPU slice while others keep every other slice busy, and prove that they did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
running.register(app)
inspecting.register(app)
replaying.register(app)
doctor.register(app)
mig.register(app)
cleaning.register(app)
comparing.register(app)
reporting.register(app)
importing.register(app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it by position
    """Eager: it answers before a command is looked for."""
    if wanted:
        typer.echo(f"heteromig {__version__}")
        raise typer.Exit


@app.callback()
def heteromig(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that go before the command."""


def main() -> None:
    """Run a command and exit with its code; every foreseen failure is one sentence on stderr."""
    _open_standard_files()
    _spell_what_can_be_spelt()
    try:
        app()
    except HeteromigError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last place where a bug can be turned into an exit code
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            where = f" for {error.filename}" if error.filename else ""
            _complain(f"The system refused{where}: {error.strerror}. {_REFUSALS[error.errno]}, then try again.")
            drop_output()
        else:
            traceback.print_exc()
            _complain("This is a bug in heteromig. Please report it with the lines above.")
        sys.exit(1)


def _open_standard_files() -> None:
    """Put /dev/null where the caller closed a standard file, or the next file opened would take its number."""
    for number in range(3):
        if not os.path.lexists(f"/proc/self/fd/{number}"):
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _spell_what_can_be_spelt() -> None:
    """Where the locale has no ° and no lines for a tree, question marks stand for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")


def _complain(said: str) -> None:
    from heteromig.views.text import sentence  # noqa: PLC0415 - only now, because `--help` has to be quick

    with contextlib.suppress(OSError):  # where nobody can be told any more, the exit code still says it
        typer.echo(f"heteromig: {sentence(said)}", err=True)
