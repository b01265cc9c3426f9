"""A tree of results in, comparisons out: every system beside busy neighbours against the same system alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.results.comparison import Comparison, Place, Reading, compare
from heteromig.results.names import HETERO, Match, find_baseline, is_hetero
from heteromig.results.readings import read_run
from heteromig.results.tree import Skipped, Tree, clean


class Imported(Struct, frozen=True):
    """What a tree says; `systems` counts those that were looked at. The layout of the command's JSON."""

    schema_version: int
    tree: str
    systems: int
    compared: int
    comparisons: tuple[Comparison, ...]
    skipped: tuple[Skipped, ...]


def parse_baselines(options: tuple[str, ...]) -> dict[str, str]:
    """The plain system of each system that was named as `SYSTEM=BASELINE`.

    Raises:
        UsageError: an option is not of that form, or two speak of one system.
    """
    named: dict[str, str] = {}
    for option in options:
        system, equals, baseline = (part.strip() for part in option.partition("="))
        if not (system and equals and baseline):
            raise UsageError(f"--baseline {option!r} is not SYSTEM=BASELINE: write the two directory names.")
        if named.setdefault(system, baseline) != baseline:
            raise UsageError(f"--baseline names two plain systems for {system}: {named[system]} and {baseline}.")
    return named


def import_results(root: Path, baselines: Mapping[str, str]) -> Imported:
    """Compare every system named `*_HeteroMultiUse`, and those of `baselines`, with their plain systems.

    Systems are compared within one results directory, that is with what the same submitter gave in the same round.

    Raises:
        UsageError: `root` is no tree of results, or `baselines` names a system that is not there.
    """
    tree = Tree(root)
    comparisons: list[Comparison] = []
    systems = 0
    unseen = dict(baselines)
    names: set[str] = set()
    for results in tree.results_directories():
        directories = tree.directories(results)
        names.update(directories)
        for system in directories:
            if not (is_hetero(system) or system in baselines):
                continue
            systems += 1
            match = _match(system, directories, baselines)
            if system in baselines and match.baseline is not None:
                unseen.pop(system, None)
            comparisons += _compare_system(tree, results, system, match, directories)
    for system, baseline in unseen.items():
        missing = [name for name in (system, baseline) if name not in names]
        raise UsageError(
            f"--baseline {system}={baseline}: "
            + (f"no results of {' and of '.join(missing)}" if missing else "no results directory has both")
            + f" under {clean(str(root))}."
        )
    if not systems:
        tree.skip(root, f"no system is named *_{HETERO}")
    return Imported(
        schema_version=1,
        tree=clean(str(root)),
        systems=systems,
        compared=sum(comparison.ratio is not None for comparison in comparisons),
        comparisons=tuple(comparisons),
        skipped=tuple(tree.skipped),
    )


def _match(system: str, directories: Mapping[str, Path], baselines: Mapping[str, str]) -> Match:
    named = baselines.get(system)
    if named is None:
        return find_baseline(system, directories)
    if named not in directories:
        return Match(None, f"{named}, named with --baseline, has no results here")
    return Match(named, "named with --baseline")


def _compare_system(
    tree: Tree, results: Path, system: str, match: Match, directories: Mapping[str, Path]
) -> list[Comparison]:
    if match.baseline is None:
        tree.skip(directories[system], f"no baseline: {match.how}")
    comparisons = []
    for benchmark, benchmark_directory in tree.directories(directories[system]).items():
        for scenario, directory in tree.directories(benchmark_directory).items():
            hetero = _read(tree, directory)
            if hetero is None:
                continue
            place = Place(tree.label(results), system, match.baseline, match.how, benchmark, scenario)
            plain, missing = None, match.how
            if match.baseline is not None:
                own = _scenario_of(tree, directories[match.baseline] / benchmark_directory.name, scenario)
                plain = None if own is None else _read(tree, own)
                missing = f"{match.baseline} has no {'' if own is None else 'usable '}result here"
            comparisons.append(compare(place, hetero, plain, missing))
    return comparisons


def _scenario_of(tree: Tree, benchmark: Path, scenario: str) -> Path | None:
    """The directory of `scenario`, however it is capitalised."""
    if not benchmark.is_dir():
        return None
    found = tree.directories(benchmark)
    return next((path for name, path in found.items() if name.lower() == scenario.lower()), None)


def _read(tree: Tree, scenario: Path) -> Reading | None:
    """The first run that can be used; the others are noted."""
    reading: Reading | None = None
    for run in tree.runs(scenario):
        if reading is not None:
            tree.skip(run, "an earlier run is compared")
            continue
        outcome = read_run(run, scenario.name)
        for note in outcome.notes:
            tree.skip(run, note)
        reading = outcome.reading
    return reading
