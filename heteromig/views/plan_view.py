"""A plan before anything runs: who goes where, and the exact command of every worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from heteromig.core.devices import Inventory
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, Plan
from heteromig.core.spec import Drain, Goal, Mode, RunSpec
from heteromig.core.units import format_duration_s
from heteromig.views.text import cells, fit, format_cpus, printable, shell_quote

_TITLES = ("WORKER", "ROLE", "BENCHMARK", "SCENARIO", "MODE", "ACCURACY", "DURATION", "PROFILE", "CPUS", "SLICE")


class WorkerCommand(Protocol):
    """One program; `env` is added to the environment of heteromig."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Program and arguments."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """All of it."""
        ...

    @property
    def cwd(self) -> Path:
        """Where it is started."""
        ...


def plan_text(
    spec: RunSpec, plan: Plan, inventory: Inventory, commands: Sequence[tuple[Assignment, WorkerCommand]]
) -> str:
    """The whole plan as plain text; `commands` are those of builds, backgrounds and main, in the order of starting.

    The commands can be pasted into a shell.
    """
    workers = [worker for worker, _ in commands]
    builds = [worker for worker in workers if worker.role is Role.BUILD]
    missing = sum(len(worker.builds) for worker in builds)
    parts = [_heading(inventory), _table(builds), "", _remarks(spec, plan, missing)]
    if spec.goal is Goal.RUN:
        parts[2] = _table(list(plan.workers))
    if commands:
        parts.append("Commands, in the order of starting:")
    parts += [_command(worker, command) for worker, command in commands]
    return "\n\n".join(part for part in parts if part)


def _heading(inventory: Inventory) -> str:
    note = "SIMULATED: no GPU is involved, and no figure of this run is a measurement of one."
    gpus = [
        f"{gpu.name} {gpu.uuid}: {sum(place.gpu_uuid == gpu.uuid for place in inventory.slices)} slices"
        for gpu in inventory.gpus
    ]
    return _lines([*([note] if inventory.simulated else []), *gpus])


def _table(workers: Sequence[Assignment]) -> str:
    if not workers:
        return ""
    table = [_TITLES, *(_row(worker) for worker in workers)]
    widths = [max(cells(row[column]) for row in table) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(fit(text, width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _row(worker: Assignment) -> tuple[str, ...]:
    duration = "every sample" if worker.mode is Mode.ACCURACY else format_duration_s(worker.duration_ms / 1000)
    building = worker.role is Role.BUILD
    return (
        str(worker.index),
        worker.role.value,
        printable(worker.benchmark),
        printable(worker.scenario),
        "-" if building else worker.mode.value,
        printable(worker.accuracy),
        "-" if building else duration,
        printable(worker.profile),
        format_cpus(worker.cpus),
        printable(worker.slice_uuid),
    )


def _remarks(spec: RunSpec, plan: Plan, missing: int) -> str:
    count = len(plan.engines)
    lines = [
        f"Engines: {count} needed, {missing} to build first." if missing else f"Engines: {count} needed, all built."
    ]
    if spec.goal is Goal.RUN and plan.backgrounds:
        timing = spec.timing
        automatic = "" if spec.background.duration_ms is not None else " (automatic)"
        after = "are stopped when main has ended" if spec.drain is Drain.KILL else "may finish after main"
        lines += [
            f"Backgrounds: asked to run for {_ms(plan.background_duration_ms)}{automatic}; they {after}.",
            f"Main starts {_ms(timing.start_time_buffer_ms)} after the last background is {spec.start_evidence.value}.",
        ]
    if plan.left_out:
        lines.append(f"Left out, for want of slices: {', '.join(plan.left_out)}.")
    if plan.controller_cpus:
        lines.append(f"heteromig itself runs on processors {format_cpus(plan.controller_cpus)}.")
    return _lines(lines)


def _ms(duration_ms: int) -> str:
    return format_duration_s(duration_ms / 1000)


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(printable(line) for line in lines)


def _command(worker: Assignment, command: WorkerCommand) -> str:
    where = f"# worker {worker.index}: {worker.role.value} {worker.benchmark} on {worker.slice_uuid}"
    pinned = f", pinned to processors {format_cpus(worker.cpus)}" if worker.cpus else ""
    assignments = [f"{name}={shell_quote(value)}" for name, value in sorted(command.env.items())]
    argv = " ".join(shell_quote(word) for word in command.argv)
    parts = [f"(cd {shell_quote(str(command.cwd))} && exec env", *assignments, f"{argv})"]
    return printable(where + pinned) + "\n" + " \\\n  ".join(parts)
