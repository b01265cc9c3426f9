"""What a run is told in confidence: programs get it, and no file of the run has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heteromig.core.redaction import REDACTED
from heteromig.runner.verification import verify_run
from tests.e2e.product import BOARD, RunCommand, until

SECRETS = {
    "variable": "s3cr3t-of-a-variable",
    "argument": "s3cr3t-of-an-argument",
    "url": "s3cr3t-of-a-url",
    "inherited": "s3cr3t-that-was-inherited",
    "prefix": "s3cr3t-of-the-prefix",
}

PROGRAM = """
import hashlib, os, sys, time
print("start", flush=True)
told = (os.environ["HF_TOKEN"], *sys.argv[1:], os.environ["PREFIX_SECRET"], os.environ["INHERITED_API_KEY"])
time.sleep(0.7)
print("end told=" + hashlib.sha256(repr(told).encode()).hexdigest()[:16] + " status=OK", flush=True)
"""
ARGUMENTS = (
    "--token",
    SECRETS["argument"],
    f"https://me:{SECRETS['url']}@example.org/",
    f"--key={SECRETS['inherited']}",
)
TOLD = (SECRETS["variable"], *ARGUMENTS, SECRETS["prefix"], SECRETS["inherited"])
DIGEST = hashlib.sha256(repr(TOLD).encode()).hexdigest()[:16]
PRIVATE = {"run.json", "events.jsonl", "plan.toml", "stdout.log", "command.json", "processes.jsonl"}


def _config(token: str) -> str:
    def text(value: Any) -> str:
        return json.dumps(value)

    return f"""
[command.measured]
argv = {text(["{python}", "-c", PROGRAM.replace("{", "{{").replace("}", "}}"), *ARGUMENTS])}
env = {{ HF_TOKEN = {text(token)}, MODE = "fast" }}
start = "^start$"
end = "^end"
result = "told=(?P<told>\\\\w+) status=(?P<status>\\\\w+)"
valid-when = ["status == 'OK'", "told == '{DIGEST}'"]

[command.beside]
argv = ["{{python}}", "-c", "import signal; print('start', flush=True); signal.pause()"]
start = "^start$"
"""


@pytest.fixture
def started() -> Iterator[list[RunCommand]]:
    commands: list[RunCommand] = []
    yield commands
    for command in commands:
        command.close()


def _run(home: Path, config: Path, started: list[RunCommand], *flags: str) -> RunCommand:
    argv = (
        *("run", "--config", str(config), "--slices", BOARD, "--runs-dir", "runs", "--start-time-buffer", "0"),
        *("--main-benchmark", "measured", "--background-benchmarks", "beside", "--main-benchmark-duration", "700ms"),
        *("--grace", "5s", *flags),
    )
    environ = {"INHERITED_API_KEY": SECRETS["inherited"]}
    started.append(RunCommand(home, argv, environ=environ, module="heteromig", name=f"run{len(started)}"))
    return started[-1]


def _containing(directory: Path, secret: str) -> list[str]:
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


PREFIX = ("--main-benchmark-cmd-prefix", f"env PREFIX_SECRET={SECRETS['prefix']}")


def test_programs_are_told_secrets_and_no_file_is(tmp_path: Path, started: list[RunCommand]) -> None:
    config = tmp_path / "programs.toml"
    config.write_text(_config(SECRETS["variable"]))
    command = _run(tmp_path, config, started, *PREFIX)
    record = command.expect(0)  # main is VALID only where the program got the real values
    for secret in SECRETS.values():
        assert _containing(command.run_dir, secret) == []
        assert secret not in command.finish().stdout + command.said
    main = record.workers[0]
    assert main.env["HF_TOKEN"] == REDACTED
    assert main.env["MODE"] == "fast"
    assert main.command[:2] == ("env", f"PREFIX_SECRET={REDACTED}")
    assert main.command[-4:] == ("--token", REDACTED, f"https://{REDACTED}@example.org/", f"--key={REDACTED}")
    assert json.loads((command.run_dir / main.directory / "command.json").read_text())["argv"] == list(main.command)
    assert verify_run(command.run_dir).verdict.exit_code == 0, "the journal replays without the secrets"


def test_plan_of_a_run_says_what_to_put_back(tmp_path: Path, started: list[RunCommand]) -> None:
    config = tmp_path / "programs.toml"
    config.write_text(_config(SECRETS["variable"]))
    first = _run(tmp_path, config, started, *PREFIX)
    first.expect(0)
    plan = first.run_dir / "plan.toml"
    text = plan.read_text()
    assert text.startswith(
        f"# {REDACTED} stands for a secret, to be put back before this runs again: HF_TOKEN in env of "
    )

    second = _run(tmp_path, plan, started)
    finished = second.finish()
    assert finished.exit_code == 2
    assert "HF_TOKEN in env of [command.measured], cmd-prefix of [main], argv of [command.measured]" in finished.stderr
    assert "Put the secret back" in finished.stderr
    assert len(list(tmp_path.glob("runs/2*"))) == 1, "nothing was started"

    for there, secret in {
        f'"HF_TOKEN" = "{REDACTED}"': f'"HF_TOKEN" = "{SECRETS["variable"]}"',
        f'"--token", "{REDACTED}"': f'"--token", "{SECRETS["argument"]}"',
        f"https://{REDACTED}@": f"https://me:{SECRETS['url']}@",
        f"--key={REDACTED}": f"--key={SECRETS['inherited']}",
        f"PREFIX_SECRET={REDACTED}": f"PREFIX_SECRET={SECRETS['prefix']}",
    }.items():
        assert there in text
        text = text.replace(there, secret)
    plan.write_text(text)
    _run(tmp_path, plan, started).expect(0)


def test_plan_that_is_printed_has_no_secrets(tmp_path: Path, started: list[RunCommand]) -> None:
    config = tmp_path / "programs.toml"
    config.write_text(_config(SECRETS["variable"]))
    for form in ((), ("--json",)):
        command = _run(tmp_path, config, started, *PREFIX, "--dry-run", *form)
        finished = command.finish()
        assert finished.exit_code == 0, finished.stderr
        assert REDACTED in finished.stdout
        assert not [secret for secret in SECRETS.values() if secret in finished.stdout + finished.stderr]


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o002, 0o077])
def test_what_is_told_is_nobody_elses_to_read_whatever_the_umask(
    tmp_path: Path, started: list[RunCommand], mask: int
) -> None:
    config = tmp_path / "programs.toml"
    config.write_text(_config(SECRETS["variable"]))
    with _umask(mask):
        command = _run(tmp_path, config, started, *PREFIX)
    command.expect(0)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in command.run_dir.rglob("*")}
    assert {path.name for path, mode in modes.items() if mode == 0o600 and path.is_file()} >= PRIVATE
    assert {oct(mode) for path, mode in modes.items() if path.name in PRIVATE} == {"0o600"}
    assert not [path for path, mode in modes.items() if mode & 0o022], "and nobody else's to write"
    assert not stat.S_IMODE((tmp_path / "runs").stat().st_mode) & 0o022
    readable = stat.S_IMODE((command.run_dir / "certificate.json").stat().st_mode)
    assert readable == 0o644 & ~mask, "the rest is as the umask says"


def test_journal_of_a_run_that_cannot_start_a_program_has_no_secret(tmp_path: Path, started: list[RunCommand]) -> None:
    config = tmp_path / "programs.toml"
    gone = tmp_path / SECRETS["variable"]
    gone.mkdir()
    text = _config(SECRETS["variable"]).replace("[command.beside]", f"cwd = {json.dumps(str(gone))}\n[command.beside]")
    config.write_text(text)
    command = _run(tmp_path, config, started, *PREFIX, "--start-time-buffer", "2s")
    until(lambda: list(tmp_path.glob("runs/2*/workers/1-*")), "the background is being started, and main is not yet")
    gone.rmdir()
    command.expect(5, "cannot be entered")
    assert _containing(command.run_dir, SECRETS["variable"]) == []
