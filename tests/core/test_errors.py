"""Errors that are foreseen carry the exit code they end with."""

from __future__ import annotations

import pytest

from heteromig.core import errors
from heteromig.core.verdict import ExitCode


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.HeteromigError, ExitCode.INTERNAL),
        (errors.UsageError, ExitCode.USAGE),
        (errors.PreflightError, ExitCode.DEVICE),
        (errors.BusyError, ExitCode.DEVICE),
        (errors.EvidenceError, ExitCode.INCONCLUSIVE),
    ],
)
def test_each_error_has_the_exit_code_of_whose_fault_it_is(kind: type[errors.HeteromigError], code: ExitCode) -> None:
    with pytest.raises(errors.HeteromigError, match=r"^Slice 3 is gone\.$") as caught:
        raise kind("Slice 3 is gone.")
    assert caught.value.exit_code == code
