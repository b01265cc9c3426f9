"""What helper processes say to the controller: one JSON object a line."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from heteromig.core.decoding import require_short_numbers

_Message = TypeVar("_Message")
_ENCODER = msgspec.json.Encoder()

LINE_BYTES_MAX = 4 << 20
"""An inventory of 16 GPUs has less than a hundredth of that. Who says more without an end says nothing readable."""


class Lines(Generic[_Message]):
    """The messages of one kind of helper."""

    def __init__(self, messages: Any) -> None:
        """`messages` is the union of tagged structs that a line may hold."""
        self._decoder = msgspec.json.Decoder(messages)

    def encode(self, message: _Message) -> bytes:
        """The message as one line, newline included."""
        return _ENCODER.encode(message) + b"\n"

    def decode(self, line: bytes) -> _Message:
        """The message in one line.

        Raises:
            msgspec.DecodeError: the line is no message (the helper died within it, or something else wrote there).
        """
        try:
            require_short_numbers(line)
            message: _Message = self._decoder.decode(line)
        except RecursionError as error:
            raise msgspec.DecodeError(str(error)) from None
        return message
