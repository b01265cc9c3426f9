"""A plan before anything runs: who goes where, and the exact command of every worker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from heteromig.core.devices import Inventory, SliceKind
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, Plan
from heteromig.core.spec import Drain, Mode, RunSpec
from heteromig.core.units import format_duration_s
from heteromig.views.text import cells, fit, format_cpus, printable, shell_quote
from heteromig.views.verdict_text import SOFT_NOTE
from heteromig.views.waiting import engine_words

_TITLES = ("WORKER", "ROLE", "BENCHMARK", "SCENARIO", "MODE", "ACCURACY", "DURATION", "PROFILE", "CPUS", "SLICE")
_CONFIG = "CONFIG"
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


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
    spec: RunSpec,
    plan: Plan,
    inventory: Inventory,
    commands: Sequence[tuple[Assignment, WorkerCommand]],
    *,
    run_dir: Path,
    here: Path,
) -> str:
    """The whole plan as plain text; `commands` are those of builds, backgrounds and main, in the order of starting.

    Each command is a line for a shell, with what it finds in its environment before it. Where all are started `here`,
    in the directory that the user is in, no directory is named. `run_dir` stands for the run directory, which gets its
    name when the run begins.
    """
    workers = [worker for worker, _ in commands]
    builds = [worker for worker in workers if worker.role is Role.BUILD]
    missing = sum(len(worker.builds) for worker in builds)
    parts = [_heading(inventory), _table(builds), "", _remarks(spec, plan, missing)]
    if spec.goal.measures:
        parts[2] = _table(list(plan.workers))
    elsewhere = any(command.cwd != here for _, command in commands)
    lines = [command_lines(worker, command, elsewhere=elsewhere) for worker, command in commands]
    if lines:
        named = (
            f"; {run_dir.name} stands for the name of the run" if any(run_dir.name in line for line in lines) else ""
        )
        parts.append(f"Commands, in the order of starting{named}:")
    parts += lines
    return "\n\n".join(part for part in parts if part)


def _heading(inventory: Inventory) -> str:
    note = "SIMULATED: no GPU is involved, and no figure of this run is a measurement of one."
    gpus = [
        f"{gpu.name} {gpu.uuid}: {sum(place.gpu_uuid == gpu.uuid for place in inventory.slices)} slices"
        for gpu in inventory.gpus
    ]
    soft = [SOFT_NOTE] if any(place.kind is SliceKind.MPS for place in inventory.slices) else []
    return _lines([*([note] if inventory.simulated else []), *soft, *gpus])


def _table(workers: Sequence[Assignment]) -> str:
    if not workers:
        return ""
    table = [_TITLES, *(_row(worker) for worker in workers)]
    if any(worker.config_ver for worker in workers):
        at = _TITLES.index("DURATION")
        configs = [_CONFIG, *(printable(worker.config_ver) for worker in workers)]
        table = [(*row[:at], config, *row[at:]) for row, config in zip(table, configs, strict=True)]
    widths = [max(map(cells, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(fit(text, width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _row(worker: Assignment) -> tuple[str, ...]:
    duration = "every sample" if worker.mode is Mode.ACCURACY else format_duration_s(worker.duration_ms / 1000)
    building = worker.role is Role.BUILD
    return (
        str(worker.index),
        worker.role.value,
        printable(",".join(dict.fromkeys(need.benchmark for need in worker.builds)) or worker.benchmark),
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
    lines: list[str] = []
    if spec.harness != "command":  # programs have no engines
        how_many = f"{missing} to build first" if missing else "all built"
        lines.append(f"Engines: {count} needed, {how_many}.")
    if spec.goal.measures and plan.backgrounds:
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


def command_lines(worker: Assignment, command: WorkerCommand, *, elsewhere: bool) -> str:
    """One command for a shell, under a comment that says whose it is; `elsewhere` names its directory."""
    what = f"{worker.benchmark}: {engine_words(worker.builds)}" if len(worker.builds) > 1 else worker.benchmark
    pinned = f", pinned to processors {format_cpus(worker.cpus)}" if worker.cpus else ""
    lines = [printable(f"# worker {worker.index}: {worker.role.value} {what} on {worker.slice_uuid}{pinned}")]
    if elsewhere:
        lines.append(f"cd {shell_quote(str(command.cwd))} &&")
    assignments = [_word(f"{name}={value}") for name, value in command.env.items()]
    # A shell assigns to names only; env takes anything.
    prefix = [] if all(map(_VARIABLE.fullmatch, command.env)) else ["env"]
    program, *arguments = command.argv
    lines.append(" ".join([*prefix, *assignments, shell_quote(program), *map(_word, arguments)]))
    return "\n".join(lines)


def _word(text: str) -> str:
    """`RUN_ARGS='a b'` rather than `'RUN_ARGS=a b'`."""
    name, equals, value = text.partition("=")
    return f"{name}={shell_quote(value)}" if equals and _VARIABLE.fullmatch(name) else shell_quote(text)
