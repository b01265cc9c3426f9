"""Runs of the harness `make`, as far as a plan of them goes."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from heteromig.core.plan import Assignment, EngineNeed, Plan, build_assignment, build_batches, make_plan
from heteromig.core.spec import RunSpec
from heteromig.harnesses.make.harness import MakeHarness
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, resolve
from tests.core.histories import inventory

RUN = "20261124T002520Z-resnet50-offline"


class Planned:
    """A run in `tree` on slices of an A100, with its run directory below the tree's parent."""

    def __init__(
        self,
        tree: Path,
        main: MainConfig = MainConfig(),  # noqa: B008 - frozen
        background: BackgroundConfig = BackgroundConfig(),  # noqa: B008
        *,
        config: Config = Config(),  # noqa: B008
        slices: int = 7,
        profiles: tuple[str, ...] = ("1g.10gb",),
    ) -> None:
        self.tree = tree
        self.spec = _spec(tree, main, background, config)
        self.harness = MakeHarness(self.spec.harness_dir, self.spec.systems)
        self.plan: Plan = make_plan(self.spec, inventory(slices, profiles=profiles), (0, 1))
        self.run_dir = Path(self.spec.runs_dir) / RUN

    @property
    def main(self) -> Assignment:
        return self.plan.main

    @property
    def logs(self) -> Path:
        """Where main's logs lie in the end."""
        return self.run_dir / self.main.directory / "logs"

    def build(self, *needs: EngineNeed) -> Assignment:
        """The worker that makes `needs` at once."""
        return build_assignment(needs, len(self.plan.workers), self.plan.on_profile(needs[0].profile))

    def builds(self) -> list[Assignment]:
        """The workers that make all engines."""
        return [self.build(*batch) for batch in build_batches(self.plan.engines, together=True)]

    def make_directory(self, assignment: Assignment) -> Path:
        """Its directory, as the loop makes it."""
        directory = self.run_dir / assignment.directory
        directory.mkdir(parents=True)
        return directory


def _spec(tree: Path, main: MainConfig, background: BackgroundConfig, config: Config) -> RunSpec:
    return resolve(
        replace(
            config,
            harness="make",
            harness_dir=str(tree),
            slices="sim:a100-sxm-80gb",
            runs_dir=config.runs_dir or str(tree.parent / "runs"),
            main=main,
            background=background,
        )
    )
