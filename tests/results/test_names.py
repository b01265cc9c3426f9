from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.results.names import HETERO, Match, SystemName, find_baseline, is_hetero, parse_name, plain_name
from tests.results.trees import A30, DGX

V11 = (
    "A30-MIG_1x1g.6gb_TRT",
    "A30-MIG_1x1g.6gb_TRT_Triton",
    "A30-MIG_32x1g.6gb_TRT_Triton",
    "A30x1_TRT",
    "A30x8_TRT",
    "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT",
    "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT_Triton",
    "DGX-A100_A100-SXM-80GB-MIG_56x1g.10gb_TRT_Triton",
    "DGX-A100_A100-SXM-80GBx1_TRT",
    "DGX-A100_A100-SXM-80GBx8_TRT_MaxQ",
    "Triton_CPU_4S_8380Hx1",
    "A30-MIG_1x1g.6gb_TRT_HeteroMultiUse",
    "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT_HeteroMultiUse",
)
"""Of closed/NVIDIA/systems in inference_results_v1.1."""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (DGX, SystemName("dgx-a100", "a100-sxm-80gb", "1x1g.10gb", frozenset({"trt"}), hetero=False)),
        (f"{A30}_{HETERO}", SystemName("", "a30", "1x1g.6gb", frozenset({"trt"}), hetero=True)),
        (
            f"H100-SXM-80GB-MIG_1x1g.10gb+me_TRT8.6.0_{HETERO}_MaxQ",
            SystemName("", "h100-sxm-80gb", "1x1g.10gb+me", frozenset({"trt", "maxq"}), hetero=True),
        ),
        (
            "DGX-A100_A100-SXM-80GBx8_TRT",
            SystemName("dgx-a100", "a100-sxm-80gb", None, frozenset({"trt"}), hetero=False),
        ),
        (HETERO, SystemName("", "heteromultiuse", None, frozenset(), hetero=False)),
        ("", SystemName("", "", None, frozenset(), hetero=False)),
    ],
)
def test_parts_of_a_name(name: str, parts: SystemName) -> None:
    assert parse_name(name) == parts


@pytest.mark.parametrize("system", [name for name in V11 if is_hetero(name)])
def test_published_systems_find_their_own_name_alone(system: str) -> None:
    assert find_baseline(system, V11) == Match(system.removesuffix("_HeteroMultiUse"), "same name")


@pytest.mark.parametrize(
    ("system", "names", "match"),
    [
        (f"{A30}_MaxQ_{HETERO}", (A30, f"{A30}_MaxQ"), Match(f"{A30}_MaxQ", "same name")),
        (f"{A30}_{HETERO}_MaxQ", (A30, f"{A30}_MaxQ"), Match(f"{A30}_MaxQ", "same name")),
        (f"{DGX}_{HETERO}", (f"{DGX}8.4.0", A30), Match(f"{DGX}8.4.0", "same board and profile")),
        (
            f"{DGX}_{HETERO}",
            ("A100-SXM-80GB-MIG_1x1g.10gb_TRT",),
            Match("A100-SXM-80GB-MIG_1x1g.10gb_TRT", "same board and profile, other host"),
        ),
        (f"DGX-A100_A100-SXM-80GB_TRT_{HETERO}", V11, Match(DGX, "same board, one smallest slice")),
        (f"mybox_{HETERO}", ("mybox", "other"), Match("mybox", "same name, which does not say MIG")),
    ],
)
def test_other_names_are_matched_by_board_and_profile(system: str, names: tuple[str, ...], match: Match) -> None:
    assert find_baseline(system, names) == match


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((f"{DGX}_Triton", "DGX-A100_A100-SXM-80GBx1_TRT", A30), "none has the same board and profile"),
        (("DGX-A100_A100-SXM-80GB-MIG_7x1g.10gb_TRT",), "none has the same board and profile"),
        ((f"{DGX}8.4", f"{DGX}8.5"), f"several would do: {DGX}8.4, {DGX}8.5"),
        ((), "no plain system"),
    ],
)
def test_doubt_is_no_match(names: tuple[str, ...], why: str) -> None:
    match = find_baseline(f"{DGX}_{HETERO}", names)
    assert match.baseline is None
    assert why in match.how


_WORDS = st.sampled_from(
    (
        "A30",
        "A30x2",
        "DGX-A100",
        "A30-MIG",
        "1x1g.6gb",
        "7x1g.6gb",
        "TRT",
        "TRT8",
        "Triton",
        "MaxQ",
        HETERO,
        "",
        "é\udcff",
    )
)
_NAMES = st.lists(_WORDS, max_size=6).map("_".join) | st.text(max_size=12)


@given(_NAMES, st.frozensets(_NAMES, max_size=6))
def test_a_match_is_another_plain_system_of_the_same_kind(system: str, names: frozenset[str]) -> None:
    match = find_baseline(system, names)
    assert match.how
    if match.baseline is not None:
        assert match.baseline in names - {system}
        assert not is_hetero(match.baseline)
        own, other = parse_name(system), parse_name(match.baseline)
        assert other.board == own.board or match.baseline == plain_name(system)
        assert other.layout == own.layout or own.layout is None


@given(_NAMES, st.frozensets(_NAMES, max_size=6))
def test_its_own_name_alone_on_a_slice_wins(system: str, names: frozenset[str]) -> None:
    plain = plain_name(system)
    if plain != system and parse_name(system).layout is not None:
        assert find_baseline(system, names | {plain}) == Match(plain, "same name")
