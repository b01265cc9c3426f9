"""Engines: files with the right names and nothing in them that computes."""

from __future__ import annotations

import time
from pathlib import Path

from .catalog import Workload
from .habits import habit, load_s
from .output import LOG, say


def build(workload: Workload) -> None:
    """Write the engines of `workload`.

    Raises:
        RuntimeError: the habit is build-fails.
    """
    what = f"{workload.benchmark.name} benchmark in {workload.scenario} scenario"
    LOG.info("Building engines for %s...", what)
    begun_s = time.monotonic()
    if habit() == "build-fails":
        raise RuntimeError("Building engines failed!")
    if habit() == "slow-start":
        time.sleep(load_s())
    if habit() != "no-engine":
        for path in workload.engine_files:
            LOG.info("Building ./%s", path)
            write(Path(path), workload)
    LOG.info("Finished building engines for %s.", what)
    say(f"Time taken to generate engines: {time.monotonic() - begun_s} seconds")


def write(path: Path, workload: Workload) -> None:
    """Write one engine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{workload.benchmark.name} {workload.scenario} {workload.setting.name}\n", encoding="ascii")


def require(workload: Workload) -> tuple[str, ...]:
    """The engines of `workload`.

    Raises:
        RuntimeError: one is not there.
    """
    for path in workload.engine_files:
        if not Path(path).is_file():
            raise RuntimeError(f"File ./{path} does not exist.")
    return workload.engine_files
