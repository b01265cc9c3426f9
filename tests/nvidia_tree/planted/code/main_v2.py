"""The driver of v2.1: `python -m code.main_v2 --benchmarks=... --scenarios=... --action=...`."""

from __future__ import annotations

import sys

from .driver import main

if __name__ == "__main__":
    sys.exit(main("code.main_v2", sys.argv[1:]))
