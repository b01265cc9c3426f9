"""`heteromig clean`, and the MPS daemon of a run of which everything was killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from heteromig.core.phases import Phase
from tests.e2e.product import Command, Finished, processes_with, until
from tests.mps.conftest import Run, nothing_left
from tests.mps.test_runs import keeper_of

LONG = ("--main-benchmark-duration", "60s")


def clean(home: Path, environ: dict[str, str], *flags: str) -> Finished:
    return Command(home, ("clean", *flags), environ=environ, module="heteromig").finish()


def test_a_daemon_is_left_to_a_run_that_goes_on_and_ended_afterwards(
    run: Run, tmp_path: Path, environ: dict[str, str]
) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    daemon = command.daemon
    assert f"belongs to a run that goes on (pid {command.pid})" in clean(tmp_path, environ).stdout
    keeper = keeper_of(command)
    command.send(signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    command.send(signal.SIGKILL)
    command.process.wait()
    until(lambda: not processes_with(str(command.home)), "the guardians have ended what they guard")
    assert not Path(f"/proc/{daemon}").exists()
    assert not command.journal.ended
    assert Path(command.journal.directory).exists()

    dry = clean(tmp_path, environ, "--dry-run", "--json")
    found = [(one["what"], one["outcome"]) for one in json.loads(dry.stdout)["found"]]
    assert found == [("mps", "to do"), ("lock", "to do")]
    assert "Nothing to clean" in clean(tmp_path, environ, "--slices", "mig").stdout
    done = clean(tmp_path, environ)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "The MPS daemon was ended." in done.stdout
    nothing_left(command)
    (command.run_dir / "mps.json").write_text("{")
    failed = clean(tmp_path, environ)
    assert failed.exit_code == 7
    assert "cannot be understood" in failed.stderr
