"""The directory of a campaign: run directories, and `campaign.json`, which says what was asked and what came of it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from heteromig.campaign.fingerprint import fingerprint, require_same
from heteromig.campaign.probes import (
    Confirm,
    Done,
    Inconclusive,
    NotPossible,
    Probe,
    RunProbe,
    Stopped,
    TuneSettings,
)
from heteromig.campaign.tuning import came_to_nothing
from heteromig.comparing.series import such_as
from heteromig.core.decoding import decode
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.record import Tool
from heteromig.core.redaction import Redaction
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import ExitCode
from heteromig.logs.files import read_regular
from heteromig.runner.recording import TOOL
from heteromig.runner.rundir import write_json

CAMPAIGN_JSON = "campaign.json"
SCHEMA_VERSION = 1
TUNE, MATRIX = "tune", "matrix"

Wanted = RunProbe | Confirm
Ended = Done | Inconclusive | NotPossible | Stopped


class Asked(Struct, frozen=True):
    """What was asked: the settings of the planner, and the specification of all runs, without its secrets."""

    tune: TuneSettings
    run: RunSpec


class Entry(Struct, frozen=True):
    """One run that has ended: what was wanted of it, and what it says.

    `run_dir` is relative to the directory of the campaign. `probe` is None where the run is the reason to stop, and is
    to be done again when the campaign goes on: it was interrupted, or something failed that no rate changes.
    `took_s` is how long it took in all.
    """

    step: Wanted
    run_dir: str
    exit_code: int
    took_s: float
    probe: Probe | None


class Campaign(Struct, frozen=True):
    """All of `campaign.json`.

    `fingerprint` is that of `asked`. The first `forgiven` runs were there when the campaign was last continued: those
    of them that came to nothing count no more. `answer` is what the planner said in the end, None while it goes on.
    `exit_code` is that of the whole, None likewise, and where its controller was killed; `sentence` says why it ended.
    """

    schema_version: int
    tool: Tool
    kind: str
    campaign_id: str
    fingerprint: str
    asked: Asked
    entries: tuple[Entry, ...] = ()
    forgiven: int = 0
    answer: Ended | None = None
    exit_code: int | None = None
    sentence: str = ""

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What the planner is told."""
        old, new = self.entries[: self.forgiven], self.entries[self.forgiven :]
        settings = self.asked.tune
        known = [one.probe for one in old if one.probe is not None and not came_to_nothing(settings, one.probe)]
        return (*known, *(one.probe for one in new if one.probe is not None))

    @property
    def can_go_on(self) -> bool:
        """Whether there is something to run when it is continued."""
        return self.answer is None or isinstance(self.answer, Stopped)

    def after(self, entry: Entry) -> Campaign:
        """The same, one run later."""
        return replace(self, entries=(*self.entries, entry))

    def stopped(self, exit_code: int, sentence: str) -> Campaign:
        """The same, ended without an answer."""
        return replace(self, exit_code=exit_code, sentence=sentence)

    def answered(self, answer: Ended) -> Campaign:
        """The same, ended by the planner. What stands in the way of an answer has the code of the last run."""
        if isinstance(answer, Done):
            exit_code, sentence = int(ExitCode.VALID), "Every rate that was asked for is known."
        else:
            exit_code, sentence = int(ExitCode.INCONCLUSIVE), answer.why
            if isinstance(answer, Stopped) and self.entries:
                exit_code = self.entries[-1].exit_code or exit_code
        return replace(self, answer=answer, exit_code=exit_code, sentence=sentence)

    def continued(self) -> Campaign:
        """The same, going on."""
        return replace(self, forgiven=len(self.entries), answer=None, exit_code=None, sentence="")


def ask(settings: TuneSettings, spec: RunSpec) -> Asked:
    """What is asked, as it is written down."""
    return Asked(tune=settings, run=Redaction(spec, os.environ).spec(spec))


def begin(campaign_dir: Path, asked: Asked) -> Campaign:
    """An empty campaign, which is on the disk."""
    campaign = Campaign(
        schema_version=SCHEMA_VERSION,
        tool=TOOL,
        kind=TUNE,
        campaign_id=campaign_dir.name,
        fingerprint=fingerprint(asked),
        asked=asked,
    )
    write_campaign(campaign_dir, campaign)
    return campaign


def resume(campaign_dir: Path, asked: Asked) -> Campaign:
    """The campaign in that directory, to go on.

    Raises:
        UsageError: there is none, it was asked something else, or it is not in the directory of runs.
        EvidenceError: it cannot be read, or is of another version.
    """
    campaign = read_campaign(require_campaign(campaign_dir, TUNE))
    require_same(campaign.asked.tune, asked.tune)
    require_same_run(campaign.asked.run, asked.run)
    require_place(campaign_dir, asked.run)
    return campaign.continued()


@contextlib.contextmanager
def held(campaign_dir: Path) -> Iterator[None]:
    """Let nobody else go on with that campaign meanwhile; whatever ends this process lets go of it.

    Raises:
        UsageError: somebody else does, or it is no directory.
    """
    try:
        fd = os.open(campaign_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{campaign_dir} is not the directory of a campaign: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{campaign_dir} goes on in another process: wait for its end, or stop it there with Ctrl-C."
            ) from None
        yield
    finally:
        os.close(fd)


_LIMITS = ("background_start_timeout_ms", "build_timeout_ms", "main_timeout_ms", "main_exit_timeout_ms", "grace_ms")
"""Of a run's timing: how long to wait until something has failed changes nothing that is measured."""


def require_same_run(old: RunSpec, new: RunSpec) -> None:
    """Refuse other runs; what differs is named by its own name, so the parts are compared first.

    Limits on waiting may differ, for a campaign that was stopped by one goes on with another; and so may the spelling
    of directories.

    Raises:
        UsageError: they differ.
    """
    limits = {name: getattr(new.timing, name) for name in _LIMITS}
    old, new = (
        replace(
            spec,
            timing=replace(spec.timing, **limits),
            runs_dir=str(Path(spec.runs_dir).absolute()),
            engines_dir=str(Path(spec.engines_dir).absolute()),
        )
        for spec in (old, new)
    )
    for before, now in ((old.main, new.main), (old.background, new.background), (old.timing, new.timing), (old, new)):
        require_same(before, now)


def require_place(campaign_dir: Path, spec: RunSpec) -> None:
    """A campaign goes on where it was begun: there are locks and engines, and others must not write there.

    Raises:
        UsageError: it is elsewhere now.
    """
    runs = Path(spec.runs_dir).resolve()
    if campaign_dir.resolve().parent != runs:
        raise UsageError(f"{campaign_dir} is not in {runs}: resume it where it was begun, or with its --runs-dir.")


def require_campaign(campaign_dir: Path, kind: str) -> Path:
    """The same directory, if it is that of a campaign of that kind.

    Raises:
        UsageError: it is not.
        EvidenceError: its index cannot be read.
    """
    if not is_campaign(campaign_dir):
        raise UsageError(f"{campaign_dir} is not the directory of a campaign: it has no {CAMPAIGN_JSON}.")
    found = _stamp(campaign_dir).kind
    if found != kind:
        raise UsageError(
            f"{campaign_dir} is the directory of a {found}, and this is {kind}: go on with heteromig {found} --resume."
        )
    return campaign_dir


def refuse_campaign(directory: Path) -> None:
    """What is for one run cannot be done with a campaign.

    Raises:
        UsageError: it is the directory of one.
        EvidenceError: its index cannot be read.
    """
    if is_campaign(directory):
        kind = _stamp(directory).kind
        said = f", or read its {kind}.md" if kind == MATRIX else f", or read its {CAMPAIGN_JSON}"
        raise UsageError(f"{directory} is the directory of a {kind}: name one of its runs{such_as(directory)}{said}.")


def is_campaign(directory: Path) -> bool:
    """Whether that is the directory of a campaign."""
    return (directory / CAMPAIGN_JSON).is_file()


def kind_of(directory: Path) -> str | None:
    """Of what kind the campaign in that directory is; None where there is none.

    Raises:
        EvidenceError: its index cannot be read.
    """
    return _stamp(directory).kind if is_campaign(directory) else None


class _Stamp(Struct, frozen=True):
    """What is read before the rest, which another version may have changed."""

    schema_version: int
    kind: str


_Index = TypeVar("_Index", bound=Struct)


def read_campaign(campaign_dir: Path) -> Campaign:
    """What is written of a tuning.

    Raises:
        EvidenceError: it cannot be read, was altered, or is of another version.
    """
    campaign = read_index(campaign_dir, Campaign)
    require_unaltered(campaign_dir, campaign.fingerprint, campaign.asked)
    if not all(map(_can_be, campaign.entries)):
        raise EvidenceError(f"{campaign_dir} was altered: its index has a run that cannot be. Begin another campaign.")
    return campaign


def _can_be(entry: Entry) -> bool:
    """Whether the numbers of a run are such as a run has; what is fitted and drawn is their logarithm."""
    probe = entry.probe
    rates = [entry.step.rate_qps, *(() if probe is None else (probe.rate_qps, probe.achieved_qps))]
    if any(rate is not None and not 0 < rate < math.inf for rate in rates):
        return False
    if probe is None:
        return True
    return probe.rate_qps == entry.step.rate_qps and 0 <= (probe.misses or 0) <= max(probe.queries, 0)


def read_index(campaign_dir: Path, kind: type[_Index]) -> _Index:
    """The index of a campaign, as that type.

    Raises:
        EvidenceError: it cannot be read, or is of another version.
    """
    _stamp(campaign_dir)
    return _decode(campaign_dir, kind)


def require_unaltered(campaign_dir: Path, recorded: str, asked: Struct) -> None:
    """Refuse an index whose settings were changed by hand.

    Raises:
        EvidenceError: the fingerprint is of other settings.
    """
    if recorded != fingerprint(asked):
        path = campaign_dir / CAMPAIGN_JSON
        raise EvidenceError(f"{path} was altered: its settings have another fingerprint. Begin another campaign.")


def _stamp(campaign_dir: Path) -> _Stamp:
    stamp = _decode(campaign_dir, _Stamp)
    if stamp.schema_version != SCHEMA_VERSION:
        raise EvidenceError(
            f"{campaign_dir / CAMPAIGN_JSON} was written by another version of heteromig: its schema is "
            f"{stamp.schema_version}, and this one reads {SCHEMA_VERSION}. Use the version that wrote it."
        )
    return stamp


def _decode(campaign_dir: Path, kind: type[_Index]) -> _Index:
    path = campaign_dir / CAMPAIGN_JSON
    try:
        return decode(read_regular(path, "The index of the campaign"), kind)
    except FileNotFoundError as error:
        raise EvidenceError(f"The index of the campaign {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is not the index of a campaign ({error}): begin another one.") from None


def write_campaign(campaign_dir: Path, campaign: Struct) -> None:
    """Replace the index, in one step, and wait until it is on the disk."""
    write_json(campaign_dir / CAMPAIGN_JSON, campaign, sync=True)
