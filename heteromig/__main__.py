"""`heteromig` and `python -m heteromig`: the command line, with an early Ctrl-C taken care of."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interrupt while it is still being imported ends quietly."""
    try:
        from heteromig.cli.main import main as command_line  # noqa: PLC0415 - so that its imports are covered

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
