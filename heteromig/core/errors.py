"""The exception tree, split by whose fault it is.

Each message is a sentence that says what is wrong, where, and what to do about it. Anything else that escapes is a
bug in heteromig and ends with exit code 1.
"""

from __future__ import annotations

from typing import ClassVar


class HeteromigError(Exception):
    """Any failure that heteromig foresees; never raised itself."""

    exit_code: ClassVar[int] = 1


class UsageError(HeteromigError):
    """The command line, the environment or the configuration asks for something that cannot be."""

    exit_code = 2


class PreflightError(HeteromigError):
    """The machine is not ready: no slices, no driver, a lock held by somebody else."""

    exit_code = 7


class BusyError(PreflightError):
    """Somebody else uses what is needed, and may be done with it in a moment."""


class EvidenceError(HeteromigError):
    """A file that a proof needs is missing, cut short or altered."""

    exit_code = 9
