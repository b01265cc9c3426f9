"""What `plan` prints: who would run what where, and every command; nothing is launched and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from heteromig.cli.mig import planned_text
from heteromig.cli.printing import say
from heteromig.core.devices import Inventory
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, Plan, build_assignment, build_batches, make_plan
from heteromig.core.redaction import Redaction
from heteromig.core.spec import Goal, Preparation, RunSpec
from heteromig.harnesses import harness_of
from heteromig.slices.access import enumerate_slices
from heteromig.slices.mig.applying import Planned
from heteromig.slices.mig.foreseeing import foresee_layout
from heteromig.slices.mps.keeping import DAEMON_DIRECTORY
from heteromig.slices.mps.shares import share_environment
from heteromig.slices.source import parse_slices
from heteromig.views.plan_view import plan_text
from heteromig.workers.command import Command, with_environment, without_secrets

RUN_DIR = "<run>"
"""Stands for the run directory, which has no name before it runs."""
_STAND_INS = "That is done when the run begins, and undone when it ends. Slices in <> have no UUID before."
PIPES = "<pipes>"
"""Stands for the directory of the MPS daemon's pipes, which has none either."""


class PlannedRun(NamedTuple):
    """What a run would do, without its secrets: `layout` is how a GPU would be cut for it, if one would be."""

    spec: RunSpec
    plan: Plan
    inventory: Inventory
    commands: list[tuple[Assignment, Command]]
    layout: Planned | None
    run_dir: Path

    def text(self) -> str:
        """For a person."""
        told = plan_text(self.spec, self.plan, self.inventory, self.commands, run_dir=self.run_dir, here=Path.cwd())
        if self.layout is None:
            return told
        return f"{planned_text(self.layout, simulated=self.spec.simulated)}\n{_STAND_INS}\n\n{told}"

    def builtins(self) -> dict[str, Any]:
        """For a program."""
        return {
            "schema_version": 1,
            "simulated": self.inventory.simulated,
            "isolation": self.spec.isolation,
            "spec": self.spec,
            "gpus": self.inventory.gpus,
            "slices": self.inventory.slices,
            "left_out": self.plan.left_out,
            "background_duration_ms": self.plan.background_duration_ms,
            "controller_cpus": self.plan.controller_cpus,
            "builds": [_worker(*pair) for pair in self.commands if pair[0].role is Role.BUILD],
            "workers": [_worker(*pair) for pair in self.commands if pair[0].role is not Role.BUILD],
            "layout": self.layout,
        }


def print_plan(spec: RunSpec, *, as_json: bool) -> None:
    """Print the plan of `spec` on stdout; raises what `planned` does."""
    found = planned(spec)
    say(msgspec.json.format(msgspec.json.encode(found.builtins()), indent=2) if as_json else found.text())


def planned(spec: RunSpec) -> PlannedRun:
    """What `spec` comes to on the slices that there are.

    Raises:
        PreflightError: there are no slices, or too few.
        UsageError: the backgrounds do not fit.
    """
    harness = harness_of(spec)
    harness.preflight(spec)
    layout = None
    if spec.preparation is Preparation.LAYOUT:
        layout, inventory = foresee_layout(spec.slices, Path(spec.runs_dir), spec.gpu, spec.layout)
        spec = msgspec.structs.replace(spec, gpu=layout.gpu.uuid)  # the index is NVML's, and others may have slices too
    else:
        inventory, _ = enumerate_slices(spec.slices, Path(spec.runs_dir), spec.gpu)
    plan = make_plan(spec, inventory, tuple(sorted(os.sched_getaffinity(0))))
    run_dir = Path(spec.runs_dir).absolute() / RUN_DIR
    missing = harness.missing_engines(plan.engines, spec)
    batches = build_batches(plan.engines if spec.rebuild else [need for need, _ in missing], together=spec.batch_builds)
    builds = tuple(
        build_assignment(batch, len(plan.workers) + number, plan.on_profile(batch[0].profile))
        for number, batch in enumerate(batches)
    )
    workers = builds if spec.goal is Goal.BUILD else (*builds, *plan.backgrounds, plan.main)
    added = _share(spec, inventory, run_dir)
    redaction = Redaction(spec, os.environ)  # plans are pasted into tickets, and printed into logs
    commands = [
        (worker, without_secrets(with_environment(harness.command(worker, spec, run_dir), added), redaction))
        for worker in workers
    ]
    return PlannedRun(redaction.spec(spec), plan, inventory, commands, layout, run_dir)


def _share(spec: RunSpec, inventory: Inventory, run_dir: Path) -> dict[str, str]:
    """What the keeper will add to the environment of every worker, as far as it is known before it starts."""
    if spec.preparation is not Preparation.MPS:
        return {}
    return share_environment(parse_slices(spec.slices), inventory.gpus[0].uuid, PIPES, str(run_dir / DAEMON_DIRECTORY))


def _worker(assignment: Assignment, command: Command) -> dict[str, Any]:
    return {**msgspec.to_builtins(assignment), "argv": command.argv, "env": command.env, "cwd": str(command.cwd)}
