"""The keeper of a shared GPU alone: what it refuses, what it says, and what it takes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heteromig.slices.keeping import Lost, Message, Prepared, Refused, Restored, decode_line
from heteromig.slices.mps.control import Control
from heteromig.slices.mps.journal import RUN_JOURNAL, read_journal
from heteromig.slices.mps.keeping import TERMINATE_CLIENTS
from heteromig.slices.mps.refusals import may_see
from tests.e2e.product import processes_with, until
from tests.mps import daemon
from tests.mps.conftest import CLIENT
from tests.nvml_library.fixtures import MakeState, environment
from tests.nvml_library.layout import COMPUTE_PROCESS, MPS_PROCESS, WHOLE_GPU, Process
from tests.nvml_library.state import State
from tests.slices.conftest import Spawn, spawn

__all__ = ["spawn"]

PROHIBITED, EXCLUSIVE_PROCESS = 2, 3

IMPATIENT = (
    "import sys, heteromig.slices.mps.keeping as keeping, heteromig.slices.keeper as keeper\n"
    "keeping._START_LIMIT_S = keeping._CLIENTS_LIMIT_S = 0.5\n"
    "sys.exit(keeper.main())\n"
)
"""The keeper, with less time for a daemon that does not answer and for clients that do not go."""

Keep = Callable[..., "Keeper"]


class Keeper:
    """One keeper."""

    def __init__(self, home: Path, environ: dict[str, str], arguments: tuple[str, ...]) -> None:
        self.run_dir = home / "run"
        self.run_dir.mkdir(exist_ok=True)
        argv = (sys.executable, "-c", IMPATIENT, "--preparation", "mps", "--runs-dir", str(home))
        self.process = subprocess.Popen(
            (*argv, "--run-dir", str(self.run_dir), *arguments),
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=home,
        )

    def hear(self) -> Message:
        assert self.process.stdout is not None
        return decode_line(self.process.stdout.readline())

    def prepared(self) -> Prepared:
        message = self.hear()
        assert isinstance(message, Prepared), message
        return message

    def order(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end(self) -> Message:
        """Let go of it; its last word."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        message = self.hear()
        assert self.process.wait() == 0
        return message

    def refusal(self, exit_code: int = 7) -> str:
        """Why it did nothing; and that it did nothing."""
        message = self.hear()
        assert isinstance(message, Refused), message
        assert self.process.wait() == 0
        assert message.exit_code == exit_code
        journal = read_journal(self.run_dir / RUN_JOURNAL)
        if journal is not None:
            assert journal.ended
            assert not Path(journal.directory).exists()
            assert processes_with(journal.directory) == {}
        return message.message


@pytest.fixture
def keep(tmp_path: Path, environ: dict[str, str]) -> Iterator[Keep]:
    """Start a keeper of three shares."""
    started: list[Keeper] = []

    def start(*arguments: str, **more: str) -> Keeper:
        started.append(Keeper(tmp_path, {**environ, **more}, ("--slices", "mps:3x14", *arguments)))
        return started[-1]

    yield start
    for keeper in started:
        for stream in (keeper.process.stdin, keeper.process.stdout):
            assert stream is not None
            stream.close()
        keeper.process.wait()


def control_of(prepared: Prepared, tmp_path: Path) -> Control:
    pipes, logs = (prepared.environment[f"CUDA_MPS_{what}_DIRECTORY"] for what in ("PIPE", "LOG"))
    return Control(str(tmp_path / "bin" / daemon.CONTROL), os.environ, pipes, logs)


@contextmanager
def client(prepared: Prepared, habit: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client of the daemon, once it computes."""
    environ = {**os.environ, **prepared.environment}
    process = subprocess.Popen((sys.executable, CLIENT, habit), env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith(b"under MPS, 14 %")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_is_started_is_ended(keep: Keep, machine: State) -> None:
    keeper = keep("--slices", "mps:7x14,512mib", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="3", CUDA_VISIBLE_DEVICES="5")
    prepared = keeper.prepared()
    assert prepared.gpu_uuid == machine.gpu_uuid()
    assert prepared.environment["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=512M"
    assert prepared.environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "14"
    directory = Path(prepared.environment["CUDA_MPS_PIPE_DIRECTORY"])
    assert directory.stat().st_mode & 0o777 == 0o700
    journal = read_journal(keeper.run_dir / RUN_JOURNAL)
    assert journal is not None
    assert journal.directory == str(directory)
    for one in journal.processes:
        environ = Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
        assert f"CUDA_VISIBLE_DEVICES={machine.gpu_uuid()}".encode() in environ
        assert not any(entry.startswith(b"CUDA_MPS_ACTIVE") for entry in environ)
    assert keeper.end() == Restored("The MPS daemon was told to quit, and did.")
    assert not directory.exists()
    assert processes_with(str(directory)) == {}


def test_without_the_program_nothing_is_shared(keep: Keep, tmp_path: Path) -> None:
    (tmp_path / "bin" / daemon.CONTROL).unlink()
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in keep().refusal()


@pytest.mark.parametrize(
    ("habit", "says"),
    [
        ("dies", 'ended as soon as it was started, having said "[Control '),
        ("mute", "does not answer within 0.5 s"),
        ("no-server", "cannot start its server"),
    ],
)
def test_a_daemon_that_does_not_come_up_is_a_refusal(keep: Keep, habit: str, says: str) -> None:
    assert says in keep(HETEROMIG_TEST_MPS=habit).refusal()


def test_an_order_ends_only_those_that_it_names(keep: Keep, tmp_path: Path) -> None:
    keeper = keep()
    prepared = keeper.prepared()
    with client(prepared, "stubborn") as doomed, client(prepared, "stubborn") as other:
        control = control_of(prepared, tmp_path)
        servers = control.servers()
        assert servers is not None
        until(lambda: len(control.clients(servers[0]) or ()) == 2, "both are clients")
        for line in ("", "sing", TERMINATE_CLIENTS, f"{TERMINATE_CLIENTS} x 1 {doomed.pid}"):
            keeper.order(line)
        assert doomed.wait() == 3
        assert control.clients(servers[0]) == (other.pid,)
    assert isinstance(keeper.end(), Restored)


def test_clients_that_stay_do_not_keep_the_daemon(keep: Keep) -> None:
    keeper = keep()
    with client(keeper.prepared(), "deaf"):
        assert isinstance(keeper.end(), Restored)


def test_a_loss_is_told_once(keep: Keep) -> None:
    keeper = keep()
    keeper.prepared()
    journal = read_journal(keeper.run_dir / RUN_JOURNAL)
    assert journal is not None
    os.kill(journal.processes[1].pid, 9)
    lost = keeper.hear()
    assert isinstance(lost, Lost)
    assert f"server of this run (pid {journal.processes[1].pid}) ended" in lost.message
    assert isinstance(keeper.end(), Restored)


def prohibited(machine: State, _spawn: Spawn) -> str:
    with machine.edit() as shared:
        shared.gpus[0].compute_mode = PROHIBITED
    return "compute mode PROHIBITED"


def computing(machine: State, spawn: Spawn) -> str:
    child = spawn(visible=machine.gpu_uuid())
    until(lambda: processes_with(machine.gpu_uuid()), "it is seen")
    return f"is in use by pid {child.pid} (sleep 600)"


def listed(machine: State, _spawn: Spawn) -> str:
    with machine.edit() as shared:
        shared.gpus[0].processes[0] = Process(COMPUTE_PROCESS, 1 << 30, WHOLE_GPU, WHOLE_GPU, 1 << 20)
    return f"is in use by pid {1 << 30} (not visible here)"


def client_of_another(machine: State, _spawn: Spawn) -> str:
    with machine.edit() as shared:
        shared.gpus[0].processes[0] = Process(MPS_PROCESS, 1 << 30, WHOLE_GPU, WHOLE_GPU, 1 << 20)
    return f"is in use by pid {1 << 30}"


def broken(machine: State, _spawn: Spawn) -> str:
    machine.lose()
    return "GPU is lost"


@pytest.mark.parametrize("befalls", [prohibited, computing, listed, client_of_another, broken])
def test_a_gpu_that_is_not_free_is_left_alone(
    keep: Keep, machine: State, spawn: Spawn, befalls: Callable[[State, Spawn], str]
) -> None:
    says = befalls(machine, spawn)
    assert says in keep().refusal()


def test_a_gpu_of_another_daemon_is_left_alone(
    keep: Keep, machine: State, environ: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    # By a part of its UUID, which is good enough for CUDA; the stand-in for NVML would list it by all of it.
    visible = {"CUDA_VISIBLE_DEVICES": machine.gpu_uuid()[:20]}
    foreign = subprocess.Popen(
        (tmp_path / "bin" / daemon.CONTROL, "-f"),
        env={**os.environ, **environ, "CUDA_MPS_PIPE_DIRECTORY": str(other), **visible},
    )
    try:
        until((other / f"{daemon.CONTROL}.pid").exists, "it is up")
        says = f"is shared by another MPS daemon, pid {foreign.pid}, whose clients could come at any time"
        refusal = keep().refusal()
        assert says in refusal
        assert f"(echo quit | CUDA_MPS_PIPE_DIRECTORY={other} nvidia-cuda-mps-control)" in refusal
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.parametrize(
    ("devices", "may"),
    [
        (None, True),
        ("", False),
        ("0", True),
        ("GPU-1234", True),
        ("GPU-12345678-9", True),
        ("GPU-5, 3", True),
        ("GPU-5,", False),
        ("MIG-1234", False),
    ],
)
def test_who_may_see_a_gpu(devices: str | None, *, may: bool) -> None:
    assert may_see(devices, "GPU-12345678-9") == may


def test_exclusive_to_a_process_is_good_enough(keep: Keep, machine: State) -> None:
    with machine.edit() as shared:
        shared.gpus[0].compute_mode = EXCLUSIVE_PROCESS
    keeper = keep()
    keeper.prepared()
    assert isinstance(keeper.end(), Restored)
    with machine.edit() as shared:
        assert shared.gpus[0].compute_mode == EXCLUSIVE_PROCESS


@pytest.mark.parametrize(
    ("wanted", "exit_code", "says"),
    [
        (("--gpu", "0"), 7, "is in MIG mode, where MPS cannot share it"),
        (("--gpu", "3"), 7, "is in MIG mode"),
        (("--gpu", "7"), 2, "--gpu 7 is none of the GPUs of this machine: 0 (NVIDIA A30, GPU-"),
        (("--slices", "mps:7x14,16gib"), 2, "the shares want 114688 MiB in all"),
        ((), None, ""),
        (("--gpu", "2"), None, ""),
    ],
)
def test_the_gpu_can_be_chosen(  # noqa: PLR0917 - fixtures and cases
    tmp_path: Path,
    make_state: MakeState,
    library_dir: Path,
    environ: dict[str, str],
    wanted: tuple[str, ...],
    exit_code: int | None,
    says: str,
) -> None:
    state = make_state("a30/4x1g.6gb", "h100-sxm-80gb", "h100-sxm-80gb", "a30/")
    environ = {**environ, **environment(library_dir, state)}
    keeper = Keeper(tmp_path, environ, ("--slices", "mps:3x14", *wanted))
    try:
        if exit_code is not None:
            assert says in keeper.refusal(exit_code)
            return
        assert keeper.prepared().gpu_uuid == state.gpu_uuid(2 if wanted else 1)
        assert isinstance(keeper.end(), Restored)
    finally:
        for stream in (keeper.process.stdin, keeper.process.stdout):
            assert stream is not None
            stream.close()
        keeper.process.wait()


def test_a_machine_that_is_cut_has_nothing_to_share(
    tmp_path: Path, make_state: MakeState, library_dir: Path, environ: dict[str, str]
) -> None:
    state = make_state("a30/4x1g.6gb")
    keeper = Keeper(tmp_path, {**environ, **environment(library_dir, state)}, ("--slices", "mps:3x14"))
    assert "Every GPU of this machine is in MIG mode" in keeper.refusal()
    keeper.process.communicate()
