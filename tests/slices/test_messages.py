from __future__ import annotations

import msgspec
import pytest

from heteromig.core.devices import Inventory
from heteromig.slices.messages import Discovered, Faulted, Message, Refused, Sampled, decode_line, encode_line
from heteromig.slices.nvml import Library
from heteromig.slices.telemetry import take_sample


def test_every_message_survives_its_line(library: Library, inventory: Inventory) -> None:
    said: list[Message] = [
        Discovered(inventory),
        Refused("There is no GPU:\nuse another machine.", 7),
        Sampled(take_sample(library, inventory)),
        Faulted("Xid 79"),
    ]
    lines = [encode_line(message) for message in said]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert [decode_line(line) for line in lines] == said


@pytest.mark.parametrize("line", [b"", b"Traceback", b'{"type":"Sampled"}', b'{"type":"Unknown"}'])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_line(line)
