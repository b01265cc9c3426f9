"""What the program prints. Each line is flushed: whoever reads the file must see it while the program runs."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """One line on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(sentence: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"error: {sentence}\n")
    sys.stderr.flush()
