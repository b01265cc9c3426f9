"""A directory in which a background can run as if it were NVIDIA's tree, and disturb nothing there.

Each start of a harness rewrites `measurements/`, removes `audit.config` and the verify files from its working
directory, and writes below `build/logs` (submission.py:46-76 and auditing.py:86-92 of v2.1). In a shadow all of that is
the background's own, and everything else is a link to the tree.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SHADOW = "tree"
"""Its name in the directory of a background."""

_PRIVATE_DIRECTORIES = ("measurements", "build/logs")
_PRIVATE = frozenset(
    {"measurements", "audit.config", "accuracy.txt", "predictions.json", "mlperf_log_accuracy_baseline.json"}
)
"""What a start rewrites or removes at the top of the tree, besides the verify files."""
_PRIVATE_PREFIX = "verify_"
_PRIVATE_BUILDS = frozenset({"logs", "compliance_logs"})


def make_shadow(tree: Path, shadow: Path, *, runs_dir: Path) -> None:
    """Fill `shadow`, which is made, with links to what is in `tree`.

    `runs_dir` is where run directories are, that of `shadow` among them. It may be anywhere in the tree: a link to a
    directory that `shadow` itself is in would make a loop, so such a directory is made anew down to `runs_dir`, with
    links to what else is in it.

    Raises:
        OSError: the file system does not let it.
    """
    shadow.mkdir()
    (shadow / "build").mkdir()
    for name in _PRIVATE_DIRECTORIES:
        (shadow / name).mkdir()
    inside, runs = os.path.realpath(shadow), os.path.realpath(runs_dir)
    top = [entry for entry in _entries(tree) if entry.name != "build" and not _is_private(entry.name)]
    _link(top, shadow, inside, runs)
    builds = [entry for entry in _entries(tree / "build") if entry.name not in _PRIVATE_BUILDS]
    _link(builds, shadow / "build", inside, runs)


def remove_shadow(shadow: Path) -> None:
    """Remove it, as far as that goes, and none of what its links point at.

    Raises:
        OSError: something of it is left.
    """
    shutil.rmtree(shadow, ignore_errors=True)  # which goes on with the rest, so that no link stays that can go
    if os.path.lexists(shadow):
        shutil.rmtree(shadow)  # to learn why


def _is_private(name: str) -> bool:
    return name in _PRIVATE or name.startswith(_PRIVATE_PREFIX)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _link(entries: list[os.DirEntry[str]], destination: Path, inside: str, runs: str) -> None:
    """Links in `destination` to `entries`; `inside` and `runs` are the real paths of the shadow and of its runs."""
    for entry in entries:
        path = os.path.realpath(entry.path)  # which, unlike Path.resolve, does not mind links that go in circles
        if not _contains(path, inside):
            (destination / entry.name).symlink_to(entry.path)
        elif entry.is_dir(follow_symlinks=False) and path != runs and _contains(path, runs):
            (destination / entry.name).mkdir()
            _link(_entries(Path(entry.path)), destination / entry.name, inside, runs)


def _contains(directory: str, path: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip(os.sep)}{os.sep}")
