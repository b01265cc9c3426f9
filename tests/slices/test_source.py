from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.devices import SliceKind
from heteromig.core.errors import UsageError
from heteromig.slices.boards import BOARDS
from heteromig.slices.layout import Layout, parse_layout
from heteromig.slices.source import SliceSource, parse_slices


@pytest.mark.parametrize(
    ("text", "kind", "simulated"),
    [
        ("mig", SliceKind.MIG, False),
        ("gpu", SliceKind.GPU, False),
        ("mps:7x14", SliceKind.MPS, False),
        ("sim:a30/2x1g.6gb,2g.12gb", SliceKind.SIM, True),
        ("sim:2xa30/2x1g.6gb,2g.12gb;a100-sxm-80gb", SliceKind.SIM, True),
    ],
)
def test_every_kind_of_source_is_read(text: str, kind: SliceKind, simulated: bool) -> None:  # noqa: FBT001 - a table
    source = parse_slices(text)
    assert (source.kind, source.simulated) == (kind, simulated)
    assert parse_slices(str(source)) == source


def test_a_simulated_source_carries_its_layout() -> None:
    assert str(parse_slices("sim:a100-sxm-80gb")) == "sim:a100-sxm-80gb/7x1g.10gb"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("sim:1xa30", "sim:a30/4x1g.6gb"),
        ("sim:2xa100-sxm-80gb/7x1g.10gb", "sim:2xa100-sxm-80gb/7x1g.10gb"),
        ("sim:a30; a30/4x1g.6gb ;2xa30/", "sim:4xa30/4x1g.6gb"),
        ("sim:a30;h100-sxm-80gb;a30", "sim:a30/4x1g.6gb;h100-sxm-80gb/7x1g.10gb;a30/4x1g.6gb"),
        (
            "sim:a100-sxm-80gb/4x1g.10gb,3g.40gb;a100-sxm-80gb",
            "sim:a100-sxm-80gb/3g.40gb,4x1g.10gb;a100-sxm-80gb/7x1g.10gb",
        ),
        ("sim:16xa30", "sim:16xa30/4x1g.6gb"),
    ],
)
def test_gpus_are_counted_and_keep_their_order(text: str, written: str) -> None:
    assert str(parse_slices(text)) == written
    assert str(parse_slices(written)) == written


HOSTS = st.lists(
    st.sampled_from(
        [parse_layout(board, "") for board in BOARDS.values()]
        + [parse_layout(board, profile.name) for board in BOARDS.values() for profile in board.profiles]
        + [parse_layout(BOARDS["a30"], "2g.12gb,2x1g.6gb"), parse_layout(BOARDS["a100-sxm-80gb"], "2x3g.40gb")]
    ),
    min_size=1,
    max_size=16,
)


@given(host=HOSTS)
def test_every_host_is_written_as_it_is_read(host: list[Layout]) -> None:
    source = SliceSource(kind=SliceKind.SIM, layouts=tuple(host))
    assert parse_slices(str(source)) == source
    one_by_one = ";".join(f"{layout.board.name}/{layout.text}" for layout in host)
    assert parse_slices(f"sim:{one_by_one}") == source


@given(
    text=st.lists(
        st.sampled_from(
            ["a30", "a100-sxm-80gb", "2x", "0x", "17x", "x", "/", ";", ",", "1g.6gb", "2g.20gb", "+me", " "]
        ),
        max_size=8,
    ).map("".join)
)
def test_whatever_is_accepted_is_a_host_and_is_written_as_it_is_read(text: str) -> None:
    try:
        source = parse_slices(f"sim:{text}")
    except UsageError:
        return
    assert 1 <= len(source.layouts) <= 16
    assert parse_slices(str(source)) == source


def test_mps_shares_are_read() -> None:
    source = parse_slices("mps:7x14")
    assert (source.mps_shares, source.mps_percent, source.mps_memory_bytes) == (7, 14, None)


@pytest.mark.parametrize(
    ("text", "memory_bytes", "again"),
    [
        ("mps:7x14,8gib", 8 << 30, "mps:7x14,8gib"),
        ("mps:7x14,8GiB", 8 << 30, "mps:7x14,8gib"),
        ("mps:2x50,512mib", 512 << 20, "mps:2x50,512mib"),
        ("mps:2x50,2048mib", 2 << 30, "mps:2x50,2gib"),
    ],
)
def test_mps_shares_may_have_a_limit_of_memory(text: str, memory_bytes: int, again: str) -> None:
    source = parse_slices(text)
    assert source.mps_memory_bytes == memory_bytes
    assert str(source) == again
    assert parse_slices(again) == source


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sim:a100-sxm-8gb", "did you mean a100-sxm-80gb?"),
        ("sim:A30", "did you mean a30?"),
        ("sim:", "there is no simulated board ''"),
        ("sim:a30/5x1g.6gb", "write 4x1g.6gb or less"),
        ("sim:2xa31", "there is no simulated board 'a31'; did you mean a30?"),
        ("sim:2*a30", "there is no simulated board '2*a30'; did you mean a30?"),
        ("sim:2x", "there is no simulated board ''"),
        ("sim:a30;H100-sxm-80g", "did you mean h100-sxm-80gb?"),
        ("sim:a30/2x2g.12gb;4x1g.6gb", "Write every GPU with its board, such as a30/2x2g.12gb;2xa30."),
        ("sim:a30;", "there is no simulated board ''"),
        ("sim:a30;2xa30/3g.12gb", "the nearest profile is 2g.12gb"),
        ("sim:0xa30", "'0xa30' asks for 0 beside 0 others"),
        ("sim:17xa30", "at most 16 GPUs, and '17xa30' asks for 17 beside 0 others"),
        ("sim:15xa30;2xa100-sxm-80gb", "'2xa100-sxm-80gb' asks for 2 beside 15 others"),
        ("sim:999999xa30", "asks for 999999"),
        ("sim:9999999xa30", "there is no simulated board '9999999xa30'"),
        ("mps", "such as mps:7x14"),
        ("mps:0x14", "1 to 48 shares"),
        ("mps:7x101", "1 to 100 %"),
        ("mps:7x14,0gib", "in gib or mib: mps:7x14,8gib"),
        ("mps:7x14,8gb", "in gib or mib: mps:7x14,8gib"),
        ("mps:7x14,8", "in gib or mib: mps:7x14,8gib"),
        ("mps:7x14,", "in gib or mib: mps:7x14,8gib"),
        ("sim", "--slices does not know 'sim'"),
        ("", "--slices does not know ''"),
        ("mig:0", "--slices does not know 'mig:0'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_slices(text)
    assert says in str(refusal.value)
