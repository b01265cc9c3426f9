"""Names and lines that others choose, on the user's terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.runner.survivors import CONTROLLER
from heteromig.workers.guardian import note_process
from tests.e2e.conftest import Say, Start
from tests.e2e.product import BOARD, RunCommand

HOSTILE = (
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\"  # a link (OSC 8)
    "\x1b[2J\x1b[1;31mred\x1b[0m"  # CSI
    "\x1bP1$r\x1b\\\x1b_apc\x1b\\\x1b^pm\x1b\\"  # DCS, APC, PM
    "\x9b31m\x9d0;title\x9c\x90q\x9c\x85"  # C1 controls, as UTF-8 has them
    "\u202eevil\u2066\u200f"  # reading direction
    "\u200b\u200d\ufeff\u00ad\u0301"  # nothing wide
    "\a\b\v\f\x7f\x0e"
    "日本\U000e0041"  # wide, and a tag
    "\r\nheteromig: VALID"
)


def assert_harmless(text: str) -> None:
    wrong = {character for character in text if not character.isprintable() and character != "\n"}
    assert not wrong, (wrong, text)


@contextlib.contextmanager
def stranger(**environ: str) -> Iterator[int]:
    """A process that calls itself what it likes."""
    sleep = shutil.which("sleep")
    process = subprocess.Popen((HOSTILE, "1000"), executable=sleep, env={**os.environ, **environ})
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_process_on_a_slice_that_calls_itself_something(tmp_path: Path, say: Say) -> None:
    (tmp_path / "runs").mkdir()
    shown = say("slices", "--slices", BOARD, "--json").finish()
    uuid = json.loads(shown.stdout)["inventory"]["slices"][0]["uuid"]
    with stranger(CUDA_VISIBLE_DEVICES=uuid) as pid:
        for words in (("slices",), ("doctor",), ("run", "--no-live")):
            finished = say(*words, "--slices", BOARD, environ={"HETEROMIG_ENGINES_DIR": "none"}).finish()
            assert str(pid) in finished.stdout + finished.stderr, words
            assert "heteromig: VALID 1000" in finished.stdout + finished.stderr, words
            assert_harmless(finished.stdout + finished.stderr)
            assert "\nheteromig: VALID" not in finished.stdout + finished.stderr


def test_a_survivor_that_calls_itself_something(tmp_path: Path, say: Say) -> None:
    run_dir = tmp_path / "runs" / f"run-{HOSTILE.replace('/', '')[:200]}"
    run_dir.mkdir(parents=True)
    gone = os.fork()
    if gone == 0:
        note_process(str(run_dir), CONTROLLER, os.getpid())
        os._exit(0)
    os.waitpid(gone, 0)
    with stranger() as pid:
        note_process(str(run_dir), "harness", pid)
        for flags in (("--dry-run",), ()):
            finished = say("clean", *flags).finish()
            assert finished.exit_code == 0, finished.stderr
            assert f"  {pid}  link" in finished.stdout
            assert_harmless(finished.stdout + finished.stderr)


@pytest.fixture
def finished_run(quick: Start) -> RunCommand:
    command = quick()
    command.expect(0)
    return command


def test_a_run_directory_that_somebody_prepared(finished_run: RunCommand, say: Say) -> None:
    """File names, fields of the journal and of the certificate, and the name of the directory itself."""
    run_dir = finished_run.run_dir
    evil = run_dir.with_name(f"evil-{HOSTILE.replace('/', '')[:100]}")
    run_dir.rename(evil)
    (evil / "workers" / HOSTILE.replace("/", "")).write_text("")
    texts = {name: (evil / name).read_text() for name in ("events.jsonl", "certificate.json", "run.json")}
    hostile = json.dumps(HOSTILE)[1:-1]
    for name, there in (
        ("certificate.json", '"run_id": "2'),
        ("certificate.json", '"path": "workers'),
        ("events.jsonl", '"run_id":"2'),
        ("events.jsonl", '"harness":"'),
        ("events.jsonl", '"gpu_uuid":"'),
        ("events.jsonl", '"line":"event","number":7,"event":{'),
        ("events.jsonl", '"event":"SampleTaken"'),
        ("events.jsonl", '"benchmark":"'),
    ):
        (evil / name).write_text(
            texts[name].replace(there, there[:-1] + hostile + there[-1] if there[-1] == "{" else there + hostile)
        )
        for argument in (str(evil), str(evil / "")):
            found = say("verify", argument).finish()
            assert found.exit_code in {0, 2, 4, 7, 9}, found.stderr
            assert found.exit_code != 0 or name == "certificate.json"
            assert "Traceback" not in found.stderr
            assert_harmless(found.stdout + found.stderr)
        (evil / name).write_text(texts[name])


def test_a_program_that_prints_a_megabyte_and_all_that(tmp_path: Path) -> None:
    config = tmp_path / "programs.toml"
    talk = (
        f"import sys, time; print('start'); print({HOSTILE!r}); print('x' * 1_000_000 + {HOSTILE!r}); time.sleep(0.5); "
    )
    text = json.dumps(["{python}", "-c", talk.replace("{", "{{").replace("}", "}}") + "sys.exit(3)"])
    config.write_text(
        "".join(f'[command.{name}]\nargv = {text}\nstart = "^start"\nresult = "r=(?P<r>.)"\n' for name in "ab")
    )
    argv = (
        *("run", "--config", str(config), "--slices", BOARD, "--runs-dir", "runs", "--start-time-buffer", "0"),
        *("--main-benchmark", "a", "--background-benchmarks", "b", "--main-benchmark-duration", "60s", "--no-live"),
    )
    command = RunCommand(tmp_path, argv, environ={}, module="heteromig")
    try:
        command.expect(5, "exited with status 3")
        finished = command.finish()
        assert_harmless(finished.stdout + finished.stderr)
        assert len(finished.stdout + finished.stderr) < 50_000
    finally:
        command.close()


def test_a_config_with_all_that_is_refused_in_one_harmless_line(tmp_path: Path, say: Say) -> None:
    quoted = json.dumps(HOSTILE)
    for table in (
        f"main = {{ benchmark = {quoted} }}",
        f"main = {{ scenario = {quoted} }}",
        f"slices = {quoted}",
        f"harness = {quoted}",
        f"{quoted} = 1",
        f"layout = {quoted}",
        f"[command.{quoted}]\nargv = ['true']\nstart = 'x'",
        f"[command.a]\nargv = ['true']\nstart = 'x'\nscenarios = [{quoted}]",
        f"[command.a]\nargv = [{quoted}]\nstart = 'x'\nresult = 'y'",
        f"[command.a]\nargv = ['true']\nstart = 'x'\nresult = 'y'\ncwd = {quoted}",
    ):
        (tmp_path / "evil.toml").write_text(table)
        finished = say("run", "--config", "evil.toml", *(() if "slices" in table else ("--slices", BOARD))).finish()
        assert finished.exit_code in {2, 7}, (table, finished.stderr)
        assert_harmless(finished.stdout + finished.stderr)
        assert finished.stderr.count("\n") == 1, finished.stderr
    assert not list(tmp_path.glob("runs/2*/workers/*")), "no worker was started"
