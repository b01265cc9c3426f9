"""Where results are in a tree: `<division>/<submitter>/results/<system>/<benchmark>/<Scenario>/performance/run_*`.

All rounds since v0.5 have that layout, and what else they hold beside it differs. Whatever is not as it should be is
passed over and noted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import UsageError

RESULTS = "results"
MAX_DEPTH = 4
"""How far below TREE a results directory is looked for: `<round>/<division>/<submitter>/results`."""
_NO_RESULTS = frozenset(
    {"build", "calibration", "code", "compliance", "documentation", "measurements", "src", "systems"}
)
"""Neighbours of `results` that hold thousands of directories and no results."""
_OF_POWER = frozenset({"power", "ranging"})
"""What runs that measured power have beside `run_1`."""
_RUN = re.compile(r"run_(\d+)")


class Skipped(Struct, frozen=True):
    """Something that was passed over: its path below TREE, and why."""

    path: str
    reason: str


class Tree:
    """TREE as it is on disk. Reading collects in `skipped` what was passed over, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.skipped: list[Skipped] = []

    def skip(self, path: Path, reason: str) -> None:
        """Note that `path` was passed over."""
        entry = Skipped(self.label(path), reason)
        if entry not in self.skipped:
            self.skipped.append(entry)

    def label(self, path: Path) -> str:
        """`path` below TREE as text that can be printed and encoded; "." is TREE itself."""
        return clean(os.path.relpath(path, self.root))

    def results_directories(self) -> list[Path]:
        """Every results directory: TREE itself, or those below it.

        Raises:
            UsageError: there is none.
        """
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is no directory: name a tree of MLPerf results.")
        if _has_results(self.root) or (self.root.resolve().name == RESULTS and self.directories(self.root)):
            return [self.root]
        found: dict[Path, Path] = {}
        level = [self.root]
        for _ in range(MAX_DEPTH):
            below = [child for path in level for child in self._subdirectories(path)]
            for path in below:
                if path.name == RESULTS and self._subdirectories(path):
                    found.setdefault(path.resolve(), path)
            level = [path for path in below if path.name not in _NO_RESULTS and path.name != RESULTS]
        if not found:
            raise UsageError(
                f"{self.root} is no tree of MLPerf results: neither it nor anything up to {MAX_DEPTH} levels below is "
                f"a directory {RESULTS}/<system>/<benchmark>/<Scenario>/performance/run_1."
            )
        return sorted(found.values())

    def directories(self, path: Path, *, ignore: frozenset[str] = frozenset()) -> dict[str, Path]:
        """The directories in `path` by printable name, sorted; files among them are noted, `ignore` is not."""
        children = {}
        for child in self._entries(path):
            if child.is_dir():
                children[clean(child.name)] = child
            elif child.name not in ignore:
                self.skip(child, "a file where directories are expected")
        return children

    def runs(self, scenario: Path) -> list[Path]:
        """The runs of a scenario's directory, in the order of their numbers."""
        performance = scenario / "performance"
        if not performance.is_dir():
            self.skip(scenario, "it has no directory performance")
            return []
        runs = []
        for name, path in self.directories(performance).items():
            if _RUN.fullmatch(name):
                runs.append(path)
            elif name not in _OF_POWER:
                self.skip(path, "not a run_<number>")
        if not runs:
            self.skip(performance, "it has no directory run_1")
        return sorted(runs, key=lambda path: (int(path.name.removeprefix("run_")), path.name))

    def _subdirectories(self, path: Path) -> list[Path]:
        return [child for child in self._entries(path) if not child.name.startswith(".") and child.is_dir()]

    def _entries(self, path: Path) -> list[Path]:
        try:
            return sorted(path.iterdir())
        except OSError as error:
            self.skip(path, f"it cannot be listed: {error.strerror}")
            return []


def clean(text: str) -> str:
    """`text` without what UTF-8 cannot hold: file names may have any bytes."""
    return os.fsencode(text).decode(errors="replace")


def _has_results(path: Path) -> bool:
    try:
        return any(found.is_dir() for found in path.glob("*/*/*/performance"))
    except OSError:
        return False
