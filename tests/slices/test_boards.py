from __future__ import annotations

import pytest

from heteromig.slices.boards import BOARDS, Board, Profile

PROFILES = [(board, profile) for board in BOARDS.values() for profile in board.profiles]


@pytest.mark.parametrize(("board", "profile"), PROFILES, ids=[f"{b.name}-{p.name}" for b, p in PROFILES])
def test_every_placement_lies_on_the_board_and_on_its_own_grid(board: Board, profile: Profile) -> None:
    for start in profile.starts:
        assert start + profile.size <= board.memory_slices
        assert start % profile.size == 0
    assert 1 <= profile.max_instances <= len(profile.starts)
    assert profile.name.startswith(f"{profile.compute_slices}g.")
    assert profile.memory_bytes < board.memory_bytes


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_names_and_ids_of_profiles_are_unique(board: Board) -> None:
    assert len({profile.name for profile in board.profiles}) == len(board.profiles)
    assert len({profile.profile_id for profile in board.profiles}) == len(board.profiles)


def test_an_a100_takes_seven_slices_and_an_a30_four() -> None:
    assert (BOARDS["a100-sxm-80gb"].max_slices, BOARDS["a100-sxm-80gb"].default_profile.name) == (7, "1g.10gb")
    assert (BOARDS["a30"].max_slices, BOARDS["a30"].default_profile.name) == (4, "1g.6gb")


def test_an_h100_is_cut_as_an_a100_into_slices_with_more_processors() -> None:
    a100, h100 = BOARDS["a100-sxm-80gb"].profiles, BOARDS["h100-sxm-80gb"].profiles
    cuts = [[(one.name, one.profile_id, one.starts, one.max_instances) for one in board] for board in (a100, h100)]
    assert cuts[0] == cuts[1]
    assert [one.sm_count for one in h100] == [16, 16, 26, 32, 60, 64, 132]
    assert all(there.memory_bytes < here.memory_bytes for there, here in zip(a100, h100, strict=True))


def test_every_board_of_seven_slices_is_cut_alike() -> None:
    """Ids and places are the same from the A100 to the B200; names, memory and multiprocessors are not."""
    seven = {name: board for name, board in BOARDS.items() if board.max_slices == 7}
    assert set(seven) == set(BOARDS) - {"a30"}
    cuts = {
        name: [(one.profile_id, one.starts, one.size, one.compute_slices, one.max_instances) for one in board.profiles]
        for name, board in seven.items()
    }
    assert set(map(tuple, cuts.values())) == {tuple(cuts["a100-sxm-80gb"])}
    names = {name: [one.name for one in board.profiles] for name, board in seven.items()}
    assert names["a100-sxm-40gb"] == ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]
    assert names["h200-sxm-141gb"][2:] == ["1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"]
    assert names["b200-sxm-180gb"][2:] == ["1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"]
    assert [one.sm_count for one in seven["b200-sxm-180gb"].profiles] == [18, 18, 30, 36, 70, 72, 148]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_what_can_be_had_together_has_engines_enough(board: Board) -> None:
    """The whole board has the most of each engine, and one profile has the one of optical flow at a time."""
    whole = max(board.profiles, key=lambda profile: profile.size)
    for profile in board.profiles:
        assert all(
            each * profile.max_instances <= there for each, there in zip(profile.engines, whole.engines, strict=True)
        )
        assert profile.engines.optical_flow == (profile is whole or profile.name.endswith("+me"))
    assert len({other.pci_id for other in BOARDS.values()}) == len(BOARDS)
    assert board.pci_id & 0xFFFF == 0x10DE


@pytest.mark.parametrize(
    ("name", "start", "instance"),
    [("7g.80gb", 0, 0), ("4g.40gb", 0, 1), ("3g.40gb", 4, 2), ("2g.20gb", 4, 5), ("1g.10gb", 0, 7), ("1g.10gb", 6, 13)],
)
def test_gpu_instances_are_numbered_as_drivers_do(name: str, start: int, instance: int) -> None:
    board = BOARDS["a100-sxm-80gb"]
    profile = board.profile(name)
    assert profile is not None
    assert board.instance_id(profile, start) == instance
