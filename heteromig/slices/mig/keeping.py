"""A MIG layout on one GPU for the time of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from heteromig.core.errors import HeteromigError, PreflightError
from heteromig.slices.keeping import Prepared, Restored
from heteromig.slices.libraries import open_library
from heteromig.slices.mig.applying import LayoutChange, Outcome
from heteromig.slices.mig.calls import partitionable
from heteromig.slices.mig.journal import RUN_JOURNAL, JournalFile
from heteromig.slices.mig.left_over import left_cut
from heteromig.slices.mig.partition import partition_summary, partition_text
from heteromig.slices.mig.reading import choose_gpu, look, read_gpus
from heteromig.slices.source import parse_slices


class KeptLayout:
    """The layout, with the way back written into the run directory."""

    def __init__(
        self, *, slices: str, runs_dir: Path, run_dir: Path, gpu: str | None, layout: str, enable_mig_mode: bool
    ) -> None:
        """`gpu` is its UUID or index; None for the only one that has MIG.

        Raises:
            UsageError: there is no such GPU, or there are several.
            PreflightError: there is no driver, or no GPU with MIG.
        """
        self._source = parse_slices(slices)
        self._runs_dir, self._run_dir = runs_dir, run_dir
        self._library = library = partitionable(open_library(self._source, runs_dir))
        journal = JournalFile(run_dir / RUN_JOURNAL)
        begun = journal.read()  # by a predecessor
        self.gpu_uuid = choose_gpu(read_gpus(library), gpu).open.gpu.uuid if begun is None else begun.gpu_uuid
        self._layout = layout
        self._outcome: Outcome | None = None
        self._change = LayoutChange(library, self._source, runs_dir, journal, enable_mig_mode=enable_mig_mode)

    def prepare(self) -> Prepared:
        """Cut the GPU."""
        others = left_cut(self._runs_dir, self._source, [self.gpu_uuid], besides=self._run_dir)
        if others:
            raise PreflightError(f"{others[0]} Nothing was changed.")
        outcome = self._change.apply(self.gpu_uuid, self._layout)
        self._outcome = outcome
        done = "was cut for this run" if outcome.changed else "was cut as this run wants it"
        what = f"{outcome.gpu.name} ({outcome.gpu.uuid}) {done}: {partition_summary(outcome.cut)}."
        return Prepared(self.gpu_uuid, what, replaced=_pairs(outcome))

    @property
    def watched(self) -> tuple[int, ...]:
        """Nothing: a GPU stays as it is cut, and in a run the sampler sees it where somebody cuts it anew."""
        return ()

    def loss(self) -> str | None:
        """What somebody else made of the GPU."""
        if self._outcome is None:
            return None
        try:
            seen = look(self._library, self.gpu_uuid)
        except HeteromigError as error:
            return str(error)
        if {device.uuid for device in seen.devices} == {one.after for one in self._outcome.replaced} - {None}:
            return None
        gpu = self._outcome.gpu
        return f"Somebody else has cut {gpu.name} ({gpu.uuid}): it is {partition_text(seen.cut)} now."

    def obey(self, order: str) -> None:
        """There are no orders for a layout."""

    def restore(self) -> Restored:
        """Cut it as it was."""
        try:
            outcome = self._change.restore()
        except HeteromigError as error:
            again = f"heteromig mig restore {shlex.quote(str(self._run_dir))}"
            raise type(error)(f"{error} The way back stays open: when that is mended, {again} goes on.") from error
        if outcome is None:
            return Restored("The GPU is cut as before the run, and never was otherwise.")
        return Restored(f"The GPU is cut as before the run: {partition_summary(outcome.cut)}.", _pairs(outcome))


def _pairs(outcome: Outcome) -> tuple[tuple[str | None, str | None], ...]:
    return tuple((one.before, one.after) for one in outcome.replaced)
