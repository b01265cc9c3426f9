"""Whether the driver's pids mean anything here, found out with a CUDA context of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from heteromig.core.devices import Inventory
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.verification import verify_run
from heteromig.slices import pids
from heteromig.slices.discovery import take_inventory
from heteromig.slices.nvml import Library
from heteromig.slices.pids import in_initial_namespace, probe_pids
from heteromig.slices.source import parse_slices
from heteromig.slices.telemetry import take_sample
from tests.e2e.product import REPOSITORY, processes_with
from tests.nvml_library.fixtures import Connect, MakeState, environment
from tests.nvml_library.runs import PROGRAMS, stranger
from tests.nvml_library.state import State

CUT = "a30/4x1g.6gb"
SHIFT = 100_000


@pytest.fixture
def machine(make_state: MakeState) -> State:
    return make_state(CUT)


@pytest.fixture
def library(machine: State, connect: Connect, cuda_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """pynvml in a child process, and what the probe finds as its libcuda."""
    for name, value in environment(cuda_dir, machine).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    yield cast("Library", connect(machine, library=cuda_dir, initialised=False))
    assert processes_with("heteromig.slices.pidprobe") == {}


def inventory_of(library: Library) -> Inventory:
    return take_inventory(library, parse_slices("mig"))


def test_a_process_that_is_listed_by_its_pid_resolves(library: Library) -> None:
    assert probe_pids(library, inventory_of(library)) is True


@pytest.mark.parametrize("how", ["pid_shift", "unlisted"])
def test_a_process_that_is_listed_by_another_pid_or_not_at_all_does_not(
    library: Library, machine: State, how: str
) -> None:
    inventory = inventory_of(library)
    with machine.edit() as shared:
        setattr(shared, how, SHIFT)
    assert probe_pids(library, inventory) is False


def test_the_probe_takes_an_idle_slice_or_none(library: Library, machine: State) -> None:
    inventory = inventory_of(library)
    with stranger(machine.slice_uuids()[0]):
        assert probe_pids(library, inventory) is True
        first = msgspec.structs.replace(inventory, slices=inventory.slices[:1])
        assert probe_pids(library, first) is None


def test_what_cannot_be_told_is_unknown(library: Library, library_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = inventory_of(library)
    monkeypatch.setenv("HETEROMIG_TEST_CUDA", "fails")
    assert probe_pids(library, inventory) is None
    monkeypatch.setenv("HETEROMIG_TEST_CUDA", "hangs")
    monkeypatch.setattr(pids, "_START_LIMIT_NS", 300_000_000)
    monkeypatch.setattr(pids, "_END_LIMIT_NS", 300_000_000)
    assert probe_pids(library, inventory) is None
    monkeypatch.delenv("HETEROMIG_TEST_CUDA")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library_dir))
    if not shutil.which("nvidia-smi"):  # there is no other libcuda
        assert probe_pids(library, inventory) is None


def test_pids_that_mean_nothing_are_not_shown(library: Library, machine: State) -> None:
    inventory = inventory_of(library)
    with stranger(machine.slice_uuids()[1]):
        assert [len(one.occupants or ()) for one in take_sample(library, inventory).slices] == [0, 1, 0, 0]
        blind = msgspec.structs.replace(inventory, pids_resolve=False)
        assert {one.occupants for one in take_sample(library, blind).slices} == {None}
        assert all(one.memory_used_bytes for one in take_sample(library, blind).slices)


def test_namespaces_are_told_apart() -> None:
    told = subprocess.run(
        ("unshare", "--pid", "--fork", sys.executable, "-c", _ASK), capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.skip(f"no pid namespace can be made here: {told.stderr.strip()}")
    assert told.stdout.split() == ["False"]
    assert in_initial_namespace() is (Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC)


_ASK = "from heteromig.slices.pids import in_initial_namespace; print(in_initial_namespace())"


def test_a_run_in_a_namespace_of_its_own(tmp_path: Path, cuda_dir: Path, machine: State) -> None:
    """Who is there is not observable, and nobody is taken for a stranger; all else is as ever."""
    (tmp_path / "programs.toml").write_text(PROGRAMS)
    with machine.edit() as shared:
        shared.pid_shift = SHIFT
    argv = (
        *("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "heteromig"),
        *("run", "--config", "programs.toml", "--slices", "mig", "--runs-dir", "runs", "--sample-period", "100ms"),
        *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s", "--background-benchmarks", "beside"),
        *("--main-benchmark-duration", "1s", "--json"),
    )
    environ = {**os.environ, **environment(cuda_dir, machine), "PYTHONPATH": str(REPOSITORY)}
    finished = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    if finished.returncode and "unshare" in finished.stderr:
        pytest.skip(f"no pid namespace can be made here: {finished.stderr.strip()}")
    assert finished.returncode == 0, finished.stderr
    record = msgspec.json.decode(finished.stdout, type=RunRecord)
    assert record.phase == Phase.FINISHED.value
    blind = [one for one in record.device_guards if one.status is not Status.OK]
    assert {(one.guard, one.status) for one in blind} == {
        ("only_own_processes", Status.NOT_OBSERVABLE),
        ("process_on_its_slice", Status.NOT_OBSERVABLE),
    }
    assert {"pid namespace" in one.evidence for one in blind} == {True}
    (run_dir,) = (tmp_path / "runs").glob("2*")
    assert verify_run(run_dir).device_guards == record.device_guards
