from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from heteromig.runner.verification import verify_run
from tests.e2e import quick as _quick  # noqa: F401 - so that `verify` in this process knows that harness
from tests.e2e.nvidia import BOARD as A100
from tests.e2e.nvidia import StartInTree, TreeCommand
from tests.e2e.product import BOARD, Command, RunCommand
from tests.nvidia_tree.tree import plant

Start = Callable[..., RunCommand]
Say = Callable[..., Command]

BASE = ("--runs-dir", "runs", "--slices", BOARD, "--background-benchmarks", "dlrm", "--start-time-buffer", "0")
LIMITS = ("--clean-stop", "5s", "--grace", "5s")
FLAGS = (*BASE, *LIMITS)
QUICK = ("--harness", "quick", "--main-benchmark-duration", "700ms")


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines for the board, built once by `heteromig build`."""
    home = tmp_path_factory.mktemp("engines")
    flags = (*BASE, "--background-benchmarks", "dlrm,rnnt", "--engines-dir", "engines")
    command = RunCommand(home, ("build", *flags), environ={}, module="heteromig")
    try:
        record = command.expect(0)
    finally:
        command.close()
    assert record.goal == "build"
    assert record.verdict is not None
    assert record.verdict.status == "built"
    assert {worker.role for worker in record.workers if worker.pid is not None} == {"build"}
    assert [phase.name for phase in record.phases] == ["discovering", "building", "draining", "validating", "finished"]
    assert verify_run(command.run_dir).verdict.status == "built"
    return home / "engines"


@pytest.fixture
def run(tmp_path: Path, engines: Path) -> Iterator[Start]:
    """Start `heteromig run` with the embedded harness, on engines that are there."""
    yield from _starting(tmp_path, "heteromig", ("--main-benchmark-duration", "1s", "--engines-dir", str(engines)))


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Start]:
    """Start `heteromig run` with workers that are up at once."""
    yield from _starting(tmp_path, "tests.e2e.quick", QUICK)


@pytest.fixture
def measure(tmp_path: Path) -> Iterator[Start]:
    """Start any command that measures, with workers that are up at once."""
    started: list[RunCommand] = []

    def start(command: str, *more: str, harness: tuple[str, ...] = QUICK, **environ: str) -> RunCommand:
        argv = (command, *FLAGS, *harness, *more)
        name = f"{command}{len(started)}"
        started.append(RunCommand(tmp_path, argv, environ=environ, module="tests.e2e.quick", name=name))
        return started[-1]

    yield start
    for command in started:
        command.close()


def _starting(home: Path, module: str, flags: tuple[str, ...]) -> Iterator[Start]:
    started: list[RunCommand] = []

    def start(*more: str, environ: Mapping[str, str] | None = None, home: Path = home) -> RunCommand:
        argv = ("run", *FLAGS, *flags, *more)
        command = RunCommand(home, argv, environ=environ or {}, module=module, name=f"run{len(started)}")
        started.append(command)
        return command

    yield start
    for command in started:
        command.close()


@pytest.fixture(scope="session")
def nvidia_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for NVIDIA's tree, with engines, for tests that leave it as it is but for logs."""
    return plant(tmp_path_factory.mktemp("nvidia"), with_engines=True)


@pytest.fixture
def in_tree(tmp_path: Path, nvidia_tree: Path) -> Iterator[StartInTree]:
    """Start `heteromig run` in a tree: the one that all share, one named, or one `apart`.

    A run beside others has a home of its own, so that what it leaves can be told from what others do.
    """
    started: list[TreeCommand] = []

    def start(
        *more: str,
        tree: Path | None = None,
        apart: bool = False,
        home: Path = tmp_path,
        command: str = "run",
        **environ: str,
    ) -> TreeCommand:
        name = f"run{len(started)}"
        if apart:
            home = tmp_path / name
            home.mkdir()
            tree = plant(home, with_engines=True)
        elsewhere = ("--runs-dir", str(tmp_path / "runs")) if tree is None else ()
        argv = (command, "--slices", A100, *elsewhere, *more)
        started.append(TreeCommand(tree or nvidia_tree, home, argv, environ, name))
        return started[-1]

    yield start
    for command in started:
        command.close()


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    """Start any `heteromig` command."""
    started: list[Command] = []

    def start(*argv: str, environ: Mapping[str, str] | None = None) -> Command:
        name = f"say{len(started)}"
        command = Command(tmp_path, argv, environ=environ or {}, module="heteromig", name=name)
        started.append(command)
        return command

    yield start
    for command in started:
        command.close()


@pytest.fixture(scope="session", autouse=True)
def _plain() -> None:
    """Whatever the shell of the tests says about displays must not matter to children."""
    for name in ("NO_COLOR", "CI", "FORCE_COLOR"):
        os.environ.pop(name, None)
