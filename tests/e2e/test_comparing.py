"""Baselines, series and comparisons, as users meet them: commands, directories, exit codes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heteromig.comparing.baseline import find_baseline
from heteromig.comparing.series import SERIES_JSON, Series, read_series
from heteromig.core import events as ev
from heteromig.core.device_guards import HOST_IDLE
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.core.spec import Goal
from heteromig.runner.rundir import REPORT, RUN_JSON
from heteromig.runner.verification import retell, verify_run
from tests.e2e.conftest import FLAGS, QUICK, Say, Start
from tests.e2e.product import Command, Finished, RunCommand, processes_with, until
from tests.e2e.strangers import slices_of, stranger

HOST = ("--slices", "sim:2xa30/4x1g.6gb", "--gpu", "0", "--sample-period", "100ms")

Compare = Callable[..., Finished]


@pytest.fixture
def compare(tmp_path: Path) -> Iterator[Compare]:
    """Compare, and wait for the answer."""
    started: list[Command] = []

    def ask(*argv: Path | str) -> Finished:
        words = ("compare", *map(str, argv))
        started.append(Command(tmp_path, words, environ={}, module="tests.e2e.quick", name=f"compare{len(started)}"))
        return started[-1].finish()

    yield ask
    for command in started:
        command.close()


def series_of(command: RunCommand) -> tuple[Path, Series]:
    until(lambda: list(command.runs.glob(f"2*/{SERIES_JSON}")), "a series")
    (index,) = command.runs.glob(f"2*/{SERIES_JSON}")
    return index.parent, read_series(index.parent)


def change_figures(run_dir: Path, factor: float) -> Path:
    """A copy whose main is said to have been faster, in its log and in `run.json`; hashes are not compared without a
    certificate."""
    copy = run_dir.with_name(f"{run_dir.name}-edited")
    shutil.copytree(run_dir, copy)
    (copy / "certificate.json").unlink()
    (log,) = copy.glob("workers/0-main-*/mlperf_log_detail.txt")
    lines = log.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        head, key, rest = line.partition('"key": "result_samples_per_second", "value": ')
        if key:
            value, comma, tail = rest.partition(",")
            lines[number] = f"{head}{key}{factor * float(value)}{comma}{tail}"
    log.write_text("".join(lines))
    record = json.loads((copy / RUN_JSON).read_text())
    record["workers"][0]["metrics"]["result_samples_per_second"] *= factor
    (copy / RUN_JSON).write_text(json.dumps(record))
    return copy


# --- baselines --------------------------------------------------------------------------------------------------------


def test_a_baseline_is_a_run_of_main_alone(measure: Start) -> None:
    command = measure("baseline")
    record = command.expect(0)
    assert (record.goal, [worker.role for worker in record.workers]) == ("baseline", ["main"])
    assert command.run_dir.name.endswith("-resnet50-offline-baseline")
    (finding,) = [one for one in record.device_guards if one.guard == HOST_IDLE]
    assert (finding.status, finding.scope) == (Status.OK, "host")
    said = command.finish().stdout
    assert "alone: a baseline" in said
    assert "Overlap" not in said
    found = verify_run(command.run_dir)
    assert (found.verdict.status, found.device_guards) == ("valid", record.device_guards)


def test_a_baseline_is_refused_while_another_gpu_is_in_use(measure: Start, say: Say) -> None:
    busy = slices_of(say, HOST[1])[-1]
    with stranger(busy) as pid:
        command = measure("baseline", *HOST)
        command.expect(7, f"Slice {busy} is used by a process that is not part of this baseline", f"pid {pid}")
        assert not list(command.heard(ev.WorkerSpawned))
        assert verify_run(command.run_dir).verdict.exit_code == 7
        allowed = measure("baseline", *HOST, "--allow-busy")
        record = allowed.expect(0)
    (remark,) = [one.remark for one in record.device_guards if one.guard == HOST_IDLE]
    assert remark.startswith(f"This baseline was measured while others used GPUs of the host: pid {pid} (")
    assert remark in record.notes
    assert remark in " ".join(allowed.finish().stdout.split())


def test_a_baseline_ends_when_somebody_comes(measure: Start, say: Say) -> None:
    busy = slices_of(say, HOST[1])[-1]
    command = measure("baseline", *HOST, "--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    with stranger(busy):
        command.wait_for_phase(Phase.DRAINING)
    command.expect(7, "is used by a process that is not part of this baseline")


# --- series -----------------------------------------------------------------------------------------------------------


def test_a_series_puts_each_run_between_two_baselines(measure: Start, compare: Compare, say: Say) -> None:
    command = measure("run", "--repeat", "2", "--report")
    finished = command.finish()
    series_dir, series = series_of(command)
    assert finished.exit_code == series.exit_code in {0, 9}, finished.stderr
    a, b = Goal.BASELINE, Goal.RUN
    assert series.planned == (a, b, a, b, a)
    assert [(entry.goal, entry.exit_code) for entry in series.entries] == [(goal, 0) for goal in series.planned]
    assert sorted(path.name for path in series_dir.iterdir()) == sorted(
        [*(str(entry.run_dir) for entry in series.entries), SERIES_JSON]
    )
    for entry in series.entries:
        assert entry.run_dir is not None
        assert verify_run(series_dir / entry.run_dir).verdict.status == "valid"
    assert (command.runs / "latest").resolve() == series_dir
    assert processes_with(str(command.home)) == {}
    assert "5 of 5: baseline VALID, " in finished.stderr
    assert "A            3 baselines" in finished.stdout
    assert "B            2 runs beside 1 background (dlrm)" in finished.stdout

    refused = say("verify", "runs/latest").finish()
    assert refused.exit_code == 2
    assert "is a series: verify the run directories in it one by one" in refused.stderr
    for argv in (("report", "runs/latest"), ("replay", "runs/latest")):
        refused = say(*argv).finish()
        assert refused.exit_code == 2
        assert "is the directory of a series: name one of its runs" in refused.stderr
        assert f"such as runs/latest/{series.entries[1].run_dir}" in refused.stderr

    pages = {entry.run_dir: (series_dir / str(entry.run_dir) / REPORT).read_text() for entry in series.entries}
    for place in (1, 3):
        page = pages[series.entries[place].run_dir]
        assert "Against main alone, throughput: " in page
        before, after = (series.entries[place + step].run_dir for step in (-1, 1))
        assert f"Baselines: {before} and {after}." in page

    again = compare(series_dir, "--json")
    found = json.loads(again.stdout)
    assert again.exit_code == series.exit_code
    assert (found["paired"], found["simulated"], found["primary"]) == (True, True, "qps")
    (qps,) = [change for change in found["changes"] if change["metric"]["name"] == "qps"]
    assert qps["estimate"]["n"] == 2
    assert qps["estimate"]["low"] < qps["estimate"]["change"] < qps["estimate"]["high"]

    run, baseline = (series_dir / str(series.entries[place].run_dir) for place in (1, 0))
    known = find_baseline(run, retell(run))
    assert known is not None
    assert known.baselines == tuple(str(series_dir / str(series.entries[place].run_dir)) for place in (0, 2))
    assert known.sentence.startswith("Against main alone, throughput: ")
    assert find_baseline(baseline, retell(baseline)) is None, "it is one itself"


def test_interrupting_a_series_ends_the_run_in_hand_and_the_series(measure: Start, compare: Compare) -> None:
    command = measure("run", "--repeat", "1", "--main-benchmark-duration", "60s")
    series_dir, _ = series_of(command)
    measuring = f'"destination":"{Phase.MAIN_RUNNING.value}"'.encode()
    until(lambda: [path for path in series_dir.glob("2*/events.jsonl") if measuring in path.read_bytes()], "main")
    command.send(signal.SIGINT)
    finished = command.finish()
    series = read_series(series_dir)
    assert (finished.exit_code, series.exit_code) == (130, 130), finished.stderr
    assert [entry.exit_code for entry in series.entries] == [130]
    assert "The series ended with run 1 of 3: SIGINT was received during main-running." in finished.stdout
    assert "Traceback" not in finished.stderr
    assert processes_with(str(command.home)) == {}
    refused = compare(series_dir)
    assert refused.exit_code == 9
    assert "has no run between two baselines: The series ended with run 1 of 3" in refused.stderr


def test_a_run_that_fails_ends_its_series(tmp_path: Path) -> None:
    argv = ("run", *FLAGS, *QUICK, "--repeat", "3", "--json")
    environ = {"QUICK_BACKGROUND": "crashing"}
    command = RunCommand(tmp_path, argv, environ=environ, module="tests.e2e.quick")
    finished = command.finish()
    series = msgspec.json.decode(finished.stdout, type=Series)
    assert finished.exit_code == 5
    assert [(entry.goal.value, entry.exit_code) for entry in series.entries] == [("baseline", 0), ("run", 5)]
    assert series.sentence.startswith("The series ended with run 2 of 7: Background 1 (dlrm) exited with status 3")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--main-mode", "accuracy"), "--repeat compares speed, and --main-mode is accuracy"),
        (("--background-benchmarks", "none"), "--background-benchmarks is none"),
        (("--harness", "loadgen", "--main-scenario", "server"), "--repeat needs --main-target-qps in Server"),
        (("--repeat", "0"), "must be from 1 to"),
        (("--events",), "leave one of them out"),
        (("--dry-run",), "--repeat is for run"),
    ],
)
def test_series_that_are_refused_make_no_directory(measure: Start, more: tuple[str, ...], words: str) -> None:
    command = measure("run", "--repeat", "1", *more)
    finished = command.finish()
    assert finished.exit_code == 2
    assert words in finished.stderr
    assert not list(command.runs.glob("2*"))


# --- comparisons ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(measure: Start) -> tuple[Path, Path]:
    """A baseline and a run."""
    alone, beside = measure("baseline"), None
    alone.expect(0)
    baseline_dir = alone.run_dir
    beside = measure("run")
    beside.expect(0)
    return baseline_dir, beside.run_dir


def test_comparing(pair: tuple[Path, Path], compare: Compare, measure: Start) -> None:
    """One test for all that needs a baseline and a run, which take longest."""
    baseline, run = pair

    same = compare(run, run)
    assert same.exit_code == 0
    assert same.stdout.startswith("NO DIFFERENCE (exit 0): both sides are the same.")
    assert "SIMULATED: no GPU was involved" in same.stdout

    faster = change_figures(run, 1.25)
    for limit, code, words in (
        ("qps:-2%", 0, "GATES KEPT (exit 0): qps:-2% is kept: qps changed by +25.0 %."),
        ("qps:+2%", 8, "GATE FAILED (exit 8): qps:+2% failed: qps changed by +25.0 %, 23.00 points beyond the limit."),
        ("power:+5%", 9, "INCONCLUSIVE (exit 9): power:+5% cannot be decided: power is n/a, "),
        ("p99:+10%", 2, "there is no p99 in these runs' scenario or logs"),
        ("qsp:-1%", 2, "there is no metric 'qsp'; did you mean 'qps'?"),
    ):
        gated = compare(run, faster, "--fail-if", limit)
        assert (gated.exit_code, words in " ".join((gated.stdout + gated.stderr).split())) == (code, True), gated
    both = compare(run, faster, "--fail-if", "power:+5%", "--fail-if", "qps:+2%")
    assert both.exit_code == 8, "what surely fails weighs more"

    markdown = compare(baseline, run, "--format", "md")
    assert markdown.stdout.startswith("**")
    assert "| qps samples/s |" in markdown.stdout

    known = find_baseline(run, retell(run))
    assert known is not None
    assert known.baselines == (str(baseline),)

    other = measure("run", "--main-benchmark-duration", "1400ms", "--slices", "sim:a30/2x2g.12gb")
    other.expect(0)
    differing = compare(baseline, other.run_dir)
    assert differing.exit_code == 2
    for words in (
        "duration: 0.7 s against 1.4 s",
        "slice: 1g.6gb against 2g.12gb",
        "layout: 4x1g.6gb against 2x2g.12gb",
    ):
        assert words in differing.stderr
    allowed = compare(baseline, other.run_dir, "--allow-differences")
    assert allowed.exit_code in {0, 9}
    assert "Differing    duration: 0.7 s against 1.4 s" in allowed.stdout
    assert find_baseline(other.run_dir, retell(other.run_dir)) is None


def test_what_is_not_valid_is_not_compared(pair: tuple[Path, Path], compare: Compare) -> None:
    _, run = pair
    (log,) = run.glob("workers/1-*/mlperf_log_detail.txt")
    log.unlink()
    refused = compare(run, run)
    assert refused.exit_code == 9
    assert f"{run} cannot be compared, because it is inconclusive (exit 9): " in refused.stderr
    forced = compare(run, run, "--allow-invalid")
    assert forced.exit_code == 0
    assert "is inconclusive (exit 9), and was compared all the same." in " ".join(forced.stdout.split())


def test_a_figure_that_is_none_is_missing(measure: Start, compare: Compare) -> None:
    command = measure("run")
    command.expect(0)
    run = command.run_dir
    (run / "certificate.json").unlink()
    (log,) = run.glob("workers/0-main-*/mlperf_log_detail.txt")
    head, key, rest = log.read_text().partition('"key": "result_samples_per_second", "value": ')
    for value in ("NaN", "Infinity", "-1", '"many"', "null", "1e999", "{"):
        log.write_text(f"{head}{key}{value},{rest.partition(',')[2]}")
        found = compare(run, run, "--allow-invalid")
        assert found.exit_code == 9, value
        assert "there is no figure that both sides have" in found.stdout
        assert "Traceback" not in found.stderr
    gated = compare(run, run, "--allow-invalid", "--fail-if", "qps:-2%")
    assert gated.exit_code == 2
    assert "there is no qps in these runs' scenario or logs" in gated.stderr


def test_things_that_are_no_runs(tmp_path: Path, compare: Compare) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / SERIES_JSON).write_text('{"schema_version": 1')
    newer: dict[str, Any] = {
        "schema_version": 99,
        "tool": {"name": "x", "version": "y"},
        "series_id": "z",
        "planned": [],
    }
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / SERIES_JSON).write_text(json.dumps(newer))
    for argv, code, words in (
        (("empty",), 2, "empty is not a series"),
        (("empty", "empty"), 2, "empty is not a run directory"),
        (("nowhere", "empty"), 2, "nowhere is not a run directory"),
        (("series",), 9, "is not the index of a series"),
        (("newer",), 9, "its schema is 99"),
    ):
        found = compare(*argv)
        assert (found.exit_code, words in found.stderr) == (code, True), found.stderr
