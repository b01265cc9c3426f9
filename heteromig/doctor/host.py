"""Findings about the rest of the machine: directories, harness, packages, processors, clock."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from heteromig.core.devices import SliceKind
from heteromig.core.errors import HeteromigError
from heteromig.core.spec import RunSpec
from heteromig.core.units import NS_PER_S, format_bytes
from heteromig.doctor.findings import Finding, ok, problem, unknown, warning
from heteromig.harnesses import Harness
from heteromig.runner.rundir import no_run_dir
from heteromig.slices.source import SliceSource

_PLENTY_BYTES = 1 << 30
_SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
_CLOCK_SOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"
_MPS_CONTROL = "nvidia-cuda-mps-control"
_EXTRA = re.compile(r"""^(?P<name>[A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['"](?P<extra>[\w-]+)['"]""")
_FOR_DEVELOPERS = "dev"
_TORCH_CUDA = re.compile(r"""^cuda\b[^=]*=\s*['"]([\d.]+)['"]""", re.MULTILINE)


def about_runs_dir(runs_dir: Path) -> Iterator[Finding]:
    """Whether run directories can be made, and how much they may hold; nothing is made."""
    place = runs_dir.absolute()
    while not os.path.lexists(place):
        place = place.parent
    try:
        if place == runs_dir.absolute() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _try_writing(place)
        free_bytes = shutil.disk_usage(place).free
    except OSError as error:
        yield problem("runs-dir", no_run_dir(runs_dir.absolute(), error))
        return
    what = f"{runs_dir.absolute()}, {format_bytes(free_bytes)} free"
    if free_bytes < _PLENTY_BYTES:
        yield warning("runs-dir", what, "Make room, or choose another place with --runs-dir.")
    else:
        yield ok("runs-dir", what)


def _try_writing(directory: Path) -> None:
    """Raises OSError where no file can be made in the directory. A file without a name is gone at once."""
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except IsADirectoryError:  # the file system knows no such files (open(2))
        _ask_access(directory)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _ask_access(directory)


def _ask_access(directory: Path) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def about_harness(harness: Harness, spec: RunSpec) -> Iterator[Finding]:
    """Whether the harness can run here."""
    try:
        harness.preflight(spec)
    except HeteromigError as error:
        yield problem("harness", error)
        return
    where = f", NVIDIA's tree in {spec.harness_dir}" if spec.harness_dir else ""
    names = "" if harness.name != "command" else f": {', '.join(one.name for one in spec.commands)}"
    yield ok("harness", f"{harness.name} can run here{where}{names}")


def about_tools(source: SliceSource) -> Iterator[Finding]:
    """Programs that shares of a GPU need."""
    if source.kind is not SliceKind.MPS:
        return
    path = shutil.which(_MPS_CONTROL)
    if path is None:
        yield problem(
            "mps-control", f"There is no {_MPS_CONTROL} on the PATH: it comes with NVIDIA's driver; install it."
        )
    else:
        yield ok("mps-control", path)


def about_packages(source: SliceSource, spec: RunSpec) -> Iterator[Finding]:
    """Extras of heteromig, and PyTorch, which computes on real slices."""
    try:
        requirements = metadata.requires("heteromig") or []
    except metadata.PackageNotFoundError:
        yield unknown("extras", "n/a: heteromig runs from a directory, and was not installed", "pip install heteromig")
        return
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        match = _EXTRA.match(requirement)
        if match is not None and match["extra"] != _FOR_DEVELOPERS:
            extras.setdefault(match["extra"], []).append(match["name"])
    for extra, names in extras.items():
        missing = [name for name in names if release_of(name) is None]
        what = ", ".join(f"{name} {release_of(name) or 'is missing'}" for name in names)
        if not missing:
            yield ok(f"extra-{extra}", what)
        elif extra == spec.harness:
            yield warning(f"extra-{extra}", what, f"pip install 'heteromig[{extra}]'")
        else:
            yield unknown(f"extra-{extra}", f"not installed: {', '.join(missing)}", f"pip install 'heteromig[{extra}]'")
    if not source.simulated and spec.harness == "loadgen":
        yield _about_torch()


def _about_torch() -> Finding:
    """Whether there is one that can use a GPU, by what lies on the disk: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        what = "not installed, and nothing else of the loadgen harness computes on a GPU"
        return warning("torch", what, "pip install torch")
    release = release_of("torch") or "of unknown release"
    try:
        version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return unknown("torch", f"{release}; whether it is built for CUDA is not known")
    cuda = _TORCH_CUDA.search(version)
    if cuda is None:
        return warning(
            "torch", f"{release}, built without CUDA", "Install one that is built for CUDA: pip install torch"
        )
    return ok("torch", f"{release}, built for CUDA {cuda[1]}")


def release_of(distribution: str) -> str | None:
    """The installed release, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def about_processors(source: SliceSource) -> Iterator[Finding]:
    """How many there are for the run."""
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 0
    what = f"{usable} of {there} may be used" if usable != there else f"{usable}"
    if source.simulated and usable < 2:  # noqa: PLR2004 - main's own, and one for all others
        yield warning(
            "processors", f"{what}: main cannot have one for itself", "Give it two or more (taskset, the container)."
        )
    else:
        yield ok("processors", what)


def about_clock(root: Path = Path("/")) -> Iterator[Finding]:
    """What time is read from: LoadGen reads it for each query."""
    resolution_ns = round(time.clock_getres(time.CLOCK_MONOTONIC) * NS_PER_S)
    try:
        source = (root / _CLOCK_SOURCE).read_text(encoding="ascii").strip()
    except OSError:
        yield unknown("clock", f"resolution {resolution_ns} ns; /{_CLOCK_SOURCE} cannot be read")
        return
    what = f"{source}, resolution {resolution_ns} ns"
    if source in _SLOW_CLOCKS:
        yield warning(
            "clock",
            f"{what}: it takes a microsecond to read",
            f"echo tsc | sudo tee /{_CLOCK_SOURCE}, if it offers that.",
        )
    else:
        yield ok("clock", what)
