"""Runs of ordinary programs, and of the examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heteromig.core import events as ev
from heteromig.core.record import RunRecord
from heteromig.core.verdict import Verdict
from heteromig.logs.detail import read_detail
from heteromig.runner.config import read_config, resolve
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from tests.e2e.product import BOARD, REPOSITORY, RunCommand, processes_with, until

Run = Callable[..., RunCommand]

ORDINARY = str(Path(__file__).with_name("ordinary.py"))
TIMING = ("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s")

MAIN: dict[str, Any] = {
    "argv": ["{python}", ORDINARY, "measuring", "{duration_s}"],
    "start": "^start$",
    "end": "end$",
    "result": r"^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$",
}


def habit(*argv: str, **more: Any) -> dict[str, Any]:
    return {"argv": ["{python}", ORDINARY, *argv], "start": "start", **more}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start `heteromig run` on a main and one background, each given as the keys of its table."""
    started: list[RunCommand] = []

    def start(background: dict[str, Any], *flags: str, main: dict[str, Any] = MAIN) -> RunCommand:
        config = tmp_path / "programs.toml"
        tables = {"measured": main, "beside": background}
        config.write_text(
            "\n".join(
                f"[command.{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
                for name, table in tables.items()
            )
        )
        argv = (
            *("run", "--config", str(config), "--slices", BOARD, "--runs-dir", "runs", *TIMING),
            *("--background-benchmarks", "beside", "--main-benchmark-duration", "700ms", *flags),
        )
        started.append(RunCommand(tmp_path, argv, environ={}, module="heteromig", name=f"run{len(started)}"))
        return started[-1]

    yield start
    for command in started:
        command.close()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def _verified(command: RunCommand) -> Verdict:
    return verify_run(command.run_dir).verdict


def test_main_beside_a_program_that_is_killed_though_no_time_is_left_to_settle(run: Run) -> None:
    command = run(habit("steady"))
    record = command.expect(0)
    main, background = record.workers
    assert main.metrics == {"p99_ms": 21.5, "rounds": 400.0}
    assert "p99_ms 21.5" in command.finish().stdout
    assert background.stopped_by == "TERM"
    assert background.signal == 15
    assert background.env == {"CUDA_VISIBLE_DEVICES": background.slice_uuid}
    (overlap,) = record.overlap.backgrounds
    assert (overlap.begin_source, overlap.end_source) == ("start marker", "alive and not finished")
    assert record.overlap.coverage == 1.0
    assert _verified(command).status == "valid"
    assert resolve(read_config(command.run_dir / "plan.toml")) == read_journal(command.run_dir).header.spec


@pytest.mark.parametrize("signal_name", ["TERM", "sigterm"])
def test_main_that_says_no_end_beside_a_program_that_stops_cleanly(run: Run, signal_name: str) -> None:
    main = {key: value for key, value in MAIN.items() if key != "end"} | {
        "argv": ["{python}", ORDINARY, "quick", "{duration_s}"],
        "valid-when": ["p99_ms <= 22", "status == OK"],
    }
    record = run(habit("polite", end="end", **{"clean-stop": signal_name}), main=main).expect(0)
    assert record.workers[1].stopped_by == "clean stop"
    assert record.workers[1].exit_code == 0
    assert record.overlap.backgrounds[0].end_source == "end marker"


def test_main_whose_condition_is_not_met(run: Run) -> None:
    command = run(habit("steady"), main=MAIN | {"valid-when": ["rounds >= 400", "p99_ms <= 15"]})
    record = command.expect(3, "Main measured is not VALID: p99_ms is 21.5, and p99_ms <= 15 was asked for.")
    assert record.overlap.proven
    assert _verified(command).exit_code == 3


def test_main_that_says_no_result(run: Run) -> None:
    command = run(habit("steady"), main=MAIN | {"result": "^no such line$"})
    command.expect(3, "Main measured is not VALID: no line of", "stdout.log matches its result pattern")


def test_main_that_never_says_start(run: Run) -> None:
    command = run(habit("steady"), main=MAIN | {"start": "^never said$"})
    command.expect(9, "Main measured: it never printed its start marker.")
    assert _verified(command).exit_code == 9


def test_background_that_ends_early(run: Run) -> None:
    command = run(habit("early", "{directory}/../0-main-measured"), "--main-benchmark-duration", "60s")
    command.expect(4, "Background 1 (beside) ended before main did")
    assert _verified(command).exit_code == 4


def test_background_that_says_that_it_has_finished_early(run: Run) -> None:
    command = run(
        habit("early", "{directory}/../0-main-measured", end="^that is all$"), "--main-benchmark-duration", "60s"
    )
    command.expect(4, "Background 1 (beside)")


def test_background_that_crashes(run: Run) -> None:
    command = run(habit("crashing", "{directory}/../0-main-measured"), "--main-benchmark-duration", "60s")
    command.expect(5, 'exited with status 3 during main-running, having said "that is all"')
    assert _verified(command).exit_code == 5


def test_background_that_never_says_start(run: Run) -> None:
    command = run(habit("silent"), "--background-start-timeout", "700ms")
    command.expect(6, "still missing background 1 (beside)")
    assert not list(command.heard(ev.StartAnnounced))
    assert _verified(command).exit_code == 6


def test_background_that_ignores_term_is_killed_with_its_child(run: Run) -> None:
    command = run(habit("stubborn"), "--grace", "100ms")
    record = command.expect(0)
    assert record.workers[1].stopped_by == "KILL"
    assert _verified(command).exit_code == 0


def test_escapes_in_what_a_program_says_never_reach_the_terminal(run: Run) -> None:
    command = run(habit("colourful", "{directory}/../0-main-measured"), "--main-benchmark-duration", "60s")
    record = command.expect(5, 'having said "boom')
    finished = command.finish()
    assert record.verdict is not None
    for text in (finished.stdout, finished.stderr, record.verdict.reasons[0].sentence):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert b"\x1b[2J" in (command.run_dir / "workers/1-background-beside/stdout.log").read_bytes()


def test_program_of_a_prefix_and_its_own_directory(run: Run, tmp_path: Path) -> None:
    main = MAIN | {"argv": ["{python}", "../ordinary.py", "measuring", "{duration_s}"], "cwd": "elsewhere"}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ordinary.py").symlink_to(ORDINARY)
    record = run(habit("steady"), "--main-benchmark-cmd-prefix", "env -u NOBODY", main=main).expect(0)
    assert record.workers[0].command[:3] == ("env", "-u", "NOBODY")


@pytest.mark.parametrize(
    ("flags", "main", "words"),
    [
        (("--start-evidence", "timed"), {}, "there are none of measured, beside: leave it out"),
        (("--main-mode", "accuracy"), {}, "--main-mode is LoadGen's"),
        ((), {"result": "(?P<p99_ms"}, "result of [command.measured] is '(?P<p99_ms', which is no regular"),
        ((), {"argv": ["{python}", "{slize}"]}, "holds {slize}, which stands for nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_run_directory(
    run: Run, tmp_path: Path, flags: tuple[str, ...], main: dict[str, Any], words: str
) -> None:
    finished = run(habit("steady"), *flags, main=MAIN | main).finish()
    assert finished.exit_code == 2
    assert words in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], RunCommand]]:
    """Run one of the examples, from a directory that holds them as the repository does."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    started: list[RunCommand] = []

    def start(name: str) -> RunCommand:
        argv = ("run", "--config", f"examples/{name}.toml")
        started.append(RunCommand(tmp_path, argv, environ={}, module="heteromig"))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_example_with_two_ordinary_programs(example: Callable[[str], RunCommand]) -> None:
    command = example("programs")
    record = command.expect(0)
    assert [worker.benchmark for worker in record.workers] == ["latency", "neighbour", "neighbour", "neighbour"]
    assert record.workers[0].metrics["p99_ms"] >= record.workers[0].metrics["p50_ms"] > 0
    assert {overlap.evidence.value for overlap in record.overlap.backgrounds} == {"announced"}
    assert _verified(command).status == "valid"


def test_example_with_a_mixed_set(example: Callable[[str], RunCommand]) -> None:
    command = example("mixed")
    record: RunRecord = command.expect(0)
    levels = {overlap.benchmark: overlap.evidence.value for overlap in record.overlap.backgrounds}
    assert levels == {"neighbour": "announced", "other-model": "timed"}
    assert record.workers[0].metrics["result_samples_per_second"] > 0
    main = read_detail(command.run_dir / "workers/0-main-model/mlperf_log_detail.txt")
    beside = read_detail(command.run_dir / "workers/2-background-other-model/mlperf_log_detail.txt")
    assert main.valid
    assert None not in (main.power_end_utc_ns, beside.power_end_utc_ns)
    assert (beside.power_end_utc_ns or 0) >= (main.power_end_utc_ns or 0)
    assert _verified(command).status == "valid"


def test_expression_that_runs_away_ends_the_run_and_leaves_nothing(run: Run) -> None:
    line = "print('a' * 60, flush=True); import signal; signal.pause()"
    command = run({"argv": ["{python}", "-c", line], "start": "^(a+)+$$b"})
    finished = command.finish()
    assert finished.exit_code == 2
    assert "The pattern '^(a+)+$$b' took more than 1 s" in finished.stderr
    assert "Traceback" not in finished.stderr
    until(lambda: processes_with(str(command.home)) == {}, "nothing is left")
    assert verify_run(command.run_dir).verdict.exit_code == 9
