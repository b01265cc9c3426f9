from __future__ import annotations

import pytest

from heteromig.core.devices import SliceKind
from heteromig.core.errors import UsageError
from heteromig.slices.source import parse_slices


@pytest.mark.parametrize(
    ("text", "kind", "simulated"),
    [
        ("mig", SliceKind.MIG, False),
        ("gpu", SliceKind.GPU, False),
        ("mps:7x14", SliceKind.MPS, False),
        ("sim:a30/2x1g.6gb,2g.12gb", SliceKind.SIM, True),
    ],
)
def test_every_kind_of_source_is_read(text: str, kind: SliceKind, simulated: bool) -> None:  # noqa: FBT001 - a table
    source = parse_slices(text)
    assert (source.kind, source.simulated) == (kind, simulated)
    assert parse_slices(str(source)) == source


def test_a_simulated_source_carries_its_layout() -> None:
    assert str(parse_slices("sim:a100-sxm-80gb")) == "sim:a100-sxm-80gb/7x1g.10gb"


def test_mps_shares_are_read() -> None:
    source = parse_slices("mps:7x14")
    assert (source.mps_shares, source.mps_percent) == (7, 14)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sim:a100-sxm-8gb", "did you mean a100-sxm-80gb?"),
        ("sim:A30", "did you mean a30?"),
        ("sim:", "there is no simulated board ''"),
        ("sim:a30/5x1g.6gb", "write 4x1g.6gb or less"),
        ("mps", "such as mps:7x14"),
        ("mps:0x14", "1 to 48 shares"),
        ("mps:7x101", "1 to 100 %"),
        ("sim", "--slices does not know 'sim'"),
        ("", "--slices does not know ''"),
        ("mig:0", "--slices does not know 'mig:0'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_slices(text)
    assert says in str(refusal.value)
