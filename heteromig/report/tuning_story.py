"""What a tuning was, as its page tells it. Every text in it is fit for display, as in the story of a run."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.campaign.knee import Knee
from heteromig.campaign.probes import (
    SERVER,
    Answer,
    Bracket,
    Confirm,
    Done,
    Outcome,
    Probe,
    RunProbe,
    Side,
    TuneSettings,
)
from heteromig.campaign.tuning import bracket, knee, next_step, passed, spoiled, telling
from heteromig.campaigns.directory import Campaign, Entry, Wanted, read_campaign
from heteromig.campaigns.wording import answers_of, conclusion, least_left_s
from heteromig.report.links import links
from heteromig.views.text import printable, sentence
from heteromig.views.verdict_text import warnings

SIDES = {Side.ISOLATED: "Alone", Side.BESIDE: "Beside its backgrounds"}


class Fate(Enum):
    """What a run says of its rate."""

    PASSED = "passed"
    FAILED = "failed"
    ENDED = "ended early"
    """It could no longer pass, and was ended: it failed."""
    NOTHING = "came to nothing"


class TunedRun(Struct, frozen=True):
    """One run: what was wanted and why, what it said, and the bracket of its side as known afterwards.

    `is_full` says whether it is a confirmation. `rate_qps` is what was asked for; None where nothing is. `late_share`
    is None where it is not known. `directory` and `page` lead to its files, empty where they are not there.
    """

    number: int
    side: Side
    rate_qps: float | None
    duration_s: float
    is_full: bool
    why: str
    fate: Fate
    outcome: str
    reason: str
    late_share: float | None
    queries: int
    achieved_qps: float | None
    latency_ms: float | None
    bracket: Bracket
    took_s: float
    run_dir: str
    directory: str
    page: str


class TunedSide(Struct, frozen=True):
    """Main alone, or beside its backgrounds: its answer, None where there is none, and `why` either way.

    `runs` is how many of them say something about their rate.
    """

    side: Side
    answer: Answer | None
    why: str
    bracket: Bracket
    knee: Knee | None
    runs: int


class Next(Struct, frozen=True):
    """What would be run now, and how long everything that is left takes at least."""

    step: Wanted
    left_s: float


class TuningStory(Struct, frozen=True):
    """All of it. `exit_code` is None while no end is written down; `next` is None where nothing is left to run.

    `can_go_on` says whether `--resume` would run something. `asked` is all that was asked, for reading.
    """

    campaign_id: str
    campaign_dir: str
    tool: str
    benchmark: str
    scenario: str
    backgrounds: tuple[str, ...]
    slices: str
    harness: str
    status: str
    exit_code: int | None
    sentence: str
    banners: tuple[str, ...]
    settings: TuneSettings
    sides: tuple[TunedSide, ...]
    runs: tuple[TunedRun, ...]
    next: Next | None
    can_go_on: bool
    asked: str

    @property
    def searches(self) -> bool:
        """Whether a rate is looked for by how many queries are late."""
        return self.settings.scenario == SERVER

    def of(self, side: Side) -> tuple[TunedRun, ...]:
        """The runs of one side."""
        return tuple(run for run in self.runs if run.side is side)


def tell_tuning(campaign_dir: Path) -> TuningStory:
    """Read what is in the directory.

    Raises:
        EvidenceError: its index cannot be read, was altered, or is of another version.
    """
    campaign = read_campaign(campaign_dir)
    spec = campaign.asked.run
    status, words = conclusion(campaign)
    left = _next(campaign)
    return TuningStory(
        campaign_id=printable(campaign.campaign_id),
        campaign_dir=printable(str(campaign_dir)),
        tool=printable(f"{campaign.tool.name} {campaign.tool.version}"),
        benchmark=printable(spec.main.benchmark),
        scenario=printable(spec.main.scenario),
        backgrounds=tuple(map(printable, spec.background.candidates)),
        slices=printable(spec.slices),
        harness=printable(spec.harness),
        status=status,
        exit_code=campaign.exit_code,
        sentence=words,
        banners=warnings(spec.isolation),
        settings=campaign.asked.tune,
        sides=tuple(_side(campaign, side) for side in campaign.asked.tune.sides),
        runs=tuple(
            _run(campaign_dir, campaign, number, entry) for number, entry in enumerate(campaign.entries, start=1)
        ),
        next=left,
        can_go_on=campaign.can_go_on,
        asked=_shown(campaign),
    )


def _shown(campaign: Campaign) -> str:
    """All settings, a line each."""
    text = msgspec.json.format(msgspec.json.encode(campaign.asked), indent=2).decode()
    return "\n".join(line[: len(line) - len(line.lstrip())] + printable(line) for line in text.split("\n"))


def _next(campaign: Campaign) -> Next | None:
    if campaign.answer is not None:
        return None
    step = next_step(campaign.asked.tune, campaign.probes)
    return Next(step, least_left_s(campaign, step)) if isinstance(step, RunProbe | Confirm) else None


def _side(campaign: Campaign, side: Side) -> TunedSide:
    settings, probes = campaign.asked.tune, campaign.probes
    answer = next((one for one in answers_of(campaign) if one.side is side), None)
    ended = campaign.answer
    why = "It is not known yet."
    if answer is not None:
        why = answer.why
    elif ended is not None and not isinstance(ended, Done) and ended.side is side:
        why = ended.why
    elif not any(entry.step.side is side for entry in campaign.entries):
        why = "No run of it was made."
    return TunedSide(
        side=side,
        answer=answer,
        why=sentence(why),
        bracket=bracket(settings, side, probes),
        knee=knee(settings, side, probes),
        runs=len(telling(settings, side, probes)),
    )


def _run(campaign_dir: Path, campaign: Campaign, number: int, entry: Entry) -> TunedRun:
    probe, step = entry.probe, entry.step
    settings = campaign.asked.tune
    until = [one.probe for one in campaign.entries[:number] if one.probe is not None]
    directory, page = links(campaign_dir, entry.run_dir)
    reason = probe.reason if probe is not None else campaign.sentence if number == len(campaign.entries) else ""
    return TunedRun(
        number=number,
        side=step.side,
        rate_qps=step.rate_qps,
        duration_s=step.duration_s,
        is_full=isinstance(step, Confirm),
        why=sentence(step.why),
        fate=_fate(settings, probe),
        outcome=f"exit {entry.exit_code}" if probe is None else probe.outcome.value,
        reason=sentence(reason),
        late_share=_late_share(probe),
        queries=0 if probe is None else probe.queries,
        achieved_qps=None if probe is None else probe.achieved_qps,
        latency_ms=None if probe is None else probe.percentile_latency_ms,
        bracket=bracket(settings, step.side, until),
        took_s=entry.took_s,
        run_dir=printable(entry.run_dir),
        directory=directory,
        page=page,
    )


def _fate(settings: TuneSettings, probe: Probe | None) -> Fate:
    if probe is None or spoiled(settings, probe):
        return Fate.NOTHING
    if passed(settings, probe):
        return Fate.PASSED
    return Fate.ENDED if probe.outcome is Outcome.ABORTED else Fate.FAILED


def _late_share(probe: Probe | None) -> float | None:
    return probe.misses / probe.queries if probe is not None and probe.misses is not None and probe.queries else None
