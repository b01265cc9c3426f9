"""What is written down before a GPU is cut, so that it can be cut back after anything, a killed process included.

It says how the GPU was and which cuts were asked for since, not how far the change got: that is found by looking at the
GPU. The file is replaced as a whole and synced each time, so that it is never half written, and never behind what was
done to the GPU.
"""

from __future__ import annotations

import contextlib
import os
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.errors import PreflightError
from heteromig.slices.mig.partition import Device, Partition
from heteromig.slices.orders import read_orders, unfinished, write_orders
from heteromig.slices.source import SliceSource

SCHEMA_VERSION = 1
RUN_JOURNAL = "layout.json"
"""The name of the file in a run directory."""

_BYTES_MAX = 1 << 20


class Progress(Enum):
    """What the GPU may be like: only `applied` and `restored` say that nothing was under way."""

    APPLYING = "applying"
    APPLIED = "applied"
    RESTORING = "restoring"
    RESTORED = "restored"


class LayoutJournal(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    `slices` and `runs_dir` open the library that knows the GPU. `mig_before` is whether MIG was on, `before` how the
    GPU was cut, and `asked` every cut that was asked for since, the last one being the one in force. `devices_before`
    and `devices_after` have the UUIDs; the latter are None until a cut was made and verified.
    """

    schema_version: int
    tool_version: str
    slices: str
    runs_dir: str
    gpu_uuid: str
    gpu_name: str
    written_at: str
    progress: Progress
    mig_before: bool
    before: Partition
    asked: tuple[Partition, ...]
    devices_before: tuple[Device, ...]
    devices_after: tuple[Device, ...] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the GPU was not cut back yet."""
        return self.progress is not Progress.RESTORED


class _Version(Struct, frozen=True):
    schema_version: int


class JournalFile:
    """The file at `path`. One that was `found`, rather than named or made, must belong to this user or to root."""

    def __init__(self, path: Path, *, found: bool = False) -> None:
        self.path = path
        self._found = found

    def read(self) -> LayoutJournal | None:
        """What was written last, None if nothing ever was.

        Raises:
            PreflightError: it cannot be read, is of another version, or was found and is somebody else's.
        """
        try:
            data = read_orders(self.path, _BYTES_MAX, only_trusted=self._found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PreflightError(f"The journal of the layout {self.path} cannot be read: {error.strerror}.") from None
        try:
            version = decode(data, _Version).schema_version
            if version == SCHEMA_VERSION:
                return decode(data, LayoutJournal)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PreflightError(
                f"The journal of the layout {self.path} is not readable ({error}): it was altered. See how the GPU is "
                "cut with heteromig mig show, cut it as it should be, and remove the file."
            ) from None
        raise PreflightError(
            f"The journal of the layout {self.path} was written by another version of heteromig (schema {version}, and "
            f"this one reads {SCHEMA_VERSION}): restore with the version that wrote it."
        )

    def tidy(self) -> None:
        """Remove what somebody left who was killed while writing."""
        with contextlib.suppress(OSError):
            unfinished(self.path).unlink(missing_ok=True)

    def write(self, journal: LayoutJournal) -> None:
        """Replace it, and wait until it is on the disk.

        Raises:
            PreflightError: it cannot be written, so that nothing may be changed.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_orders(self.path, journal)
        except OSError as error:
            raise PreflightError(
                f"The journal of the layout {self.path} cannot be written ({error.strerror}), and without it the GPU "
                "could not be cut back: name a place for it with --journal."
            ) from None


def journal_directory(source: SliceSource, runs_dir: Path) -> Path:
    """Where journals are that belong to no run: with the runs for simulated GPUs, else with the state of the machine.

    That is `/var/lib/heteromig/layouts` for root and below `$XDG_STATE_HOME` for others, never a directory that
    everybody may write to: what a journal says is done to the GPU.
    """
    if source.simulated:
        return runs_dir / ".layouts"
    if os.geteuid() == 0:
        return Path("/var/lib/heteromig/layouts")
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "heteromig", "layouts")


def journals_in(directory: Path) -> list[JournalFile]:
    """Every journal there, in the order of their names."""
    return [JournalFile(path) for path in sorted(directory.glob("*.json"))]
