"""What a keeper keeps, and what it says to the controller: one JSON object a line."""

from __future__ import annotations

from typing import Protocol, Union

from msgspec import Struct

from heteromig.slices.lines import Lines

LOOK_AGAIN = "look_again"
"""The line by which a controller asks whether all is still as it was prepared; the answer is `Prepared` or `Lost`."""


class Prepared(Struct, frozen=True, tag="Prepared"):
    """The GPU is as the run wants it; see `events.DevicesPrepared`."""

    gpu_uuid: str
    what: str
    environment: dict[str, str] = {}
    replaced: tuple[tuple[str | None, str | None], ...] = ()


class Refused(Struct, frozen=True, tag="Refused"):
    """It cannot be: a sentence for the user, and the exit code of its kind of error.

    It is as it was, or the sentence says what to do.
    """

    message: str
    exit_code: int


class Lost(Struct, frozen=True, tag="Lost"):
    """What is kept ended by itself, or somebody else ended it: a sentence for the user."""

    message: str


class Restored(Struct, frozen=True, tag="Restored"):
    """It is as it was before; see `events.DevicesRestored`."""

    what: str
    replaced: tuple[tuple[str | None, str | None], ...] = ()


class NotRestored(Struct, frozen=True, tag="NotRestored"):
    """It is not, for that reason."""

    message: str


Message = Union[Prepared, Refused, Lost, Restored, NotRestored]  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too

_LINES: Lines[Message] = Lines(Message)
encode_line = _LINES.encode
decode_line = _LINES.decode


class Kept(Protocol):
    """Something that is done to one GPU for the time of a run. Whoever calls holds the lock on the GPU."""

    @property
    def gpu_uuid(self) -> str:
        """The GPU that it is about."""

    def prepare(self) -> Prepared:
        """Do it.

        Raises:
            HeteromigError: it cannot be done, and nothing is changed; or the message says what is.
        """

    @property
    def watched(self) -> tuple[int, ...]:
        """Descriptors to wait for while the run goes on: readable when what is kept may have ended by itself."""
        ...

    def loss(self) -> str | None:
        """What was lost, as a sentence; None where nothing was.

        Asked when a watched descriptor is readable, and before another run takes it over.
        """

    def obey(self, order: str) -> None:
        """Carry out a line from the controller."""

    def restore(self) -> Restored:
        """Take it back, also what a predecessor did that was killed at any moment.

        Raises:
            BusyError: that is not possible now, and may be in a moment.
            HeteromigError: that is not possible.
        """
