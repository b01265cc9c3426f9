"""Reasons in, one verdict out."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.verdict import ABORT_SIGNALS, EXIT_CODES, ExitCode, Reason, decide
from tests.core.histories import examples

PRECEDENCE = [143, 2, 1, 7, 6, 5, 4, 3, 9]
STATUS = {143: "aborted", 2: "failed", 1: "failed", 7: "failed", 6: "failed", 5: "failed", 4: "invalid", 3: "invalid"}


def reasons(*codes: int) -> tuple[Reason, ...]:
    return tuple(Reason(code, f"reason {number} of {code}") for number, code in enumerate(codes))


def test_without_a_reason_all_is_well() -> None:
    assert decide((), lenient=False).status == "valid"
    assert decide((), lenient=True).status == "valid"
    built = decide((), lenient=False, good="built")
    assert (built.status, built.exit_code, built.reasons) == ("built", 0, ())


@pytest.mark.parametrize("code", PRECEDENCE)
def test_a_single_reason_is_the_verdict(code: int) -> None:
    verdict = decide(reasons(code), lenient=False)
    assert (verdict.status, verdict.exit_code) == (STATUS.get(code, "inconclusive"), code)
    assert verdict.reasons == reasons(code)


def test_the_weightiest_reason_comes_first() -> None:
    verdict = decide(reasons(*reversed(PRECEDENCE)), lenient=False)
    assert [reason.exit_code for reason in verdict.reasons] == PRECEDENCE
    assert verdict.exit_code == 143


def test_the_first_of_several_signals_counts() -> None:
    verdict = decide(reasons(5, 130, 143), lenient=False)
    assert (verdict.exit_code, [reason.exit_code for reason in verdict.reasons]) == (130, [130, 143, 5])


def test_a_reason_is_given_once() -> None:
    assert decide((*reasons(4), *reasons(4)), lenient=False).reasons == reasons(4)


@pytest.mark.parametrize(
    ("codes", "status", "code"),
    [
        ((4,), "lenient", 0),
        ((5,), "lenient", 0),
        ((6, 5, 4), "lenient", 0),
        ((5, 3), "invalid", 3),
        ((4, 9), "inconclusive", 9),
        ((5, 3, 9), "invalid", 3),
        ((7, 5), "failed", 7),
        ((3,), "invalid", 3),
        ((9,), "inconclusive", 9),
        ((5, 143), "aborted", 143),
        ((2, 4), "failed", 2),
    ],
)
def test_lenient_forgives_the_neighbours_and_never_says_valid(codes: tuple[int, ...], status: str, code: int) -> None:
    verdict = decide(reasons(*codes), lenient=True)
    assert (verdict.status, verdict.exit_code) == (status, code)
    assert len(verdict.reasons) == len(codes), "what was forgiven is still said"


@given(codes=st.lists(st.sampled_from(PRECEDENCE)), lenient=st.booleans())
@examples(200)
def test_zero_means_that_nothing_counts(codes: list[int], *, lenient: bool) -> None:
    verdict = decide(reasons(*codes), lenient=lenient)
    forgiven = {4, 5, 6} if lenient else set[int]()
    assert (verdict.exit_code == 0) == (set(codes) <= forgiven)
    assert (verdict.status == "valid") == (not codes)
    if verdict.exit_code:
        assert verdict.exit_code == min(set(codes) - forgiven, key=PRECEDENCE.index)


def test_the_table_of_exit_codes_is_the_contract() -> None:
    table = {code: verdict for code, verdict, _ in EXIT_CODES}
    assert len(table) == len(EXIT_CODES)
    assert list(table) == sorted(table)
    assert set(table) == {int(code) for code in ExitCode} | {128 + signum for signum in ABORT_SIGNALS}
    assert {code: table[code] for code in (0, 3, 4, 5, 6, 7, 9)} == {
        0: "valid", 3: "invalid", 4: "invalid", 5: "failed", 6: "failed", 7: "failed", 9: "inconclusive",
    }  # fmt: skip
    for code in set(table) - {0, 8}:
        said = decide((Reason(code, "it is so"),), lenient=False)
        assert said.exit_code == code
        assert table[code] in {"-", said.status}
    assert {code: meaning for code, _, meaning in EXIT_CODES if code > 128} == {
        128 + signum: signal.Signals(signum).name for signum in ABORT_SIGNALS
    }


def test_a_code_that_is_none_weighs_least_and_breaks_nothing() -> None:
    """A journal that was altered may say any."""
    odd, known = Reason(28, "signal -100"), Reason(9, "altered")
    assert decide((odd, known), lenient=False).exit_code == 9
    assert decide((odd,), lenient=False).status == "failed"
