"""What the commands of `heteromig mig` do, from within this process: each opens the library and locks the GPU."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from msgspec import Struct

from heteromig.core.devices import Gpu, SliceKind, UnusableGpu
from heteromig.core.errors import PreflightError, UsageError
from heteromig.slices.boards import Profile
from heteromig.slices.discovery import OpenSlice, read_slices
from heteromig.slices.libraries import open_library
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.mig.applying import LayoutChange, Outcome, Planned, plan_change
from heteromig.slices.mig.calls import PartitionLibrary, partitionable
from heteromig.slices.mig.journal import (
    RUN_JOURNAL,
    JournalFile,
    LayoutJournal,
    journal_directory,
    journals_in,
)
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.mig.reading import IndexedGpu, choose_gpu, read_gpus, read_instances, read_offer
from heteromig.slices.mig.refusals import refusal
from heteromig.slices.nvml import NVMLError
from heteromig.slices.source import SliceSource, parse_slices


class Machine(Struct, frozen=True):
    """Where GPUs are to be cut: a source of MIG slices, and the runs directory that goes with it."""

    source: SliceSource
    runs_dir: Path

    @property
    def simulated(self) -> bool:
        """Whether no GPU is involved."""
        return self.source.simulated

    def open(self) -> PartitionLibrary:
        """Its library, not initialised yet."""
        return partitionable(open_library(self.source, self.runs_dir))

    def default_journal(self, gpu_uuid: str) -> JournalFile:
        """The journal of a GPU for layouts that belong to no run.

        A simulated GPU is another one for each layout that `--slices` gives it, with the same UUID.
        """
        which = f"-{hashlib.sha256(str(self.source).encode()).hexdigest()[:8]}" if self.source.simulated else ""
        return JournalFile(journal_directory(self.source, self.runs_dir) / f"{gpu_uuid}{which}.json")


def machine_of(slices: str, runs_dir: Path) -> Machine:
    """`slices` is the value of `--slices`.

    Raises:
        UsageError: it is no such value, or none that can be cut.
    """
    source = parse_slices(slices)
    if source.kind not in {SliceKind.MIG, SliceKind.SIM}:
        raise UsageError(
            f"--slices {source} is about GPUs without MIG: cut MIG slices of real GPUs (--slices mig) or of simulated "
            "ones (--slices sim:a100-sxm-80gb)."
        )
    return Machine(source, runs_dir)


class ShownDevice(Struct, frozen=True):
    """A MIG device. `start` is the memory slice that it begins at, None where NVML does not tell this user."""

    profile: str
    start: int | None
    gpu_instance_id: int | None
    compute_instance_id: int | None
    uuid: str


class ShownJournal(Struct, frozen=True):
    """That the GPU was cut by `heteromig mig apply`, and what the way back leads to."""

    path: str
    progress: str
    before: str


class ShownGpu(Struct, frozen=True):
    """One GPU. `index` is NVML's; `cut` and `profiles` are None where NVML does not tell, and `unknown` says why."""

    index: int
    gpu: Gpu
    cut: str | None
    devices: tuple[ShownDevice, ...]
    profiles: tuple[Profile, ...] | None
    unknown: str | None
    journal: ShownJournal | None


class Shown(Struct, frozen=True):
    """What there is to show, and which GPUs cannot be read."""

    gpus: tuple[ShownGpu, ...]
    unusable: tuple[UnusableGpu, ...] = ()


def show_gpus(machine: Machine, gpu: str | None) -> Shown:
    """Every GPU with how it is and may be cut, or only the one of that UUID or index.

    Raises:
        UsageError: there is no such GPU.
        PreflightError: there is no driver, or no GPU.
    """
    library = machine.open()
    gpus = read_gpus(library)
    if gpu is not None:
        return Shown((_show(machine, library, choose_gpu(gpus, gpu)),))
    if not gpus.seen:
        raise PreflightError(" ".join(one.message for one in gpus.unusable))
    return Shown(tuple(_show(machine, library, one) for one in gpus.seen), gpus.unusable)


def _show(machine: Machine, library: PartitionLibrary, one: IndexedGpu) -> ShownGpu:
    gpu = one.open.gpu
    cut, profiles, unknown = None, None, None
    starts: dict[int | None, int] = {}
    found: list[OpenSlice] = []
    try:
        offer = read_offer(library, one.open)
        instances = read_instances(library, one.open, offer)
    except NVMLError as error:
        unknown = refusal(error, "say how slices are and may be cut", gpu)
    except PreflightError as error:
        unknown = str(error)
    else:
        profiles, cut = offer.profiles, partition_text(tuple(instance.instance for instance in instances))
        starts = {instance.id: instance.instance.start for instance in instances}
    try:  # which takes no privileges
        found = read_slices(library, one.open, SliceKind.MIG)
    except NVMLError as error:
        unknown = unknown or refusal(error, "say what slices there are", gpu)
    journal = machine.default_journal(gpu.uuid)
    try:
        entry = journal.read()
    except PreflightError as error:
        entry, unknown = None, unknown or str(error)
    return ShownGpu(
        index=one.number,
        gpu=gpu,
        cut=cut,
        devices=tuple(
            ShownDevice(
                profile=device.profile,
                start=starts.get(device.gpu_instance_id),
                gpu_instance_id=device.gpu_instance_id,
                compute_instance_id=device.compute_instance_id,
                uuid=device.uuid,
            )
            for device in (place.slice for place in found)
        ),
        profiles=profiles,
        unknown=unknown,
        journal=None
        if entry is None or not entry.is_open
        else ShownJournal(str(journal.path), entry.progress.value, partition_text(entry.before)),
    )


def plan_layout_on(machine: Machine, gpu: str | None, layout: str) -> Planned:
    """What the layout would do to the GPU of that UUID or index, or to the only one that has MIG.

    Raises:
        UsageError: there is no such GPU, or the layout cannot be on it.
        PreflightError: NVML cannot say what is needed.
    """
    return plan_change(machine.open(), gpu, layout)


def apply_layout(
    machine: Machine, gpu: str | None, layout: str, journal: Path | None, *, enable_mig_mode: bool
) -> tuple[Outcome, Path]:
    """Cut that GPU; returns the path of the journal as well.

    Raises:
        UsageError: there is no such GPU, or the layout cannot be on it.
        PreflightError: it cannot be cut now; says why, and whether anything is changed.
    """
    library = machine.open()
    uuid = choose_gpu(read_gpus(library), gpu).open.gpu.uuid
    file = machine.default_journal(uuid) if journal is None else _journal_at(journal)
    change = LayoutChange(library, machine.source, machine.runs_dir, file, enable_mig_mode=enable_mig_mode)
    with closing(lock_gpus([uuid], lock_directory(machine.source, machine.runs_dir))), _signals_raise():
        return change.apply(uuid, layout), file.path


def open_journals(machine: Machine, gpu: str | None) -> list[JournalFile]:
    """The journals of GPUs that were not cut back yet, or only that of the GPU of that UUID or index.

    Those that cannot be read are among them, for whoever closes them to say so.

    Raises:
        UsageError: there is no such GPU.
    """
    uuid = None if gpu is None else choose_gpu(read_gpus(machine.open()), gpu).open.gpu.uuid
    return [
        journal
        for journal in journals_in(journal_directory(machine.source, machine.runs_dir))
        if _is_open(journal, str(machine.source), uuid)
    ]


def _is_open(journal: JournalFile, slices: str, gpu_uuid: str | None) -> bool:
    try:
        entry = journal.read()
    except PreflightError:
        return gpu_uuid is None
    return entry is not None and entry.is_open and entry.slices == slices and gpu_uuid in {None, entry.gpu_uuid}


def journal_of(path: Path) -> JournalFile:
    """The journal that somebody named: the file, or a run directory with one.

    Raises:
        UsageError: there is none.
    """
    journal = _journal_at(path)
    if not os.path.lexists(journal.path):
        raise UsageError(f"There is no journal of a layout at {journal.path}: name the file, or the run directory.")
    return journal


def _journal_at(path: Path) -> JournalFile:
    return JournalFile(path / RUN_JOURNAL if path.is_dir() else path)


class Closed(Struct, frozen=True):
    """What became of a journal.

    `outcome` is None where the GPU was not touched: because that was wanted (`forgotten`), or the journal was closed
    before.
    """

    journal: str
    simulated: bool
    forgotten: bool
    outcome: Outcome | None


def close_journal(journal: JournalFile, *, forget: bool, enable_mig_mode: bool) -> Closed:
    """Cut the GPU of the journal back; or, to `forget` how it was, leave it as it is.

    Raises:
        PreflightError: it cannot be cut back now; says why.
    """
    entry = journal.read()
    if entry is None:
        raise PreflightError(f"The journal {journal.path} is gone: nothing was changed.")
    outcome, forgotten = None, False
    if entry.is_open:
        with _change_of(journal, entry, enable_mig_mode=enable_mig_mode) as change:
            if forget:
                forgotten = change.forget()
            else:
                outcome = change.restore()
    return Closed(str(journal.path), parse_slices(entry.slices).simulated, forgotten, outcome)


@contextmanager
def _change_of(journal: JournalFile, entry: LayoutJournal, *, enable_mig_mode: bool) -> Iterator[LayoutChange]:
    """With the GPU locked."""
    machine = Machine(parse_slices(entry.slices), Path(entry.runs_dir))
    with closing(lock_gpus([entry.gpu_uuid], lock_directory(machine.source, machine.runs_dir))), _signals_raise():
        yield LayoutChange(machine.open(), machine.source, machine.runs_dir, journal, enable_mig_mode=enable_mig_mode)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """The first signal that ends the process raises SystemExit, so that a GPU is cut back; further ones do nothing.

    What is done then takes a moment only, unless the driver hangs, and KILL is left for that.
    """

    def leave(signum: int, _: FrameType | None) -> None:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    before = {one: signal.signal(one, leave) for one in _SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
