"""`python -m heteromig`: the same as the command `heteromig`."""

from __future__ import annotations

from heteromig.cli.main import main

if __name__ == "__main__":
    main()
