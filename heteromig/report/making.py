"""A report from the directory of a run or of a campaign: chosen by format, and written in one step.

The page needs the extra `report` (matplotlib and jinja2), which is imported only where one is made.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shlex
import stat
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

from heteromig.campaigns.directory import MATRIX, TUNE, is_campaign, kind_of, read_campaign
from heteromig.comparing.interference import Interference
from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.report.links import run_in
from heteromig.report.story import Story
from heteromig.report.telling import tell
from heteromig.runner.rundir import REPORT

_PAGES = {TUNE: "tune.html", MATRIX: "matrix.html"}
_NEEDED = ("matplotlib", "jinja2")


class Format(Enum):
    """What kind of report."""

    HTML = "html"
    MD = "md"
    TRACE = "trace"


def missing_packages() -> tuple[str, ...]:
    """What of the extra `report` is not installed; importing nothing."""
    return tuple(name for name in _NEEDED if importlib.util.find_spec(name) is None)


def page_of(directory: Path) -> Path:
    """Where the page of a run or of a campaign belongs."""
    kind = kind_of(directory)
    return directory / (REPORT if kind is None else _PAGES.get(kind, REPORT))


def how_to_make_it(missing: tuple[str, ...], directory: Path) -> str:
    """The sentence for whoever lacks the extra."""
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{page_of(directory).name} needs {' and '.join(missing)}, which {verb} not installed. To make it later: "
        f"pip install 'heteromig[report]', then heteromig report {shlex.quote(str(directory))}"
    )


def report(directory: Path, kind: Format) -> str:
    """The report of a run or of a campaign, however far it got.

    Raises:
        UsageError: `directory` is neither, or there is no such format of it.
        EvidenceError: its journal or index cannot be used.
        PreflightError: the format needs what is not installed.
    """
    missing = missing_packages() if kind is Format.HTML else ()
    if missing:
        raise PreflightError(how_to_make_it(missing, directory) + ".")
    with _uncollected():
        return _render_campaign(directory, kind) if is_campaign(directory) else _render(tell(directory), kind)


def make_pages(directory: Path) -> Path:
    """Write the page of a run or of a campaign, and of its runs those that have none; returns where it is.

    Raises:
        UsageError: `directory` is neither, or the page cannot be written.
        EvidenceError: its journal or index cannot be used.
        PreflightError: matplotlib or jinja2 is not installed.
    """
    page = page_of(directory)
    for run_dir in _runs_of(directory):
        if not (run_dir / REPORT).exists():
            with contextlib.suppress(EvidenceError, UsageError):  # then nothing leads to it
                write(run_dir / REPORT, report(run_dir, Format.HTML))
    write(page, report(directory, Format.HTML))
    return page


def write_matrix(directory: Path, found: Interference) -> None:
    """What a matrix came to in every form but the page, beside its runs.

    Raises:
        UsageError: it cannot be written.
    """
    from heteromig.campaigns.matrix_wording import answer_csv, answer_markdown  # noqa: PLC0415 - only what is there

    texts = {
        "json": msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n",
        "csv": answer_csv(found),
        "md": answer_markdown(found) + "\n",
    }
    for kind, text in texts.items():
        write(directory / f"{MATRIX}.{kind}", text)


def _runs_of(directory: Path) -> list[Path]:
    kind = kind_of(directory)
    if kind == MATRIX:
        from heteromig.campaigns.matrix_index import read_matrix  # noqa: PLC0415 - only what is there

        names = [entry.run_dir for entry in read_matrix(directory).entries]
    else:
        names = [entry.run_dir for entry in read_campaign(directory).entries] if kind == TUNE else []
    return [found for name in names if (found := run_in(directory, name)) is not None]


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


def _render_campaign(directory: Path, kind: Format) -> str:
    if kind is Format.TRACE:
        raise UsageError(f"{directory} is a campaign, which has no trace: name one of the run directories in it.")
    if kind_of(directory) == MATRIX:
        return _render_matrix(directory, kind)
    if kind is Format.MD:
        from heteromig.campaigns.wording import answer_markdown  # noqa: PLC0415 - only what the format needs

        return answer_markdown(read_campaign(directory)) + "\n"
    from heteromig.report.tuning_page import render  # noqa: PLC0415
    from heteromig.report.tuning_story import tell_tuning  # noqa: PLC0415

    return render(tell_tuning(directory))


def _render_matrix(directory: Path, kind: Format) -> str:
    from heteromig.campaigns.matrix import matrix_in  # noqa: PLC0415

    found = matrix_in(directory)
    if kind is Format.MD:
        from heteromig.campaigns.matrix_wording import answer_markdown  # noqa: PLC0415

        return answer_markdown(found) + "\n"
    from heteromig.report.matrix_page import render  # noqa: PLC0415

    return render(found, directory)


def refuse_evidence(directory: Path, path: Path) -> None:
    """Nothing but its page may be written into the directory of a run or of a campaign.

    Raises:
        UsageError: `path` is something else in it.
    """
    inside, page = directory.resolve(), page_of(directory).name
    targets = {path.parent.resolve() / path.name, path.resolve()}
    if any(target.is_relative_to(inside) and target != inside / page for target in targets):
        raise UsageError(
            f"{path} lies in {directory}, whose files are evidence: only {page} may be written there. Choose another "
            "place with --output."
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
