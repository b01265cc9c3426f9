"""What a worker runs: a plan turned into argv, environment and log patterns."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from heteromig.core.spec import CommandSpec, RunSpec, SystemSpec
from heteromig.harnesses.command.harness import CommandHarness
from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.harnesses.make.harness import MakeHarness
from heteromig.harnesses.protocol import Harness


class HarnessOptions(Struct, frozen=True):
    """What the configuration says for harnesses alone; each takes what concerns it.

    `harness_dir` is NVIDIA's tree, `systems` are further kinds of GPU, `commands` the benchmarks of `command`.
    """

    harness_dir: str = ""
    systems: tuple[SystemSpec, ...] = ()
    commands: tuple[CommandSpec, ...] = ()


HARNESSES: dict[str, Callable[[HarnessOptions], Harness]] = {
    "loadgen": lambda _: LoadgenHarness(),
    "make": lambda options: MakeHarness(options.harness_dir, options.systems),
    "command": lambda options: CommandHarness(options.commands),
}
"""By the value of `--harness`."""


def harness_of(spec: RunSpec) -> Harness:
    """The harness of a run, with the options of that run."""
    options = HarnessOptions(harness_dir=spec.harness_dir, systems=spec.systems, commands=spec.commands)
    return HARNESSES[spec.harness](options)


__all__ = ["HARNESSES", "Harness", "HarnessOptions", "harness_of"]
