"""Where the driver writes: its log to stderr, all else to stdout, which the lines of the harness flush."""

from __future__ import annotations

import logging
import sys

LOG = logging.getLogger("driver")


def say(line: str = "") -> None:
    """Print one line, which may stay in the buffer for a while."""
    sys.stdout.write(f"{line}\n")


def start_log() -> None:
    """Log to stderr, each line with time, file and level."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s %(filename)s:%(lineno)d %(levelname)s] %(message)s")
