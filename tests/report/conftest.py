from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from tests.e2e import quick as _quick  # noqa: F401 - so that a report made in this process knows that harness
from tests.e2e.product import BOARD, RunCommand
from tests.report.browser import Browser, Page, browsing, find_browser

FLAGS = (
    *("--runs-dir", "runs", "--slices", BOARD, "--start-time-buffer", "200ms"),
    *("--clean-stop", "5s", "--grace", "5s", "--sample-period", "100ms"),
)
QUICK = (*FLAGS, "--harness", "quick", "--background-benchmarks", "dlrm,bert")

HOSTILE = Path(__file__).with_name("hostile.py")

ASKED: list[str] = []
"""The paths that a browser asked for."""

Keep = Callable[..., RunCommand]


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keep]:
    """Start `heteromig run` in a directory of its own that all tests may read."""
    started: list[RunCommand] = []

    def start(*argv: str, config: dict[str, Any] | None = None, **environ: str) -> RunCommand:
        home = tmp_path_factory.mktemp("run")
        if config is not None:
            (home / "run.toml").write_text("\n".join(_toml(config)), encoding="utf-8")
        command = RunCommand(home, ("run", *argv), environ=environ, module="tests.e2e.quick")
        started.append(command)
        return command

    yield start
    for command in started:
        command.close()


def _toml(tables: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Tables of tables; values are JSON's, which are TOML's."""
    for name, value in tables.items():
        if not isinstance(value, dict):
            yield f"{name} = {json.dumps(value)}"
    for name, value in tables.items():
        if isinstance(value, dict):
            yield f"[{prefix}{json.dumps(name)}]"
            yield from _toml(value, f"{prefix}{json.dumps(name)}.")


@pytest.fixture(scope="session")
def valid(keep: Keep) -> Path:
    """A run that proves what it should."""
    command = keep(*QUICK, "--main-benchmark-duration", "1s")
    command.expect(0)
    return command.run_dir


@pytest.fixture(scope="session")
def invalid(keep: Keep) -> Path:
    """A run in which backgrounds end before main does."""
    duration = ("--main-benchmark-duration", "4s", "--background-benchmark-duration", "1s", "--drain", "kill")
    command = keep(*QUICK, *duration)
    command.expect(4)
    return command.run_dir


@pytest.fixture(scope="session")
def aborted(keep: Keep) -> Path:
    """A run that was told to end while main was timed."""
    command = keep(*QUICK, "--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    command.send(signal.SIGTERM)
    command.expect(143)
    return command.run_dir


@pytest.fixture(scope="session")
def failed(keep: Keep) -> Path:
    """A run with a main that dies at once."""
    command = keep(*QUICK, "--main-benchmark-duration", "1s", QUICK_MAIN="crashing")
    command.expect(5)
    return command.run_dir


@pytest.fixture(scope="session")
def unplanned(keep: Keep) -> Path:
    """A run that found nothing to run on."""
    command = keep(*QUICK, "--main-slice", "9")
    command.expect(2)
    return command.run_dir


@pytest.fixture(scope="session")
def hostile(keep: Keep) -> Path:
    """A run of programs whose every word means harm."""
    table = {
        "argv": ["{python}", str(HOSTILE), "{duration_s}", "<script>document.title='argv'</script>", "$(touch x)`y`"],
        "env": {"EVIL": "</style><script>document.title='env'</script>\n[b]|`\u202e\x1b[31m"},
        "start": "start",
    }
    config = {
        "harness": "command",
        "command": {
            "measured": {**table, "result": r"^p99_ms=(?P<p99_ms>\S+)$"},
            "beside": {**table, "argv": ["{python}", str(HOSTILE), "dying", "<img src=http://localhost:9/x>"]},
        },
        "main": {"benchmark": "measured", "duration": "60s"},
        "background": {"benchmarks": ["beside"]},
    }
    command = keep(*FLAGS, "--config", "run.toml", config=config)
    command.expect(5)
    return command.run_dir


@pytest.fixture(scope="session")
def killed(keep: Keep) -> Path:
    """What a controller that was killed leaves, with a line that it was writing."""
    command = keep(*QUICK, "--main-benchmark-duration", "60s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    command.wait_for(ev.TimedSectionBegan, 0)
    command.send(signal.SIGKILL)
    command.finish()
    with (command.run_dir / "events.jsonl").open("ab") as journal:
        journal.write(b'{"line":"event","number":9999,"event":{"eve')
    return command.run_dir


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a run that a test may change."""
    return lambda run_dir: Path(shutil.copytree(run_dir, tmp_path / "copies" / run_dir.name))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no browser: there is neither chromium nor chromium-browser nor google-chrome on PATH")
    with browsing(program, tmp_path_factory.mktemp("browser")) as found:
        yield found


class _Noting(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        ASKED.append(self.path)
        super().do_GET()

    def end_headers(self) -> None:
        # Without it a browser takes a page to be fresh for a tenth of its age (RFC 9111, 4.2.2), and does not ask.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def page(browser: Browser) -> Page:
    return browser.page()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A directory, and where its files are served."""
    home = tmp_path_factory.mktemp("served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Noting, directory=str(home)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield home, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
