"""Why readings in the live table are missing, and which of them several slices have in common."""

from __future__ import annotations

from collections.abc import Iterator

from heteromig.core.devices import Reading, Shared, Unavailable
from heteromig.core.view import View
from heteromig.views.text import printable, short_uuid

_WORDS = {
    Reading.OCCUPANTS: "processes",
    Reading.MEMORY: "memory",
    Reading.ACTIVITY: "SM, tensor, DRAM",
    Reading.SM: "SM",
    Reading.TENSOR: "tensor",
    Reading.DRAM: "DRAM",
    Reading.POWER: "power",
    Reading.TEMPERATURE: "temperature",
    Reading.SM_CLOCK: "SM clock",
    Reading.MEMORY_CLOCK: "memory clock",
    Reading.THROTTLE_REASONS: "throttle reasons",
}
"""What the table would show; of energy and PCIe it shows nothing."""


def footnotes(view: View) -> list[str]:
    """One line each, the most important first. What a simulated GPU lacks is said in its own line."""
    if view.sample is None or view.inventory is None:
        return []
    gpus = {gpu.uuid for gpu in view.inventory.gpus}
    counts = {True: len(gpus), False: len(view.inventory.slices)}
    lines: list[str] = []
    for one in view.sample.unavailable or ():
        of_gpus = not gpus.isdisjoint(one.scopes)
        if not (of_gpus and view.inventory.simulated):
            lines += _missing(one, "GPUs" if of_gpus else "slices", counts[of_gpus])
    return [*lines, *(_in_common(one) for one in view.sample.shared or ())]


def _missing(one: Unavailable, whose: str, count: int) -> Iterator[str]:
    words = [_WORDS[reading] for reading in one.readings if reading in _WORDS]
    if words:
        some = "" if len(one.scopes) == count else f" on {len(one.scopes)} of {count} {whose}"
        yield f"n/a: {', '.join(words)}{some}: {printable(one.reason)}"


def _in_common(one: Shared) -> str:
    slices = ", ".join(short_uuid(uuid) for uuid in one.slices)
    head, _, gpu = one.of.rpartition(" ")
    what = "memory and activity" if Reading.MEMORY in one.readings else "activity"
    return f"{slices} share {head} {short_uuid(gpu)}: what is shown of {what} is that of all of it"
