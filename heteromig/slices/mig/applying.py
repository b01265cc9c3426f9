"""Cutting one GPU by a layout, and cutting it back.

The order is always the same: look, decide, write the journal, change, look again, write the journal. After a kill at
any moment `restore` looks at the GPU, finds what is left to do, and does it; doing it twice does nothing.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig import __version__
from heteromig.core.devices import Gpu
from heteromig.core.errors import BusyError, HeteromigError, PreflightError
from heteromig.slices.mig import parted
from heteromig.slices.mig.calls import PartitionLibrary, probe_placing
from heteromig.slices.mig.cutting import cut_gpu, turn_mig_off, turn_mig_on
from heteromig.slices.mig.journal import SCHEMA_VERSION, JournalFile, LayoutJournal, Progress
from heteromig.slices.mig.partition import (
    Device,
    Partition,
    Replacement,
    Step,
    is_between,
    partition_of,
    partition_text,
    replacements,
    steps,
)
from heteromig.slices.mig.planning import parse_wanted, plan_layout
from heteromig.slices.mig.reading import Look, look, read_users
from heteromig.slices.mig.refusals import refusing
from heteromig.slices.processes import read_command
from heteromig.slices.source import SliceSource


class Planned(Struct, frozen=True):
    """What a layout would do to a GPU. `index` is NVML's."""

    index: int
    gpu: Gpu
    present: Partition
    wanted: Partition
    steps: tuple[Step, ...]


class Outcome(Struct, frozen=True):
    """What was done to a GPU. `replaced` has every device there is, and those there were and are no more."""

    gpu: Gpu
    changed: bool
    cut: Partition
    replaced: tuple[Replacement, ...]


def plan_change(library: PartitionLibrary, gpu: str | None, layout: str) -> Planned:
    """What `layout` would do to the GPU of that UUID or index; changes nothing.

    Raises:
        UsageError: there is no such GPU, or the layout cannot be on it.
        PreflightError: NVML cannot say what is needed.
    """
    return plan_seen(library, look(library, gpu), layout)


def plan_seen(library: PartitionLibrary, seen: Look, layout: str) -> Planned:
    """The same for a GPU as it was just seen, see `plan_change`."""
    if parted.names_file(layout):
        with refusing("tell the model", seen.gpu):
            pci_id = library.nvmlDeviceGetPciInfo(seen.open.handle).pciDeviceId
        wanted_layout = parted.read_layout(layout, seen.number, pci_id)
    else:
        wanted_layout = parse_wanted(layout, seen.offer)
    wanted = partition_of(plan_layout(seen.offer, wanted_layout))
    return Planned(seen.number, seen.gpu, seen.cut, wanted, steps(seen.cut, wanted))


class LayoutChange:
    """A layout for one GPU, and the way back.

    The caller holds the lock on the GPU. `journal` is the file that the way back is written into.
    """

    def __init__(
        self,
        library: PartitionLibrary,
        source: SliceSource,
        runs_dir: Path,
        journal: JournalFile,
        *,
        enable_mig_mode: bool = False,
    ) -> None:
        """`enable_mig_mode` allows to turn MIG on where that takes no reset."""
        self._library = library
        self._source = source
        self._runs_dir = runs_dir
        self._journal = journal
        self._enable_mig_mode = enable_mig_mode
        self._written: LayoutJournal | None = None
        """What was written last by this very process: the file may be gone since."""

    def apply(self, gpu: str, layout: str) -> Outcome:
        """Cut the GPU of that UUID. Where that fails half-way it is cut back at once.

        A second layout may be applied on top of a first one: the way back still leads to what was there before both.

        Raises:
            UsageError: the layout cannot be on that GPU.
            PreflightError: it cannot be cut now; says why, and whether anything is changed.
        """
        before = look(self._library, gpu)
        planned = plan_seen(self._library, before, layout)
        journal = self._journal.read()
        journal = journal if journal is not None and journal.is_open else None
        if journal is not None:
            self._require_ours(journal, before)
        self._require_steady_mode(before)
        settled = journal is None or journal.progress is Progress.APPLIED
        if before.gpu.mig_current and not planned.steps and settled:
            return Outcome(before.gpu, changed=False, cut=before.cut, replaced=_unchanged(before.devices))
        self._require_may_turn_on(before)
        self._require_idle(before)
        with refusing("make GPU instances where they are wanted", before.gpu):
            probe_placing(self._library, before.open.handle)
        asked = self._begin(before, planned.wanted, journal)
        try:
            seen = before if before.gpu.mig_current else turn_mig_on(self._library, before)
            after = cut_gpu(self._library, seen, planned.wanted)
            self._write(asked, Progress.APPLIED, after.devices)
        except BaseException as error:
            self._take_back(before, journal, asked, error)
            raise
        return Outcome(after.gpu, changed=True, cut=after.cut, replaced=replacements(before.devices, after.devices))

    def restore(self) -> Outcome | None:
        """Cut the GPU as it was before the first layout; None where there is nothing to take back.

        Raises:
            BusyError: the GPU is in use.
            PreflightError: it cannot be cut back now; says why.
        """
        journal = self._read_or_recall()
        if journal is None or not journal.is_open:
            self._journal.tidy()
            return None
        seen = self._look_for(journal)
        self._require_ours(journal, seen)
        if steps(seen.cut, journal.before) or seen.gpu.mig_current != journal.mig_before:
            if journal.mig_before:
                self._require_steady_mode(seen)
                self._require_may_turn_on(seen)
            self._require_idle(seen)
        with contextlib.suppress(PreflightError):  # a full disk is no reason to leave the GPU as it is
            self._write(journal, Progress.RESTORING, journal.devices_after)
        after = self._cut_back(seen, journal.before, mig=journal.mig_before)
        try:
            self._write(journal, Progress.RESTORED, after.devices)
        except PreflightError as error:
            raise PreflightError(
                f"The GPU is cut as it was before, but that could not be written down: {error}"
            ) from None
        replaced = replacements(journal.devices_before, after.devices)
        return Outcome(after.gpu, changed=after.devices != seen.devices, cut=after.cut, replaced=replaced)

    def forget(self) -> bool:
        """Leave the GPU as it is, and the journal closed; false where there was nothing to take back.

        Raises:
            PreflightError: the journal cannot be written.
        """
        journal = self._journal.read()
        if journal is None or not journal.is_open:
            return False
        self._write(journal, Progress.RESTORED, journal.devices_after)
        return True

    # The way back

    def _begin(self, before: Look, wanted: Partition, journal: LayoutJournal | None) -> LayoutJournal:
        """Write down how the GPU is, before anything is done to it."""
        if journal is None:
            journal = LayoutJournal(
                schema_version=SCHEMA_VERSION,
                tool_version=__version__,
                slices=str(self._source),
                runs_dir=str(self._runs_dir.absolute()),
                gpu_uuid=before.gpu.uuid,
                gpu_name=before.gpu.name,
                written_at="",
                progress=Progress.APPLYING,
                mig_before=bool(before.gpu.mig_current),
                before=before.cut,
                asked=(),
                devices_before=before.devices,
            )
        asked = (*(cut for cut in journal.asked if cut != wanted), wanted)
        return self._write(msgspec.structs.replace(journal, asked=asked), Progress.APPLYING, None)

    def _read_or_recall(self) -> LayoutJournal | None:
        """The journal, also where its file was removed or spoilt since this very process wrote it."""
        try:
            return self._journal.read() or self._written
        except PreflightError:
            if self._written is None:
                raise
            return self._written

    def _write(self, journal: LayoutJournal, progress: Progress, devices: tuple[Device, ...] | None) -> LayoutJournal:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        fresh = msgspec.structs.replace(journal, progress=progress, devices_after=devices, written_at=now)
        self._journal.write(fresh)
        self._written = fresh
        return fresh

    def _take_back(
        self, before: Look, journal: LayoutJournal | None, asked: LayoutJournal, error: BaseException
    ) -> None:
        """Cut the GPU as it was when we came, and say in place of a foreseen `error` what is the case now."""
        try:
            seen = look(self._library, before.gpu.uuid)
            after = self._cut_back(seen, before.cut, mig=bool(before.gpu.mig_current))
            if journal is None:
                self._write(asked, Progress.RESTORED, after.devices)
            else:
                self._write(journal, journal.progress, after.devices)
        except HeteromigError as failure:
            raise PreflightError(
                f"{error} The GPU could not be cut back either: {failure} When that is mended, heteromig mig restore "
                f"goes on from {self._journal.path}."
            ) from error
        if isinstance(error, HeteromigError):
            again = " Its slices were made again, with new UUIDs." if after.devices != before.devices else ""
            raise PreflightError(f"{error} The GPU is cut as it was before.{again}") from error

    def _cut_back(self, seen: Look, cut: Partition, *, mig: bool) -> Look:
        if mig:
            return cut_gpu(self._library, seen if seen.gpu.mig_current else turn_mig_on(self._library, seen), cut)
        emptied = cut_gpu(self._library, seen, ())
        if emptied.gpu.mig_current or emptied.gpu.mig_pending:
            return turn_mig_off(self._library, emptied)
        return emptied

    # What must be so before anything is done

    def _look_for(self, journal: LayoutJournal) -> Look:
        try:
            return look(self._library, journal.gpu_uuid)
        except HeteromigError as error:
            raise PreflightError(
                f"The GPU of the journal {self._journal.path}, {journal.gpu_name} ({journal.gpu_uuid}), cannot be cut "
                f"back: {error}"
            ) from error

    def _require_ours(self, journal: LayoutJournal, seen: Look) -> None:
        if journal.gpu_uuid != seen.gpu.uuid:
            raise PreflightError(
                f"The journal {self._journal.path} is of another GPU, {journal.gpu_name} ({journal.gpu_uuid}): name "
                "another file with --journal."
            )
        if not is_between(seen.cut, (journal.before, *journal.asked)):
            raise PreflightError(
                f"Somebody else has cut {seen.gpu.name} ({seen.gpu.uuid}) since heteromig did: it is "
                f"{partition_text(seen.cut)} now, was {partition_text(journal.before)} before heteromig, and was then "
                f"cut into {partition_text(journal.asked[-1])}. Nothing was changed: keep it so with heteromig mig "
                f"restore --forget {shlex.quote(str(self._journal.path))}, or cut it by hand (nvidia-smi mig)."
            )

    def _require_steady_mode(self, seen: Look) -> None:
        gpu = seen.gpu
        if gpu.mig_current is None:
            raise PreflightError(f"{gpu.name} ({gpu.uuid}) has no MIG, so that it cannot be cut.")
        if gpu.mig_current != gpu.mig_pending:
            now, then = ("on", "off") if gpu.mig_current else ("off", "on")
            raise PreflightError(
                f"The MIG mode of {gpu.name} ({gpu.uuid}) is {now} and will be {then} after a reset: reset it (sudo "
                f"nvidia-smi -i {seen.number} --gpu-reset) or set the mode back, then try again."
            )

    def _require_may_turn_on(self, seen: Look) -> None:
        if not seen.gpu.mig_current and not self._enable_mig_mode:
            raise PreflightError(
                f"MIG is off on {seen.gpu.name} ({seen.gpu.uuid}): turn it on first (sudo nvidia-smi -i {seen.number} "
                "-mig 1), or let heteromig do it with --enable-mig-mode, where that takes no reset of the GPU."
            )

    def _require_idle(self, seen: Look) -> None:
        with refusing("say who uses the GPU", seen.gpu):
            pids = read_users(self._library, seen.open)
        if pids is None:
            raise PreflightError(
                f"NVML does not show which processes are on {seen.gpu.name} ({seen.gpu.uuid}), and a GPU that may be "
                "in use is not cut: run it as root (sudo), outside of containers."
            )
        if pids:
            raise BusyError(
                f"{seen.gpu.name} ({seen.gpu.uuid}) is in use by {_people(pids)}: a GPU in use is not cut. Stop them, "
                "or wait until they have ended."
            )


def _people(pids: Sequence[int]) -> str:
    return ", ".join(f"pid {pid} ({read_command(pid) or 'unknown'})" for pid in pids)


def _unchanged(devices: tuple[Device, ...]) -> tuple[Replacement, ...]:
    return replacements(devices, devices)
