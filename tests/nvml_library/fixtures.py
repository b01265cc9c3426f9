"""The stand-in library in tests; a conftest imports what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvml_library.build import build, build_cuda, compiler
from tests.nvml_library.layout import STATE_VARIABLE
from tests.nvml_library.remote import Remote
from tests.nvml_library.state import State

Connect = Callable[..., Remote]
Build = Callable[..., Path]
MakeState = Callable[..., State]


@pytest.fixture(scope="session")
def build_library(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile the library, perhaps without some functions; the directory that it is in."""
    found = compiler()
    if found is None:
        pytest.skip("there is no C compiler (cc, gcc or CC) to make the stand-in for libnvidia-ml.so.1 with")

    def make(*without: str) -> Path:
        return build(found, tmp_path_factory.mktemp("nvml"), without)

    return make


@pytest.fixture(scope="session")
def library_dir(build_library: Build) -> Path:
    """Where the library is, for LD_LIBRARY_PATH."""
    return build_library()


@pytest.fixture(scope="session")
def cuda_dir(build_library: Build) -> Path:
    """Where the library is, with a stand-in for libcuda beside it."""
    directory = build_library()
    found = compiler()
    assert found is not None
    build_cuda(found, directory)
    return directory


def environment(library_dir: Path, state: State | None) -> dict[str, str]:
    """What a process must be started with so that its NVML is the stand-in; without a state there is no driver."""
    path = os.pathsep.join(filter(None, (str(library_dir), os.environ.get("LD_LIBRARY_PATH"))))
    return {"LD_LIBRARY_PATH": path, **({} if state is None else {STATE_VARIABLE: str(state.path)})}


@pytest.fixture
def connect(library_dir: Path) -> Iterator[Connect]:
    """Start a process with pynvml and the library, in a session unless said otherwise."""
    started: list[Remote] = []

    def start(state: State | None, *, library: Path = library_dir, initialised: bool = True) -> Remote:
        remote = Remote({**os.environ, **environment(library, state)})
        started.append(remote)
        if initialised:
            remote.nvmlInit()
        return remote

    yield start
    for remote in started:
        remote.process.kill()
        remote.close()


@pytest.fixture
def make_state(tmp_path: Path) -> Iterator[MakeState]:
    """A machine with these boards; see `State.create`."""
    made: list[State] = []

    def make(*boards: str) -> State:
        made.append(State.create(tmp_path / f"machine{len(made)}", *boards))
        return made[-1]

    yield make
    for state in made:
        state.close()
