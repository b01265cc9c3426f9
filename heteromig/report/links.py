"""From the page of a campaign to its runs: relative, and only to what lies in its directory."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from heteromig.runner.rundir import REPORT


def run_in(campaign_dir: Path, run_dir: str) -> Path | None:
    """The directory of a run by the name that an index has for it; None where that is no directory in there."""
    inside = Path(run_dir).name == run_dir != ".."
    found = campaign_dir / run_dir
    return found if inside and os.path.isdir(found) else None  # noqa: PTH112 - it never raises, whatever the name is


def links(campaign_dir: Path, run_dir: str) -> tuple[str, str]:
    """Where the directory of a run and its page are, as seen from the page; empty where they are not there."""
    found = run_in(campaign_dir, run_dir)
    if found is None:
        return "", ""
    where = f"./{quote(run_dir)}"
    return f"{where}/", f"{where}/{REPORT}" if (found / REPORT).is_file() else ""
