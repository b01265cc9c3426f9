from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError
from heteromig.core.events import SpawnFailed, WorkerExited, WorkerSpawned
from heteromig.workers.command import Command
from heteromig.workers.guardian import MARK_VARIABLE, read_process
from heteromig.workers.worker import ExitRecord, Worker
from tests.workers.trees import PYTHON, Trees, ended, is_alive, marked, output, printed, reported, until

LEAVES_GRANDCHILDREN = """
import os, time
def linger():
    print("pid", os.getpid(), flush=True)
    time.sleep(1000)
if os.fork() == 0:
    linger()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        linger()
    os._exit(0)
os.wait()
"""
"""One plain grandchild, and one that escaped from session and parent as daemons do."""

IGNORES_TERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True: time.sleep(1000)
"""

RESPAWNER = """
import os, signal, time
def child():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        os.wait()
for _ in range(4):
    if os.fork() == 0: child()
print("ready", flush=True)
while True:
    os.wait()
    if os.fork() == 0: child()
"""
"""Whatever dies is forked again by whoever is its parent."""

FORK_CHAIN = """
import os
print("ready", flush=True)
while True:
    if os.fork():
        os._exit(0)
"""
"""No process of it lives for longer than one fork."""


def recorded(worker: Worker) -> ExitRecord:
    assert worker.exit is not None
    return worker.exit


def harness_of(worker: Worker) -> int:
    assert worker.pid is not None
    return worker.pid


def guardian_of(worker: Worker) -> int:
    assert worker.guardian_pid is not None
    return worker.guardian_pid


def pids(worker: Worker) -> list[int]:
    return [int(line.split()[1]) for line in output(worker).splitlines() if line.startswith("pid ")]


class TestEnd:
    @pytest.mark.parametrize("code", [0, 3, 255])
    def test_exit_code(self, trees: Trees, code: int) -> None:
        worker = trees.start(f"raise SystemExit({code})")

        exited = ended(worker)

        assert exited == WorkerExited(at_ns=2, worker=0, exit_code=code, signal=None, stopped_by=None)
        assert recorded(worker).killed_descendants == 0
        assert not worker.is_alive

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
    def test_signal(self, trees: Trees, signum: int) -> None:
        worker = trees.start(f"import os; os.kill(os.getpid(), {int(signum)})")

        exited = ended(worker)

        assert (exited.exit_code, exited.signal, exited.stopped_by) == (None, signum, None)

    def test_is_told_once(self, trees: Trees) -> None:
        worker = trees.start("pass")
        ended(worker)

        assert worker.reap(at_ns=3) is None
        assert worker.read_report(at_ns=3) is None

    def test_is_not_told_while_it_runs(self, trees: Trees) -> None:
        worker = trees.start("import time; time.sleep(1000)")

        assert worker.reap(at_ns=2) is None
        assert worker.is_alive
        assert is_alive(harness_of(worker))

    def test_resources_are_those_of_the_whole_tree(self, trees: Trees) -> None:
        worker = trees.start(
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    block = bytearray(64 << 20)\n"
            "    while time.process_time() < 0.3: pass\n"
            "    os._exit(0)\n"
            "os.wait()\n"
        )
        ended(worker)

        record = recorded(worker)
        assert record.utime_s + record.stime_s >= 0.3
        assert record.maxrss_bytes > 64 << 20
        assert record.wall_s >= 0.3
        assert record.ended_utc_ns - record.started_utc_ns == pytest.approx(record.wall_s * 1e9, rel=0.2)

    @pytest.mark.parametrize("code", [LEAVES_GRANDCHILDREN])
    def test_descendants_that_are_left_are_killed(self, trees: Trees, code: str) -> None:
        worker = trees.start(code + "\nwhile True:\n  if open('stdout.log').read().count('pid') == 2: break\n")

        exited = ended(worker)

        assert exited.exit_code == 0
        assert recorded(worker).killed_descendants == 2
        assert len(pids(worker)) == 2
        assert not any(is_alive(pid) for pid in pids(worker))

    def test_a_harness_that_signals_its_whole_group_does_not_hit_its_guardian(self, trees: Trees) -> None:
        worker = trees.start("import os; os.kill(0, 9)")

        assert ended(worker).signal == signal.SIGKILL


class TestStart:
    def test_report(self, trees: Trees) -> None:
        worker = trees.worker(*PYTHON, "import os, time; print('pid', os.getpid(), flush=True); time.sleep(1000)")
        worker.spawn()

        report = reported(worker)

        printed(worker, "pid ")
        assert report == WorkerSpawned(at_ns=1, worker=0, guardian_pid=guardian_of(worker), pid=pids(worker)[0])
        assert os.getsid(report.pid) == report.guardian_pid

    def test_missing_program(self, trees: Trees) -> None:
        worker = trees.worker("no-such-program")
        self._fails(worker, "The program no-such-program cannot be run in .*: No such file or directory")

    def test_program_that_is_not_executable(self, trees: Trees, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("text")
        worker = trees.worker(str(tmp_path / "text"))
        self._fails(worker, "text cannot be run in .*: Permission denied")

    def test_program_that_is_no_program(self, trees: Trees, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("text")
        (tmp_path / "text").chmod(0o755)
        worker = trees.worker(str(tmp_path / "text"))
        self._fails(worker, "Exec format error")

    def test_missing_working_directory(self, trees: Trees, tmp_path: Path) -> None:
        worker = trees.worker("true", cwd=tmp_path / "absent")
        self._fails(worker, "absent of the harness cannot be entered: No such file or directory")

    def test_processor_that_is_not_there(self, trees: Trees) -> None:
        worker = trees.worker("true", cpus=(4000,))
        self._fails(worker, "cannot be started: .*Invalid argument")

    def test_log_that_cannot_be_written(self, trees: Trees) -> None:
        worker = trees.worker("true")
        (worker.directory / "stdout.log").mkdir()
        self._fails(worker, r"cannot be started: .*stdout\.log")

    def test_guardian_that_dies_before_it_reports(self, trees: Trees) -> None:
        worker = trees.worker(*PYTHON, "import time; time.sleep(1000)")
        worker.spawn()
        os.kill(guardian_of(worker), signal.SIGKILL)
        self._fails(worker, "guardian of worker 0 ended before its harness ran")

    @staticmethod
    def _fails(worker: Worker, sentence: str) -> None:
        if worker.pidfd < 0:
            worker.spawn()
        report = reported(worker)
        assert isinstance(report, SpawnFailed)
        assert pytest.raises(AssertionError, match=sentence).matches(AssertionError(report.message))
        assert ended(worker) == WorkerExited(at_ns=2, worker=0, exit_code=None, signal=None, stopped_by=None)

    def test_directory_that_is_missing(self, marker: str, tmp_path: Path) -> None:
        assert marker
        worker = Worker(index=5, directory=tmp_path / "absent", command=Command(argv=("true",), env={}, cwd=tmp_path))
        with pytest.raises(PreflightError, match=r"Worker 5 cannot be started in .*absent"):
            worker.spawn()
        worker.close()

    def test_directory_that_was_used(self, trees: Trees) -> None:
        worker = trees.worker("true")
        worker.spawn()
        ended(worker)
        again = Worker(index=0, directory=worker.directory, command=worker.command)

        with pytest.raises(PreflightError, match="fresh directory"):
            again.spawn()

        again.close()

    def test_eight_at_once(self, trees: Trees) -> None:
        workers = [trees.worker(*PYTHON, f"raise SystemExit({code})") for code in range(8)]
        for worker in workers:
            worker.spawn()

        assert [reported(worker).worker for worker in workers] == list(range(8))
        assert [ended(worker).exit_code for worker in workers] == list(range(8))


class TestWhatTheHarnessSees:
    def test_only_the_standard_descriptors(self, trees: Trees) -> None:
        with (trees.root / "inheritable").open("w") as file:
            os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - by position only
            worker = trees.start(
                "import os\n"
                "for fd in range(100):\n"
                "    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n"
                "    except FileNotFoundError: pass\n"
            )
            ended(worker)

        log = worker.directory / "stdout.log"
        assert output(worker).splitlines() == ["0 /dev/null", f"1 {log}", f"2 {log}"]

    def test_its_environment_over_ours_which_is_written_nowhere(
        self, trees: Trees, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OF_THE_CONTROLLER", "1")
        env = {**trees.env, "CUDA_VISIBLE_DEVICES": "MIG-1", "EMPTY": "", "BYTES": "\udcff ü = \n"}
        worker = trees.worker("env", "-0", env=env)
        worker.spawn()
        ended(worker)

        entries = (worker.directory / "stdout.log").read_bytes().rstrip(b"\0").split(b"\0")
        expected = {**os.environ, **env}
        assert set(entries) >= {os.fsencode(f"{name}={value}") for name, value in expected.items()}
        # readline puts these two into the C environment of whoever imports it, behind os.environ's back.
        behind = {"COLUMNS", "LINES"}
        names = {os.fsdecode(entry).partition("=")[0] for entry in entries}
        assert names - expected.keys() - behind == {MARK_VARIABLE}
        assert "OF_THE_CONTROLLER" not in (worker.directory / "command.json").read_text()

    def test_its_processors(self, trees: Trees) -> None:
        cpu = max(os.sched_getaffinity(0))
        worker = trees.start("import os; print(os.sched_getaffinity(0))", cpus=(cpu,))
        ended(worker)

        assert output(worker) == f"{{{cpu}}}\n"

    def test_default_signals(self, trees: Trees) -> None:
        worker = trees.worker("grep", "Sig[BI]", "/proc/self/status")
        ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            worker.spawn()
        finally:
            signal.signal(signal.SIGHUP, ignored)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        ended(worker)

        names, masks = output(worker).split()[::2], output(worker).split()[1::2]
        assert names == ["SigBlk:", "SigIgn:"]
        # Signals 32 and 33 are the C library's own: nobody can reset them, and some launchers leave them ignored.
        assert [int(mask, 16) & ~(0b11 << 31) for mask in masks] == [0, 0]

    def test_a_log_that_nobody_reads_never_blocks_it(self, trees: Trees) -> None:
        worker = trees.start("for _ in range(50): print('x' * 99_999)")

        assert ended(worker).exit_code == 0
        assert len(output(worker)) == 5_000_000

    def test_both_streams_in_order(self, trees: Trees) -> None:
        worker = trees.start("import sys; print(1, flush=True); print(2, file=sys.stderr); print(3)")
        ended(worker)

        assert output(worker) == "1\n2\n3\n"

    def test_its_program_is_found_along_its_own_path(self, trees: Trees, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "mine").symlink_to("/bin/echo")
        worker = trees.worker("mine", "hello", env={**trees.env, "PATH": str(tmp_path / "bin")})
        worker.spawn()
        ended(worker)

        assert output(worker) == "hello\n"


class TestStop:
    RECORDS_SIGNALS = """
import os, signal, sys, time
who = "parent" if (child := os.fork()) else "child"
def stop(signum, frame):
    print(who, signal.Signals(signum).name, flush=True)
    if who == "child": os._exit(0)
    os.waitpid(child, 0)
    raise SystemExit(7)
def clean(signum, frame):
    print(who, "clean", flush=True)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, clean)
print("ready", flush=True)
while True: time.sleep(1000)
"""

    def test_clean_stop_reaches_only_the_harness_process(self, trees: Trees) -> None:
        worker = trees.start(self.RECORDS_SIGNALS, clean_stop_signal=signal.SIGUSR1)
        until(lambda: output(worker).count("ready") == 2, "both are ready")

        worker.clean_stop()

        exited = ended(worker)
        assert (exited.exit_code, exited.stopped_by) == (0, "clean stop")
        assert "parent clean" in output(worker)
        assert "child" not in output(worker)
        assert recorded(worker).killed_descendants == 1

    def test_clean_stop_of_a_harness_that_knows_none(self, trees: Trees) -> None:
        worker = trees.start(self.RECORDS_SIGNALS)
        until(lambda: output(worker).count("ready") == 2, "both are ready")

        worker.clean_stop()
        worker.terminate()

        assert ended(worker).exit_code == 7

    def test_term_reaches_all(self, trees: Trees) -> None:
        worker = trees.start(self.RECORDS_SIGNALS)
        until(lambda: output(worker).count("ready") == 2, "both are ready")

        worker.terminate()

        exited = ended(worker)
        assert (exited.exit_code, exited.stopped_by) == (7, "TERM")
        assert sorted(output(worker).splitlines()[2:]) == ["child SIGTERM", "parent SIGTERM"]
        assert recorded(worker).killed_descendants == 0

    def test_after_term_descendants_may_outlive_the_harness_for_the_grace(self, trees: Trees) -> None:
        worker = trees.start(
            "import os, signal, time\n"
            "if os.fork():\n"
            "    time.sleep(1000)\n"
            "def stop(*_):\n"
            "    while os.getppid() == parent: time.sleep(0.001)\n"
            "    time.sleep(0.1)\n"
            "    print('cleaned up', flush=True)\n"
            "    os._exit(0)\n"
            "parent = os.getppid()\n"
            "signal.signal(signal.SIGTERM, stop)\n"
            "print('ready', flush=True)\n"
            "while True: time.sleep(1000)\n"
        )
        printed(worker, "ready")

        worker.terminate()

        exited = ended(worker)
        assert (exited.signal, exited.stopped_by) == (signal.SIGTERM, "TERM")
        assert "cleaned up" in output(worker)
        assert recorded(worker).killed_descendants == 0

    def test_descendants_that_abuse_the_grace_are_killed(self, trees: Trees) -> None:
        worker = trees.start(f"import os, time\nif os.fork() == 0:\n    exec({IGNORES_TERM!r})\ntime.sleep(1000)\n")
        printed(worker, "ready")
        worker.terminate()
        until(lambda: not is_alive(harness_of(worker)), "the harness is gone")
        assert worker.reap(at_ns=2) is None

        worker.kill()

        exited = ended(worker)
        assert (exited.signal, exited.stopped_by) == (signal.SIGTERM, "TERM")
        assert recorded(worker).killed_descendants == 1

    def test_a_harness_that_ignores_term(self, trees: Trees) -> None:
        worker = trees.start(IGNORES_TERM)
        printed(worker, "ready")
        worker.terminate()

        worker.kill()

        exited = ended(worker)
        assert (exited.signal, exited.stopped_by) == (signal.SIGKILL, "KILL")

    @pytest.mark.parametrize("code", [RESPAWNER, FORK_CHAIN], ids=["respawner", "fork chain"])
    def test_trees_that_fork_while_they_are_killed(self, trees: Trees, code: str) -> None:
        worker = trees.start(code)
        printed(worker, "ready")

        worker.kill()

        ended(worker)

    def test_kill_ends_a_stopped_tree(self, trees: Trees) -> None:
        worker = trees.start(LEAVES_GRANDCHILDREN + "\nimport signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
        until(lambda: len(pids(worker)) == 2, "both grandchildren run")
        for pid in pids(worker):
            os.kill(pid, signal.SIGSTOP)

        worker.kill()

        assert ended(worker).stopped_by == "KILL"

    def test_term_wakes_a_stopped_tree(self, trees: Trees) -> None:
        worker = trees.start(self.RECORDS_SIGNALS)
        until(lambda: output(worker).count("ready") == 2, "both are ready")
        os.kill(harness_of(worker), signal.SIGSTOP)

        worker.terminate()

        assert ended(worker).exit_code == 7

    def test_a_guardian_that_does_not_react(self, trees: Trees) -> None:
        worker = trees.start(LEAVES_GRANDCHILDREN + "\ntime.sleep(1000)")
        until(lambda: len(pids(worker)) == 2, "both grandchildren run")
        os.kill(guardian_of(worker), signal.SIGSTOP)
        worker.kill()
        assert worker.reap(at_ns=2) is None

        worker.kill_hard()

        exited = ended(worker)
        assert (exited.exit_code, exited.signal) == (None, None)
        assert not any(is_alive(pid) for pid in [*pids(worker), harness_of(worker)])

    def test_stopping_what_has_ended_is_harmless(self, trees: Trees) -> None:
        worker = trees.start("pass")
        ended(worker)

        worker.clean_stop()
        worker.terminate()
        worker.kill()
        worker.kill_hard()

    def test_stopping_what_was_never_spawned_is_harmless(self, trees: Trees) -> None:
        worker = trees.worker("true")

        worker.terminate()
        worker.kill_hard()

        assert worker.reap(at_ns=1) is None
        assert worker.read_report(at_ns=1) is None
        assert not worker.is_alive

    def test_close_ends_what_still_runs(self, trees: Trees) -> None:
        worker = trees.start(LEAVES_GRANDCHILDREN + "\ntime.sleep(1000)")
        until(lambda: len(pids(worker)) == 2, "both grandchildren run")

        worker.close()

        assert not any(is_alive(pid) for pid in [*pids(worker), harness_of(worker)])


class TestDeathsOfOthers:
    def test_guardian_killed(self, trees: Trees) -> None:
        worker = trees.start(LEAVES_GRANDCHILDREN + "\ntime.sleep(1000)")
        until(lambda: len(pids(worker)) == 2, "both grandchildren run")

        os.kill(guardian_of(worker), signal.SIGKILL)

        assert ended(worker) == WorkerExited(at_ns=2, worker=0, exit_code=None, signal=None, stopped_by=None)
        assert not any(is_alive(pid) for pid in [*pids(worker), harness_of(worker)])

    def test_the_sweep_spares_other_workers_and_other_children(self, trees: Trees) -> None:
        bystander = trees.start("import time; time.sleep(1000)")
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            worker = trees.start("import time; time.sleep(1000)")
            os.kill(guardian_of(worker), signal.SIGKILL)
            ended(worker)

            assert is_alive(harness_of(bystander))
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_guardian_terminated_by_somebody_else(self, trees: Trees) -> None:
        worker = trees.start(IGNORES_TERM)
        printed(worker, "ready")

        os.kill(guardian_of(worker), signal.SIGTERM)

        exited = ended(worker)
        assert (exited.signal, exited.stopped_by) == (signal.SIGKILL, None)
        assert recorded(worker).stopped_by == "lifeline"

    def test_guardian_shrugs_off_a_command_after_the_tree_is_gone(self, trees: Trees) -> None:
        worker = trees.start("pass")
        until((worker.directory / "exit.json").exists, "exit.json is written")

        for _ in range(3):
            worker.kill()

        assert ended(worker).exit_code == 0


class TestDeathOfTheController:
    @pytest.mark.parametrize("delay_ms", [0, 5, 10, 15, 20, 25, 30, 50])
    def test_nothing_is_left_of_workers_that_were_just_starting(
        self, marker: str, tmp_path: Path, delay_ms: int
    ) -> None:
        code = (
            "import os, time\n"
            "from pathlib import Path\n"
            "from heteromig.workers.command import Command\n"
            "from heteromig.workers.worker import Worker\n"
            "for index in range(3):\n"
            "    directory = Path.cwd() / str(index)\n"
            "    directory.mkdir()\n"
            "    command = Command(('sleep', '1000'), dict(os.environ), directory)\n"
            "    Worker(index=index, directory=directory, command=command).spawn()\n"
            f"time.sleep({delay_ms} / 1000)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

        controller = subprocess.run((sys.executable, "-c", code), cwd=tmp_path, env=environment, check=False)

        assert controller.returncode == -signal.SIGKILL
        until(lambda: marked(marker) == [], "nothing is left")

    def test_nothing_is_left(self, trees: Trees, marker: str) -> None:
        program = Path(__file__).with_name("controller.py")
        controller = trees.worker(
            sys.executable, str(program), str(trees.root), env={**trees.env, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        controller.spawn()
        reported(controller)
        printed(controller, "ready")
        processes = marked(marker)
        assert len(processes) >= 1 + 1 + 2 * (1 + 1) + 2, "controller, its guardian, two workers, grandchildren"
        # Its own guardian must not be what cleans up here.
        harness = read_process(harness_of(controller))
        assert harness is not None
        watching = (guardian_of(controller), harness.ppid)
        for pid in watching:
            os.kill(pid, signal.SIGSTOP)

        os.kill(harness_of(controller), signal.SIGKILL)

        mine = {*watching, harness_of(controller)}
        until(lambda: set(marked(marker)) <= mine, "all but the stopped guardians are gone")
        for name in ("inner-0", "inner-1"):
            record = trees.root / name / "exit.json"
            until(record.exists, "exit.json is written")
            assert '"stopped_by": "lifeline"' in record.read_text()
        for pid in watching:
            os.kill(pid, signal.SIGCONT)
