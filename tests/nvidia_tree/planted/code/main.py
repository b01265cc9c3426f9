"""The driver of v1.1 and v2.0, and of audits in v2.1: `python -m code.main ...`."""

from __future__ import annotations

import sys

from .driver import main

if __name__ == "__main__":
    sys.exit(main("code.main", sys.argv[1:]))
