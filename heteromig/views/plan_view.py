"""A plan before anything runs: who goes where, and the exact command of every worker."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from heteromig.core.devices import Inventory
from heteromig.core.plan import Assignment, Plan
from heteromig.core.spec import Mode
from heteromig.core.units import format_duration_s
from heteromig.views.text import cells, fit, format_cpus, printable, shell_quote


class WorkerCommand(Struct, frozen=True):
    """What would be run: `argv`, and of the environment only what heteromig adds. `note` is a sentence, or empty."""

    argv: tuple[str, ...]
    env: dict[str, str]
    note: str = ""


_TITLES = ("WORKER", "ROLE", "BENCHMARK", "SCENARIO", "MODE", "ACCURACY", "DURATION", "PROFILE", "CPUS", "SLICE")


def plan_text(plan: Plan, inventory: Inventory, commands: Mapping[int, WorkerCommand]) -> str:
    """The whole plan as plain text.

    The lines of the last part can be pasted into a shell; everything around them is a comment there.
    """
    parts = [_heading(inventory), _table(plan), _remarks(plan), "Commands, one a worker:"]
    parts += [_command(worker, commands.get(worker.index)) for worker in plan.workers]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(inventory: Inventory) -> str:
    lines = ["SIMULATED: no GPU is involved, and no figure of this run is a measurement of one."]
    lines = lines if inventory.simulated else []
    lines += [
        f"{printable(gpu.name)}  {printable(gpu.uuid)}: "
        f"{sum(place.gpu_uuid == gpu.uuid for place in inventory.slices)} slices"
        for gpu in inventory.gpus
    ]
    return "\n".join(lines)


def _table(plan: Plan) -> str:
    table = [_TITLES, *(_row(worker) for worker in plan.workers)]
    widths = [max(cells(row[column]) for row in table) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(fit(text, width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _row(worker: Assignment) -> tuple[str, ...]:
    duration = "every sample" if worker.mode is Mode.ACCURACY else format_duration_s(worker.duration_ms / 1000)
    return (
        str(worker.index),
        worker.role.value,
        printable(worker.benchmark),
        printable(worker.scenario),
        worker.mode.value,
        printable(worker.accuracy),
        duration,
        printable(worker.profile),
        format_cpus(worker.cpus),
        printable(worker.slice_uuid),
    )


def _remarks(plan: Plan) -> str:
    lines = [
        f"Engines to have: {len(plan.engines)} "
        f"({', '.join(f'{need.benchmark} {need.scenario} {need.accuracy} {need.profile}' for need in plan.engines)})"
    ]
    if plan.backgrounds:
        duration = format_duration_s(plan.background_duration_ms / 1000)
        lines.append(f"Backgrounds are asked to run for {duration}, and are stopped when main has ended.")
    if plan.left_out:
        lines.append(f"Left out, for want of slices: {', '.join(plan.left_out)}.")
    if plan.controller_cpus:
        lines.append(f"heteromig itself runs on processors {format_cpus(plan.controller_cpus)}.")
    return printable_lines(lines)


def printable_lines(lines: list[str]) -> str:
    """Each line made harmless, joined."""
    return "\n".join(printable(line) for line in lines)


def _command(worker: Assignment, command: WorkerCommand | None) -> str:
    lines = [f"# {worker.index}: {worker.role.value} {worker.benchmark} on {worker.slice_uuid}"]
    if worker.cpus:
        lines.append(f"# pinned to processors {format_cpus(worker.cpus)}")
    if command is None:
        return printable_lines([*lines, "# no command is known for it"])
    if command.note:
        lines.append(f"# {command.note}")
    environment = [f"{name}={shell_quote(value)}" for name, value in sorted(command.env.items())]
    words = [*environment, *(shell_quote(word) for word in command.argv)]
    return f"{printable_lines(lines)}\n{' '.join(words)}"
