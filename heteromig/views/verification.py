"""What `verify` found, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.text import Text

from heteromig.core.device_guards import DeviceFinding
from heteromig.core.overlap import CertificateSummary
from heteromig.core.spec import Isolation
from heteromig.core.verdict import Verdict
from heteromig.views.guards_view import append_guards, append_remarks
from heteromig.views.text import printable, shown_path
from heteromig.views.verdict_text import (
    SIMULATED_NOTE,
    SOFT_NOTE,
    append_block,
    append_gaps,
    append_overlap,
    append_verdict,
)


class Verified(Protocol):
    """What a verification tells."""

    @property
    def run_id(self) -> str:
        """Whose."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the run was."""
        ...

    @property
    def isolation(self) -> Isolation:
        """What kept its slices apart."""
        ...

    @property
    def verdict(self) -> Verdict:
        """The recomputed one."""
        ...

    @property
    def certificate(self) -> CertificateSummary | None:
        """The recomputed one, None where the run never came so far."""
        ...

    @property
    def device_guards(self) -> Sequence[DeviceFinding]:
        """The recomputed ones."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Remarks that change nothing."""
        ...


def verification(found: Verified, run_directory: str, width: int) -> Text:
    """The recomputed verdict, the overlap and the remarks."""
    text = Text()
    verdict = found.verdict
    backgrounds = found.certificate.overlap.backgrounds if found.certificate is not None else ()
    append_verdict(text, verdict.status, verdict.exit_code, verdict.reasons, width, backgrounds=len(backgrounds))
    append_remarks(text, found.device_guards, width)
    if found.simulated:
        append_block(text, "", SIMULATED_NOTE, width, indent=0)
    if found.isolation is Isolation.SOFT:
        append_block(text, "", SOFT_NOTE, width, indent=0)
    text.append("\n")
    append_block(
        text,
        "Verified",
        f"{printable(found.run_id)}, from the logs and the journal in {shown_path(run_directory)}",
        width,
    )
    if found.certificate is not None:
        overlap = found.certificate.overlap
        figures = (overlap.coverage, overlap.slack_before_s, overlap.slack_after_s)
        append_overlap(text, overlap.proven, figures, overlap.backgrounds, width)
        if found.certificate.main_section is not None and found.certificate.gap_threshold_s is not None:
            append_gaps(text, overlap.backgrounds, found.certificate.gap_threshold_s, width)
    measured = found.certificate is not None and found.certificate.main_section is not None
    append_guards(text, found.device_guards, width, simulated=found.simulated, measured=measured)
    for note in found.notes:
        append_block(text, "Note", printable(note), width)
    text.rstrip()
    return text
