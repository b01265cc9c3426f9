from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError
from heteromig.workers.spawn import spawn_helper
from heteromig.workers.sweep import sweep_orphans
from tests.workers.trees import DEADLINE_S, PYTHON, is_alive, until


@pytest.fixture
def errors(marker: str, tmp_path: Path) -> Path:
    assert marker
    return tmp_path / "errors.log"


def test_talking_to_a_helper(errors: Path) -> None:
    helper = spawn_helper(
        (*PYTHON, "import sys; print(input()[::-1], flush=True); sys.exit('some trouble')"), stderr=errors
    )
    helper.stdin.write(b"abc\n")

    assert helper.stdout.readline() == b"cba\n"
    assert select.select([helper.pidfd], [], [], DEADLINE_S)[0]
    assert helper.reap() == 1
    assert errors.read_text() == "some trouble\n"
    helper.close()


def test_a_helper_has_a_session_and_processors_of_its_own(errors: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    helper = spawn_helper((*PYTHON, "input()"), stderr=errors, cpus=(cpu,))

    assert os.getsid(helper.pid) == helper.pid
    assert os.sched_getaffinity(helper.pid) == {cpu}
    assert helper.reap() is None
    helper.close()


def test_a_helper_notices_that_the_controller_lets_go(errors: Path) -> None:
    helper = spawn_helper((*PYTHON, "import sys; sys.stdin.read(); sys.exit(4)"), stderr=errors)
    helper.stdin.close()

    until(lambda: helper.reap() == 4, "the helper has ended")
    helper.close()


def test_closing_kills_a_helper_that_hangs(errors: Path) -> None:
    helper = spawn_helper(
        (*PYTHON, f"import signal; signal.signal({signal.SIGTERM:d}, signal.SIG_IGN)\nwhile True: signal.pause()"),
        stderr=errors,
    )
    helper.close()

    assert helper.reap() == -signal.SIGKILL
    assert not is_alive(helper.pid)


def test_the_sweep_spares_helpers(errors: Path) -> None:
    helper = spawn_helper((*PYTHON, "input()"), stderr=errors)

    assert sweep_orphans(timeout_s=1) == 0

    assert is_alive(helper.pid)
    helper.close()


@pytest.mark.parametrize("program", ["/absent/program", "/proc/version"])
def test_a_program_that_cannot_be_run(errors: Path, program: str) -> None:
    with pytest.raises(PreflightError, match=f"The helper {program} .* cannot be started"):
        spawn_helper((program,), stderr=errors)


def test_a_file_for_errors_that_cannot_be_written(errors: Path) -> None:
    with pytest.raises(PreflightError, match="cannot be started"):
        spawn_helper(("true",), stderr=errors / "absent")
