"""`replay` beside the runs that it shows again."""

from __future__ import annotations

import signal

from heteromig.core import events as ev
from tests.e2e.conftest import Say, Start


def test_replay_prints_what_the_run_printed(quick: Start, say: Say) -> None:
    command = quick()
    command.expect(0)
    run, replayed = command.finish(), say("replay", str(command.run_dir)).finish()
    assert replayed.exit_code == 0
    assert replayed.stderr == run.stderr
    assert replayed.stdout == run.stdout
    assert "validating -> finished: valid, exit 0" in replayed.stderr


def test_replay_of_a_run_that_goes_on_and_is_not_disturbed(quick: Start, say: Say) -> None:
    command = quick("--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    replayed = say("replay", "runs/latest").finish()
    assert replayed.exit_code == 9
    assert "buffering -> main-running" in replayed.stderr
    assert "The journal ends in main-running: the run is still going on." in replayed.stderr
    assert "UNFINISHED: the run was last heard of in main-running" in replayed.stdout
    command.send(signal.SIGTERM)
    command.expect(143)
    assert say("replay", "runs/latest").finish().exit_code == 143


def test_replay_refuses_what_is_no_run_and_no_speed(quick: Start, say: Say) -> None:
    nothing = say("replay", ".").finish()
    assert nothing.exit_code == 2
    assert ". is not a run directory" in nothing.stderr
    command = quick()
    command.expect(0)
    for speed in ("0", "-1", "nan", "inf", "quick", ""):
        refused = say("replay", str(command.run_dir), f"--speed={speed}").finish()
        assert refused.exit_code == 2
        assert f"--speed is {speed!r}: give a number above 0" in refused.stderr
    silent = say("replay", str(command.run_dir), "--quiet", "--speed", "1000").finish()
    assert silent.exit_code == 0
    assert silent.stderr == ""
