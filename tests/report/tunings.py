"""Tunings as their pages are to show them: the planner against a server that is none, and words that mean harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from heteromig.campaign.probes import Bracket, Confirm, Inconclusive, Outcome, Probe, RunProbe, Side, Stopped
from heteromig.campaign.tuning import next_step
from heteromig.campaigns.asking import tune_settings
from heteromig.campaigns.directory import Campaign, Entry, ask, begin, write_campaign
from heteromig.runner.config import MainConfig, TuneConfig
from tests.campaign.worlds import SmoothServer
from tests.campaigns.stories import SIM, begun, driven, specs

EVIL = "<script>document.title='x'</script>\x1b[31m\x1b]0;t\x07[b]|`y`</style><img src=http://localhost:9/z>\u202e @you"


class TwoSided:
    """Alone it does 400 qps, beside its backgrounds 330."""

    def __init__(self, **more: float) -> None:
        self._alone = SmoothServer(**more)  # type: ignore[arg-type]
        self._beside = SmoothServer(knee_qps=330.0, capacity_qps=360.0, **more)  # type: ignore[arg-type]

    def __call__(self, step: RunProbe | Confirm) -> Probe:
        return (self._alone if step.side is Side.ISOLATED else self._beside)(step)


def _kept(campaign_dir: Path, campaign: Campaign) -> Path:
    """On the disk, with a directory for each run, every other of which has a page."""
    entries = []
    for number, entry in enumerate(campaign.entries):
        name = f"2026010{number % 10}T00000{number // 10}Z-resnet50-server"
        (campaign_dir / name).mkdir()
        if number % 2 == 0:
            (campaign_dir / name / "report.html").touch()
        entries.append(replace(entry, run_dir=name))
    write_campaign(campaign_dir, replace(campaign, entries=tuple(entries)))
    return campaign_dir


def answered(home: Path) -> Path:
    return _kept(home, driven(begun(home, confirm=3), TwoSided()))


def not_possible(home: Path) -> Path:
    return _kept(home, driven(begun(home), SmoothServer(limit_ms=15.0, floor_ms=20.0)))


def inconclusive(home: Path) -> Path:
    """Alone it is answered, beside its backgrounds it is not."""
    campaign = driven(begun(home), TwoSided())
    assert campaign.answer is not None
    answer = Inconclusive(
        Side.BESIDE,
        "8 runs at full length, and no rate passed.",
        Bracket(300.0, 330.0),
        0.12,
        campaign.answer.answers[:1],
    )
    return _kept(home, replace(campaign, answer=None, exit_code=None).answered(answer))


def stopped(home: Path) -> Path:
    campaign = driven(begun(home), TwoSided(), most=4)
    for _ in range(3):
        step = next_step(campaign.asked.tune, campaign.probes)
        assert isinstance(step, RunProbe | Confirm)
        reason = "Background 3 (dlrm) exited with status 3"
        probe = Probe(step.side, step.rate_qps, step.duration_s, Outcome.SPOILED, reason=reason)
        campaign = campaign.after(Entry(step, "x", 5, step.duration_s, probe))
    step = next_step(campaign.asked.tune, campaign.probes)
    assert isinstance(step, Stopped)
    return _kept(home, campaign.answered(step))


def interrupted(home: Path) -> Path:
    campaign = driven(begun(home), TwoSided(), most=3)
    step = next_step(campaign.asked.tune, campaign.probes)
    assert isinstance(step, RunProbe | Confirm)
    campaign = campaign.after(Entry(step, "x", 130, 3.0, None))
    return _kept(home, campaign.stopped(130, "Tuning ended with run 4: SIGINT was received."))


def going_on(home: Path) -> Path:
    return _kept(home, driven(begun(home), TwoSided(), most=5))


def unbegun(home: Path) -> Path:
    """Its first run has not ended yet."""
    return _kept(home, begun(home))


def offline(home: Path) -> Path:
    spec = specs(replace(SIM, main=MainConfig()))[Side.BESIDE]
    campaign = begin(home, ask(tune_settings(spec, TuneConfig()), spec))

    def measured(step: RunProbe | Confirm) -> Probe:
        rate = 800.0 if step.side is Side.ISOLATED else 600.0
        return Probe(
            step.side, step.rate_qps, step.duration_s, Outcome.VALID, isinstance(step, Confirm), 1, None, None, rate
        )

    return _kept(home, driven(campaign, measured))


def singlestream(home: Path) -> Path:
    spec = specs(replace(SIM, main=MainConfig(scenario="singlestream")))[Side.BESIDE]
    campaign = begin(home, ask(tune_settings(spec, TuneConfig(confirm=2)), spec))

    def measured(step: RunProbe | Confirm) -> Probe:
        latency = 2.0 if step.side is Side.ISOLATED else 2.5
        return Probe(
            step.side, None, step.duration_s, Outcome.VALID, confirms=True, queries=9, percentile_latency_ms=latency
        )

    return _kept(home, driven(campaign, measured))


def hostile(home: Path) -> Path:
    """Every text that another program may have chosen tries to be more than one."""
    campaign = driven(begun(home), TwoSided(), most=4)
    entries = [
        replace(
            entry,
            step=replace(entry.step, why=f"{EVIL} why"),
            probe=None if entry.probe is None else replace(entry.probe, reason=f"{EVIL} reason"),
        )
        for entry in campaign.entries
    ]
    _kept(home, replace(campaign, entries=tuple(entries)).stopped(5, f"Tuning ended: {EVIL} sentence"))
    run = campaign.asked.run
    run = replace(
        run, main=replace(run.main, benchmark=f"{EVIL} main"), slices=f"{EVIL} slices", harness=f"{EVIL} harness"
    )
    run = replace(run, background=replace(run.background, candidates=(f"{EVIL} background",)))
    asked = replace(campaign.asked, run=run)
    names = ("../..", "..", "javascript:alert(1)", 'a" onclick="b', "x\x00y", "z" * 5000)
    bad = [replace(entries[0], run_dir=name) for name in names]
    other = begin(home, asked)
    (home / names[2]).mkdir()
    (home / names[3]).mkdir()
    write_campaign(home, replace(other, entries=(*entries, *bad), exit_code=5, sentence=f"{EVIL} sentence"))
    return home


TUNINGS: dict[str, Callable[[Path], Path]] = {
    one.__name__: one
    for one in (
        answered, not_possible, inconclusive, stopped, interrupted, going_on, unbegun, offline, singlestream, hostile,
    )
}  # fmt: skip
