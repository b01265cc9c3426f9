"""`python -m tests.recordings.record [NAME...]`: record the runs anew, or those that are named; about a minute.

Every one is a real run of this checkout, on simulated slices, that has to come out as it should. All happens below
`HOME`, where links lead to this checkout and its Python: so nothing in a recording says where it was made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from tests.e2e.conftest import BASE, FLAGS
from tests.e2e.nvidia import BOARD as A100
from tests.e2e.nvidia import QUICK, TreeCommand
from tests.e2e.product import REPOSITORY, RunCommand
from tests.nvidia_tree.tree import plant
from tests.recordings import RECORDED, RECORDINGS

HOME = Path("/tmp/heteromig-recordings")  # noqa: S108 - a fixed place is what is wanted
CHECKOUT = HOME / "checkout"
ENGINES = HOME / "engines"
LONG = ("--main-benchmark-duration", "60s")
BUILT = "engines-built"
SHORT = ("--main-benchmark-duration", "1s")
ORDINARY = str(REPOSITORY / "tests" / "e2e" / "ordinary.py")


@contextmanager
def _started(name: str, *argv: str, module: str = "heteromig", **environ: str) -> Iterator[RunCommand]:
    home = HOME / name
    home.mkdir()
    command = RunCommand(home, argv, environ=environ, module=module)
    try:
        yield command
    finally:
        command.close()


def _embedded(name: str, *flags: str) -> RunCommand:
    with _started(name, "run", *FLAGS, *SHORT, "--engines-dir", str(ENGINES), *flags) as command:
        command.expect(RECORDINGS[name].exit_code)
    return command


@contextmanager
def _quick(name: str, *flags: str, **environ: str) -> Iterator[RunCommand]:
    """One whose workers are up at once and compute nothing."""
    argv = ("run", *FLAGS, "--harness", "quick", "--main-benchmark-duration", "700ms", *flags)
    with _started(name, *argv, module="tests.e2e.quick", **environ) as command:
        yield command
        if RECORDINGS[name].phase is Phase.FINISHED:
            command.expect(RECORDINGS[name].exit_code)


def _build() -> RunCommand:
    flags = (*BASE, "--background-benchmarks", "dlrm,rnnt", "--engines-dir", str(ENGINES))
    with _started(BUILT, "build", *flags) as command:
        command.expect(0)
    return command


def _valid() -> RunCommand:
    return _embedded("valid", "--background-benchmarks", "dlrm,rnnt")


def _main_invalid() -> RunCommand:
    return _embedded("main-invalid", "--main-target-qps", "1")


def _background_ends_early() -> RunCommand:
    return _embedded("background-ends-early", "--background-benchmark-duration", "1s", *LONG)


def _valid_wait() -> RunCommand:
    flags = ("--drain", "wait", "--background-benchmark-duration", "4s", "--end-time-buffer-min", "100ms")
    with _quick("valid-wait", *flags) as command:
        return command


def _valid_layout() -> RunCommand:
    with _quick("valid-layout", "--layout", "2x2g.12gb") as command:
        return command


def _lenient() -> RunCommand:
    with _quick("lenient", "--lenient", QUICK_BACKGROUND="crashing") as command:
        return command


def _background_killed() -> RunCommand:
    with _quick("background-killed", *LONG) as command:
        command.wait_for(ev.TimedSectionBegan, 0)
        command.kill_worker(1)
        return command


def _start_timeout() -> RunCommand:
    with _quick("start-timeout", "--background-start-timeout", "500ms", QUICK_BACKGROUND="silent") as command:
        return command


def _xid() -> RunCommand:
    faults = HOME / "xid.json"
    with _quick("xid", *LONG, "--sim-faults", str(faults), "--sample-period", "200ms") as command:
        command.wait_for(ev.TimedSectionBegan, 0)
        faults.with_suffix(".new").write_text('{"xid": 79}')
        faults.with_suffix(".new").replace(faults)
        return command


def _interrupted() -> RunCommand:
    with _quick("interrupted", *LONG) as command:
        command.wait_for(ev.TimedSectionBegan, 0)
        command.send(signal.SIGINT)
        return command


def _controller_killed() -> RunCommand:
    with _quick("controller-killed", *LONG) as command:
        command.wait_for(ev.TimedSectionBegan, 0)
        command.send(signal.SIGKILL)
        command.process.wait()
        return command


def _valid_command() -> RunCommand:
    config = HOME / "programs.toml"
    main = ("measuring", "{duration_s}")
    result = r"^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$"
    config.write_text(
        f"[command.measured]\nargv = {json.dumps(['{python}', ORDINARY, *main])}\n"
        f"start = '^start$'\nend = 'end$'\nresult = '{result}'\n"
        f"[command.beside]\nargv = {json.dumps(['{python}', ORDINARY, 'steady'])}\nstart = 'start'\n"
    )
    flags = ("--config", str(config), *FLAGS, "--background-benchmarks", "beside", *SHORT)
    with _started("valid-command", "run", *flags) as command:
        command.expect(0)
    return command


def _valid_nvidia_tree() -> RunCommand:
    home = HOME / "valid-nvidia-tree"
    home.mkdir()
    command = TreeCommand(plant(home, with_engines=True), home, ("run", "--slices", A100, *QUICK), {}, "run")
    try:
        command.ends(0)
    finally:
        command.close()
    return command


RECORDERS: dict[str, Callable[[], RunCommand]] = {
    BUILT: _build,
    "valid": _valid,
    "valid-wait": _valid_wait,
    "valid-layout": _valid_layout,
    "valid-command": _valid_command,
    "valid-nvidia-tree": _valid_nvidia_tree,
    "lenient": _lenient,
    "main-invalid": _main_invalid,
    "background-ends-early": _background_ends_early,
    "background-killed": _background_killed,
    "start-timeout": _start_timeout,
    "xid": _xid,
    "interrupted": _interrupted,
    "controller-killed": _controller_killed,
}


def main(names: list[str]) -> None:
    assert RECORDERS.keys() == RECORDINGS.keys()
    assert set(names) <= RECORDERS.keys(), f"all there are: {', '.join(RECORDERS)}"
    if REPOSITORY != CHECKOUT:
        _start_over_in_home(names)
    try:
        for name in (BUILT, *(name for name in names or RECORDERS if name != BUILT)):
            sys.stderr.write(f"{name}\n")
            run_dir = RECORDERS[name]().run_dir
            if not names or name in names:  # others need what is built
                shutil.rmtree(RECORDED / name, ignore_errors=True)
                shutil.copytree(run_dir, RECORDED / name)
    finally:
        shutil.rmtree(HOME)


def _start_over_in_home(names: list[str]) -> None:
    """The same program in a place that says nothing."""
    try:
        HOME.mkdir()
    except FileExistsError:
        sys.exit(f"{HOME} is there already: somebody is recording, or was killed while he did; remove it then.")
    CHECKOUT.symlink_to(REPOSITORY)
    (HOME / "python").symlink_to(sys.prefix)
    python = str(HOME / "python" / "bin" / "python")
    os.chdir(HOME)
    os.execve(  # noqa: S606 - an argv, and no shell
        python,
        (python, "-m", "tests.recordings.record", *names),
        {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
