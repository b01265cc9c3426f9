"""Results for programs, on standard output."""

from __future__ import annotations

import os
import sys

from heteromig.views.outlet import reader_is_gone


def say(text: str | bytes) -> None:
    """Print `text` and a newline.

    A reader that has gone (`heteromig states | head -1`, a terminal that was closed) is no error and changes no exit
    code.

    Raises:
        OSError: the output cannot be written for another reason, such as a full disk.
    """
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    try:
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.flush()
    except OSError as error:
        if not reader_is_gone(error, sys.stdout.fileno()):
            raise
        drop_output()


def drop_output() -> None:
    """Nothing more can be written: the interpreter, which flushes once more when it exits, must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
