"""Device guards for people: those that were violated or could not be observed, a line each; a good run has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from heteromig.core.device_guards import DeviceFinding
from heteromig.core.guards import Status
from heteromig.views.text import printable
from heteromig.views.verdict_text import append_block

_UNSIMULATED = "not_slowed_down"
"""What no simulated device can show, which `SIMULATED` says already."""


def append_remarks(text: Text, findings: Sequence[DeviceFinding], width: int) -> None:
    """What whoever reads the verdict has to know besides."""
    for finding in findings:
        if finding.remark:
            append_block(text, "", printable(finding.remark), width, indent=0)


def append_guards(
    text: Text, findings: Sequence[DeviceFinding], width: int, *, simulated: bool, measured: bool
) -> None:
    """The guards that did not hold. What could not be observed matters where main was `measured`."""
    for number, line in enumerate(_lines(findings, simulated=simulated, measured=measured)):
        append_block(text, "Guards" if number == 0 else "", printable(line), width)


def _lines(findings: Iterable[DeviceFinding], *, simulated: bool, measured: bool) -> Iterator[str]:
    scopes: dict[tuple[str, Status, str], list[str]] = {}
    for finding in findings:
        unseen = finding.status is Status.NOT_OBSERVABLE
        if finding.status is Status.OK or (unseen and not measured):
            continue
        if unseen and simulated and finding.guard == _UNSIMULATED:
            continue
        scopes.setdefault((finding.guard, finding.status, _words(finding)), []).append(finding.scope)
    for (guard, status, words), found in scopes.items():
        where = found[0] if len(found) == 1 else f"{len(found)} of them"
        yield f"{guard.replace('_', ' ')}: {status.value} on {where}: {words}"


def _words(finding: DeviceFinding) -> str:
    """The evidence; of what ended the run, which the verdict has told, only the values."""
    told = finding.status is Status.VIOLATED and not finding.remark
    if told and finding.before is not None and finding.after is not None:
        return f"{finding.before} before, {finding.after} after"
    return finding.evidence
