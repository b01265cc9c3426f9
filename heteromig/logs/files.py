"""Reading files that others wrote, and that may be something else by now."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from heteromig.core.errors import EvidenceError


def read_regular(path: Path, what: str) -> bytes:
    """All of a file of a run.

    Args:
        path: Where it is; a link is not followed.
        what: What it is, for the messages, as a sentence begins.

    Raises:
        FileNotFoundError: there is nothing of that name.
        EvidenceError: it is no regular file, or cannot be read.
    """
    with open_regular(path, what) as file:
        return file.read()


@contextlib.contextmanager
def open_regular(path: Path, what: str) -> Iterator[BinaryIO]:
    """A file of a run, which is looked at first: opening a FIFO can hang, and reading a device never ends.

    What fails while it is being read is told in the same words. Arguments and errors as in `read_regular`.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise EvidenceError(f"{what} {path} is not a regular file, so nothing is read from it: it was replaced.")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EvidenceError(f"{what} {path} cannot be read: {error.strerror}.") from None
