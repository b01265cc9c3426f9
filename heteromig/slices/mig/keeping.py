"""A MIG layout on one GPU for the time of a run."""

from __future__ import annotations

from pathlib import Path

from heteromig.slices.keeping import Prepared
from heteromig.slices.libraries import open_library
from heteromig.slices.mig.applying import LayoutChange, Outcome
from heteromig.slices.mig.calls import partitionable
from heteromig.slices.mig.journal import RUN_JOURNAL, JournalFile
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.mig.reading import choose_gpu, read_gpus
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
        source = parse_slices(slices)
        library = partitionable(open_library(source, runs_dir))
        self.gpu_uuid = choose_gpu(read_gpus(library), gpu).open.gpu.uuid
        self._layout = layout
        self._change = LayoutChange(
            library, source, runs_dir, JournalFile(run_dir / RUN_JOURNAL), enable_mig_mode=enable_mig_mode
        )

    def prepare(self) -> Prepared:
        """Cut the GPU."""
        outcome = self._change.apply(self.gpu_uuid, self._layout)
        replaced = tuple((one.before, one.after) for one in outcome.replaced)
        return Prepared(self.gpu_uuid, _sentence(outcome, "cut"), replaced=replaced)

    @property
    def watched(self) -> tuple[int, ...]:
        """Nothing: a GPU stays as it is cut, and the sampler sees it where somebody cuts it anew."""
        return ()

    def loss(self) -> str | None:
        """Nothing can be lost."""

    def obey(self, order: str) -> None:
        """There are no orders for a layout."""

    def restore(self) -> str:
        """Cut it as it was."""
        outcome = self._change.restore()
        return "The GPU was cut so before the run." if outcome is None else _sentence(outcome, "cut back")


def _sentence(outcome: Outcome, done: str) -> str:
    gpu = outcome.gpu
    return f"{gpu.name} ({gpu.uuid}) was {done} into {partition_text(outcome.cut) or 'nothing'}."
