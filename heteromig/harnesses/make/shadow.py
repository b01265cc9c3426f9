"""A directory in which a background can run as if it were NVIDIA's tree, and disturb nothing there.

Each start of a harness rewrites `measurements/`, removes `audit.config` and the verify files from its working
directory, and writes below `build/logs` (submission.py:46-76 and auditing.py:86-92 of v2.1). In a shadow all of that is
the background's own, and everything else is a link to the tree.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_PRIVATE_DIRECTORIES = ("measurements", "build/logs")
_PRIVATE = frozenset(
    {"measurements", "audit.config", "accuracy.txt", "predictions.json", "mlperf_log_accuracy_baseline.json"}
)
"""What a start rewrites or removes at the top of the tree, besides the verify files."""
_PRIVATE_PREFIX = "verify_"
_PRIVATE_BUILDS = frozenset({"logs", "compliance_logs"})


def make_shadow(tree: Path, shadow: Path) -> None:
    """Fill `shadow`, which is made, with links to what is in `tree`.

    A link to a directory that `shadow` itself is in would make a loop, and is left out.

    Raises:
        OSError: the file system does not let it.
    """
    shadow.mkdir()
    (shadow / "build").mkdir()
    for name in _PRIVATE_DIRECTORIES:
        (shadow / name).mkdir()
    for entry in _entries(tree, shadow):
        if entry.name != "build" and entry.name not in _PRIVATE and not entry.name.startswith(_PRIVATE_PREFIX):
            (shadow / entry.name).symlink_to(entry.path)
    for entry in _entries(tree / "build", shadow):
        if entry.name not in _PRIVATE_BUILDS:
            (shadow / "build" / entry.name).symlink_to(entry.path)


def remove_shadow(shadow: Path) -> None:
    """Remove it, and none of what its links point at.

    Raises:
        OSError: the file system does not let it.
    """
    if shadow.exists():
        shutil.rmtree(shadow)


def _entries(directory: Path, shadow: Path) -> Iterator[os.DirEntry[str]]:
    if not directory.is_dir():
        return
    inside = shadow.resolve()
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not inside.is_relative_to(Path(entry.path).resolve()):
                yield entry
