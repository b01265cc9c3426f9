from __future__ import annotations

import msgspec
from msgspec import Struct

from heteromig.core.device_guards import DeviceFinding
from heteromig.core.overlap import CertificateSummary, Instant, Silence, TimedSection, Watch
from heteromig.core.spec import Isolation
from heteromig.core.verdict import Reason, Verdict
from heteromig.views.verification import verification
from tests.views.stories import Story, certificate


class Found(Struct, frozen=True):
    verdict: Verdict
    certificate: CertificateSummary | None = None
    notes: tuple[str, ...] = ()
    device_guards: tuple[DeviceFinding, ...] = ()
    run_id: str = "20260401T120000Z-resnet50"
    simulated: bool = True
    isolation: Isolation = Isolation.SIMULATED


def test_a_verified_run_shows_its_overlap() -> None:
    summary = certificate(Story().discover().plan)
    lines = verification(Found(Verdict("valid", 0, ()), summary), "runs/x", 140).plain.splitlines()
    assert lines[0].startswith("VALID (exit 0): main is VALID, and every background was timed")
    assert lines[1].startswith("SIMULATED")
    assert lines[3] == "Verified     20260401T120000Z-resnet50, from the logs and the journal in runs/x"
    assert lines[4] == "Overlap      proven: at worst coverage 100 %, slack +4.321 s before and +0.512 s after main"
    assert sum(" yes " in line for line in lines) == 6


def test_gaps_are_told_with_what_would_have_shown_them() -> None:
    summary = certificate(Story().discover().plan)
    stalled = (Silence(4_000_000_000, 6_500_000_000, Watch.HEARTBEAT),)
    first, second, third, *others = summary.overlap.backgrounds
    backgrounds = (
        msgspec.structs.replace(first, gaps=(), gaps_seen_by=(Watch.HEARTBEAT, Watch.DEVICE)),
        msgspec.structs.replace(second, gaps=stalled, gaps_seen_by=(Watch.HEARTBEAT,), covered=False),
        msgspec.structs.replace(third, gaps=(), gaps_seen_by=(Watch.HEARTBEAT, Watch.DEVICE)),
    )
    summary = msgspec.structs.replace(
        summary,
        overlap=msgspec.structs.replace(summary.overlap, backgrounds=(*backgrounds, others[0])),
        main_section=TimedSection(Instant(0, 0, "power_begin"), Instant(9_000_000_000, 0, "power_end")),
        gap_threshold_s=2.0,
    )
    text = verification(Found(Verdict("valid", 0, ()), summary), "runs/x", 400).plain
    assert "Gaps         none longer than 2 s by heartbeat and device activity: 1 3d-unet, 3 ssd-mobilenet; " in text
    assert "1 of 2.500 s in all: 2 bert; not observed (no heartbeat, no device activity): 4 ssd-resnet34" in text
    assert [line.split()[:3] for line in text.splitlines() if "stalled" in line] == [["2", "bert", "NO,"]]


def test_a_run_that_never_came_so_far_shows_its_reasons_and_notes() -> None:
    verdict = Verdict("inconclusive", 9, (Reason(9, "The journal ends in building."), Reason(9, "More.")))
    found = msgspec.structs.replace(
        Found(verdict), simulated=False, isolation=Isolation.HARDWARE, notes=("run.json differs.",)
    )
    lines = verification(found, "runs/x", 140).plain.splitlines()
    assert lines == [
        "INCONCLUSIVE (exit 9): The journal ends in building.",
        "  - More. (exit 9)",
        "",
        "Verified     20260401T120000Z-resnet50, from the logs and the journal in runs/x",
        "Note         run.json differs.",
    ]


def test_soft_isolation_is_said() -> None:
    found = msgspec.structs.replace(Found(Verdict("valid", 0, ())), simulated=False, isolation=Isolation.SOFT)
    assert "ISOLATION: soft." in verification(found, "runs/x", 140).plain
