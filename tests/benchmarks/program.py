"""Start the benchmark program as its users do, and read what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 120.0
"""No step takes a tenth of this on an idle machine."""

PROFILE = "1g.10gb"


def argv(*arguments: str | Path | float) -> list[str]:
    return [sys.executable, "-m", "heteromig.benchmarks", *map(str, arguments)]


def finish(*arguments: str | Path | float, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(*arguments), capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options)


def what(benchmark: str, scenario: str, accuracy: str) -> list[str]:
    return ["--benchmark", benchmark, "--scenario", scenario, "--accuracy", accuracy, "--profile", PROFILE]


def build(benchmark: str, scenario: str, accuracy: str, output: Path) -> subprocess.CompletedProcess[str]:
    return finish("build", *what(benchmark, scenario, accuracy), "--output", output)


class Running:
    """A program that was started; its lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []

    def read_until(self, prefix: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(prefix):
                return self.lines[-1]
        raise AssertionError(f"{prefix!r} never came: {self.lines}")

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def end(self) -> int:
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        return self._process.wait()


@contextmanager
def started(*arguments: str | Path | float) -> Iterator[Running]:
    with subprocess.Popen(argv(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()
        try:
            yield Running(process)
        finally:
            watchdog.cancel()
            process.kill()


def detail(log_dir: Path) -> dict[str, Any]:
    """LoadGen's detail log, first value of each key."""
    found: dict[str, Any] = {}
    for line in (log_dir / "mlperf_log_detail.txt").read_text().splitlines():
        entry = json.loads(line.removeprefix(":::MLLOG "))
        found.setdefault(entry["key"], entry["value"])
    return found
