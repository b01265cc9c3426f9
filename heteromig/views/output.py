"""Results on standard output: coloured and as wide as the terminal, or plain when it is a file or a pipe."""

from __future__ import annotations

import io
import os
from typing import TextIO

from rich.console import Console
from rich.text import Text

from heteromig.views.outlet import reader_is_gone

_PIPE_WIDTH = 100


def width_of(stream: TextIO) -> int:
    """Columns of the terminal that `stream` is; 100 where it is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _PIPE_WIDTH
    except (OSError, ValueError):
        return _PIPE_WIDTH


def show(text: Text, stream: TextIO) -> None:
    """Print `text` with its own line breaks only, so that what is copied from it is whole.

    A reader that has gone (`heteromig slices | head -1`, a terminal that was closed) is no error and changes no exit
    code.

    Raises:
        OSError: the output cannot be written for another reason, such as a full disk.
    """
    memory = io.StringIO()
    console = Console(file=memory, force_terminal=stream.isatty(), highlight=False)
    console.print(text, soft_wrap=True)
    try:
        stream.write(memory.getvalue())
        stream.flush()
    except OSError as error:
        if not reader_is_gone(error, stream.fileno()):
            raise
        # The interpreter flushes once more at exit, and would complain about what is left in the buffer.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(nowhere.fileno(), stream.fileno())
