"""heteromig in a stand-in for NVIDIA's tree, as whoever has that tree uses it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from heteromig.core import effects as ef
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord, WorkerRecord
from heteromig.runner.journal import Asked, read_journal
from heteromig.runner.verification import Verification, verify_run
from tests.e2e.product import RunCommand
from tests.nvidia_tree.tree import Launch, launches

BOARD = "sim:a100-sxm-80gb"
QUICK = ("--main_benchmark_duration=700", "--start_time_buffer=0", "--background_benchmarks=bert")
"""Main for 0.7 s beside one background: what comes later on the command line wins."""


class TreeCommand(RunCommand):
    """One `heteromig run` or `build` that is started in a tree, and told nothing of it.

    Its runs are in the tree, unless `--runs-dir` puts them into `home`.
    """

    def __init__(self, tree: Path, home: Path, argv: tuple[str, ...], environ: Mapping[str, str], name: str) -> None:
        self.tree = tree
        self._recorded = home / f"{name}.launches"
        self._runs_in_tree = "--runs-dir" not in argv
        super().__init__(
            home,
            argv,
            environ={"STANDIN_RECORD": str(self._recorded), **environ},
            module="heteromig",
            name=name,
            cwd=tree,
        )

    @property
    def runs(self) -> Path:
        return (self.tree if self._runs_in_tree else self.home) / "runs"

    @property
    def launched(self) -> list[Launch]:
        """Every start of the driver, in that order."""
        return launches(self._recorded)

    @property
    def phases(self) -> list[Phase]:
        """Where the run went, in that order."""
        return [
            line.effect.destination
            for line in read_journal(self.run_dir).lines
            if isinstance(line, Asked) and isinstance(line.effect, ef.RecordTransition)
        ]

    def ends(self, exit_code: int, *words: str) -> RunRecord:
        """Wait for its end: with that exit code, those words in its reasons, each of them told, and nothing left.

        `verify` says the same from the run directory alone.
        """
        record = self.expect(exit_code, *words)
        assert record.verdict is not None
        finished = self.finish()
        told = " ".join(finished.stdout.split())
        for reason in record.verdict.reasons:
            assert " ".join(reason.sentence.split()) in told
        assert f"exit {exit_code}" in finished.stderr
        assert self.shadows == []
        verified = self.verify_without_tree().verdict
        assert (verified.status, verified.exit_code) == (record.verdict.status, exit_code)
        assert [reason.exit_code for reason in verified.reasons] == [
            reason.exit_code for reason in record.verdict.reasons
        ]
        return record

    @property
    def shadows(self) -> list[Path]:
        """What a run directory must not hold once the run is over: links, and what they were for."""
        return [path for path in self.run_dir.rglob("*") if path.is_symlink() or path.name == "tree"]

    def verify_without_tree(self) -> Verification:
        """What `verify` says while the tree is somewhere else."""
        away = self.tree.with_name("moved")
        run_dir = self.run_dir
        if run_dir.is_relative_to(self.tree):
            run_dir = away / run_dir.relative_to(self.tree)
        self.tree.rename(away)
        try:
            return verify_run(run_dir)
        finally:
            away.rename(self.tree)


StartInTree = Callable[..., TreeCommand]


def of_role(record: RunRecord, role: str) -> list[WorkerRecord]:
    return [worker for worker in record.workers if worker.role == role]


def run_args(launch: Launch) -> list[str]:
    return shlex.split(launch.run_args or "")
