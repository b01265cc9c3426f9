"""Who may have a main in NVIDIA's tree: one audit, or any number of others.

An audit puts `audit.config` and its verify files into the tree, and its logs where every audit of that benchmark puts
them; whatever starts in the tree meanwhile obeys the former, or removes both (auditing.py:86-92 of v2.1).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from heteromig.core.errors import PreflightError


def hold_tree(tree: Path, *, alone: bool) -> int:
    """Hold the tree until the descriptor that is returned is closed, or this process ends; it leaves no file.

    Raises:
        PreflightError: another run is in the tree, and one of the two is to be `alone`.
        OSError: the tree cannot be opened.
    """
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        who = "Another heteromig run is" if alone else "An audit of another heteromig run is"
        raise PreflightError(
            f"{who} at work in {tree}, and an audit has to be alone there: its audit.config and its logs are where "
            "all others find them. Wait until it has ended, or use another copy of the tree."
        ) from None
    except OSError:
        pass  # file systems of other hosts may know no such locks; logs show when an audit.config was in the way
    return descriptor
