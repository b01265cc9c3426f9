"""A report from a run directory: chosen by format, and written in one step.

The page needs the extra `report` (matplotlib and jinja2), which is imported only where one is made.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import stat
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from heteromig.core.errors import PreflightError, UsageError
from heteromig.report.story import Story
from heteromig.report.telling import tell
from heteromig.runner.rundir import REPORT

_NEEDED = ("matplotlib", "jinja2")


class Format(Enum):
    """What kind of report."""

    HTML = "html"
    MD = "md"
    TRACE = "trace"


def missing_packages() -> tuple[str, ...]:
    """What of the extra `report` is not installed; importing nothing."""
    return tuple(name for name in _NEEDED if importlib.util.find_spec(name) is None)


def how_to_make_it(missing: tuple[str, ...], run_directory: str) -> str:
    """The sentence for whoever lacks the extra; `run_directory` as a shell reads it."""
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{REPORT} needs {' and '.join(missing)}, which {verb} not installed. To make it later: "
        f"pip install 'heteromig[report]', then heteromig report {run_directory}"
    )


def report(run_dir: Path, kind: Format) -> str:
    """The report of a run, however far it got.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: its journal cannot be used.
        PreflightError: the format needs what is not installed.
    """
    missing = missing_packages() if kind is Format.HTML else ()
    if missing:
        raise PreflightError(how_to_make_it(missing, str(run_dir)) + ".")
    with _uncollected():
        return _render(tell(run_dir), kind)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without looking for garbage: all that is made lives until it is rendered, and looking is a tenth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _render(story: Story, kind: Format) -> str:
    if kind is Format.MD:
        from heteromig.report.markdown import markdown  # noqa: PLC0415 - only what the format needs

        return markdown(story)
    if kind is Format.TRACE:
        from heteromig.report.trace import trace  # noqa: PLC0415

        return trace(story)
    from heteromig.report.run_page import render  # noqa: PLC0415

    return render(story)


def refuse_evidence(run_dir: Path, path: Path) -> None:
    """Nothing but `report.html` may be written into a run directory.

    Raises:
        UsageError: `path` is something else in it.
    """
    inside = run_dir.resolve()
    targets = {path.parent.resolve() / path.name, path.resolve()}
    if any(target.is_relative_to(inside) and target != inside / REPORT for target in targets):
        raise UsageError(
            f"{path} lies in the run directory, whose files are evidence: only {REPORT} may be written there. Choose "
            "another place with --output."
        )


def write(path: Path, text: str) -> None:
    """Replace `path` in one step, readable for everybody; a link is replaced and not followed.

    Raises:
        UsageError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        try:
            with fresh.open("wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text.encode())
            fresh.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def write_where_told(path: Path, text: str) -> None:
    """The same for a path that a user gave; what is there and no regular file, as `/dev/stdout`, is written into.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        if not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode):
            write(path, text)
        else:
            path.write_bytes(text.encode())
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"The report cannot be written to {path}: {error.strerror}. Choose another place with --output.")
