"""What is written down before an MPS daemon is started, so that nothing of it outlives the run, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.errors import PreflightError
from heteromig.slices.orders import read_orders, write_orders

SCHEMA_VERSION = 1
RUN_JOURNAL = "mps.json"
"""The name of the file in a run directory."""

_BYTES_MAX = 1 << 20


class DaemonProcess(Struct, frozen=True):
    """A process of the daemon's: `start_time`, in clock ticks since boot, tells it from a later one of that pid."""

    pid: int
    start_time: int
    command: str


class ShareJournal(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    `directory` has the daemon's pipes, and is its own: what has it in its environment and is named as NVIDIA's programs
    are belongs to it. `processes` are those that were seen. `ended` says that nothing of all that is left.
    """

    schema_version: int
    tool_version: str
    gpu_uuid: str
    slices: str
    directory: str
    written_at: str
    processes: tuple[DaemonProcess, ...] = ()
    ended: bool = False


def read_journal(path: Path, *, found: bool = False) -> ShareJournal | None:
    """What was written last, None if nothing ever was.

    One that was `found`, rather than named or made, must belong to this user or to root.

    Raises:
        PreflightError: it cannot be understood, or was found and is somebody else's.
    """
    try:
        data = read_orders(path, _BYTES_MAX, only_trusted=found)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PreflightError(f"What is known of the MPS daemon ({path}) cannot be read: {error.strerror}.") from None
    try:
        journal = decode(data, ShareJournal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PreflightError(
            f"What is known of the MPS daemon ({path}) cannot be understood ({error}): it was altered, or written by "
            "another version of heteromig. Look for a daemon with ps -C nvidia-cuda-mps-control, and end it."
        ) from None
    if journal.schema_version != SCHEMA_VERSION:
        raise PreflightError(
            f"{path} was written by heteromig {journal.tool_version} (schema {journal.schema_version}, and this one "
            f"reads {SCHEMA_VERSION}): end the daemon with the version that started it."
        )
    return journal


def write_journal(path: Path, journal: ShareJournal) -> None:
    """Replace it, and wait until it is on the disk.

    Raises:
        PreflightError: it cannot be written, so that nothing may be started.
    """
    try:
        write_orders(path, journal)
    except OSError as error:
        raise PreflightError(
            f"{path} cannot be written ({error.strerror}), and without it an MPS daemon could be left behind: choose "
            "another place with --runs-dir."
        ) from None
