"""The run directory: made once, never overwritten; regular files and directories only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.names import directory_name
from heteromig.core.spec import Goal, RunSpec
from heteromig.core.units import NS_PER_S, UtcNs
from heteromig.slices.mig import journal as mig
from heteromig.slices.mps import journal as mps
from heteromig.slices.orders import unfinished
from heteromig.workers.private import create_private

RUN_JSON = "run.json"
CERTIFICATE = "certificate.json"
REPORT = "report.html"
TELEMETRY = "telemetry.jsonl"
PLAN = "plan.toml"
SAMPLER_LOG = "sampler.log"
KEEPER_LOG = "keeper.log"
LATEST = "latest"

UNSEALED = frozenset({CERTIFICATE, REPORT, mig.RUN_JOURNAL, mps.RUN_JOURNAL})
"""What the certificate does not list: itself, what is made from the rest at any time, and how to take back what was
done to the GPU, which is closed after the run where that was not possible within it."""


_DIRECTORY_MODE = 0o755
"""Of directories: others may look, as far as the umask lets them; files that are not for them say so themselves."""


def create_run_dir(spec: RunSpec, at_utc_ns: UtcNs, series_dir: Path | None = None) -> Path:
    """A fresh directory for one run, and the `latest` link beside it, unless it is one of a series.

    Raises:
        UsageError: it cannot be made.
    """
    kind = "-baseline" if spec.goal is Goal.BASELINE else ""
    runs = Path(spec.runs_dir).absolute()
    run_dir = _create(series_dir or runs, f"{_stem(spec, at_utc_ns)}{kind}", "workers")
    if series_dir is None:
        _point_latest(runs, run_dir.name)
    return run_dir


def create_series_dir(spec: RunSpec, at_utc_ns: UtcNs, kind: str = "repeat") -> Path:
    """A fresh directory for several runs of one main, and the `latest` link beside it; its name ends with `kind`.

    Raises:
        UsageError: it cannot be made.
    """
    runs = Path(spec.runs_dir).absolute()
    series_dir = _create(runs, f"{_stem(spec, at_utc_ns)}-{kind}", "")
    _point_latest(runs, series_dir.name)
    return series_dir


def create_campaign_dir(spec: RunSpec, at_utc_ns: UtcNs, kind: str) -> Path:
    """A fresh directory for runs of several mains, and the `latest` link beside it; its name is a time and `kind`.

    Raises:
        UsageError: it cannot be made.
    """
    runs = Path(spec.runs_dir).absolute()
    campaign_dir = _create(runs, f"{_stamp(at_utc_ns)}-{kind}", "")
    _point_latest(runs, campaign_dir.name)
    return campaign_dir


def _stem(spec: RunSpec, at_utc_ns: UtcNs) -> str:
    return directory_name(_stamp(at_utc_ns), spec.main.benchmark, spec.main.scenario)


def _stamp(at_utc_ns: UtcNs) -> str:
    return datetime.fromtimestamp(at_utc_ns / NS_PER_S, tz=timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def _create(parent: Path, stem: str, within: str) -> Path:
    try:
        make_directories(parent)
        made = _make_unique(parent, stem)
        if within:
            (made / within).mkdir(_DIRECTORY_MODE)
    except OSError as error:
        raise no_run_dir(parent, error) from None
    return made


def make_directories(path: Path) -> None:
    """Make a directory and its parents, which nobody else may write to whatever the umask is.

    Raises:
        OSError: the file system does not let it.
    """
    for directory in (*reversed(path.parents), path):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(_DIRECTORY_MODE)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def no_run_dir(runs: Path, error: OSError) -> UsageError:
    """What is said where no run directory can be made."""
    return UsageError(
        f"No run directory can be made in {runs}: {error.strerror}. Choose another place with --runs-dir."
    )


def _make_unique(runs: Path, stem: str) -> Path:
    """Two runs of one second get different names."""
    number = 1
    while True:
        run_dir = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            run_dir.mkdir(_DIRECTORY_MODE)
        except FileExistsError:
            number += 1
        else:
            return run_dir


def _point_latest(runs: Path, name: str) -> None:
    """Replace the link in one step; a `latest` that is no link is somebody else's, and stays."""
    link, fresh = runs / LATEST, runs / f".{LATEST}-{os.getpid()}"
    if link.is_symlink() or not link.exists():
        with contextlib.suppress(OSError):
            fresh.symlink_to(name)
            fresh.replace(link)


def write_json(path: Path, value: object, *, sync: bool, private: bool = False) -> None:
    """Replace a file by the JSON of `value`, in one step.

    `sync` waits for the disk; `private` is for what only its owner may read. Whoever is killed in between leaves a file
    of another name, which the next call replaces, and `heteromig clean` removes.
    """
    fresh = unfinished(path)
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = create_private(fresh) if private else os.open(fresh, flags, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:  # a full disk: what was there before stays, and nothing half written beside it
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileHash(Struct, frozen=True):
    """One file of a run; `path` is relative to the run directory."""

    path: str
    bytes: int
    sha256: str


def tidy(run_dir: Path) -> None:
    """Remove links and the like that programs left in their directories, and spell out names that are no text.

    What cannot be removed stays, and is told when the files are hashed.
    """
    for folder, directories, names in os.walk(run_dir / "workers", topdown=False):
        for name in (*names, *directories):
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    path.unlink()
                elif (spelt_out := os.fsencode(name).decode(errors="backslashreplace")) != name:
                    while os.path.lexists(path.with_name(spelt_out)):
                        spelt_out += "_"
                    path.rename(path.with_name(spelt_out))


def hash_files(run_dir: Path) -> tuple[FileHash, ...]:
    """Every regular file of the run but those that are not sealed, sorted by path.

    Raises:
        EvidenceError: a file cannot be read, or there is something that is neither file nor directory.
    """
    found: list[FileHash] = []
    for folder, directories, names in os.walk(run_dir):
        directories.sort()
        for name in [*names, *(directory for directory in directories if Path(folder, directory).is_symlink())]:
            path = Path(folder, name)
            relative = path.relative_to(run_dir).as_posix()
            if relative in UNSEALED:
                continue
            if path.is_symlink() or not path.is_file():
                raise EvidenceError(f"{path} is not a regular file, and a run directory holds no other: remove it.")
            found.append(_hash_file(path, relative))
    return tuple(sorted(found, key=lambda file: file.path))


def _hash_file(path: Path, relative: str) -> FileHash:
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}.") from None
    return FileHash(path=relative, bytes=size_bytes, sha256=digest.hexdigest())
