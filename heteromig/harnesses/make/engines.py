"""Whether engines of NVIDIA's tree are there, from what a build of heteromig's own recorded, or from their names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.plan import EngineNeed
from heteromig.core.units import NS_PER_MS, UtcNs
from heteromig.harnesses.make.catalog import SCENARIO_NAMES

ENGINES = Path("build", "engines")

_TIMESTAMP_NS = 20 * NS_PER_MS
"""How far the time of a file can lag behind the clock: the kernel stamps files with the time of its last tick."""

_CONFIG = re.compile(r"\.(?P<kind>[^.]+?)_(?P<accuracy>k_99(?:_9)?)_(?P<power>Max[PQ])\.plan$")
"""How names of engines end: harness, accuracy and power setting, e.g. `.hetero_k_99_9_MaxP.plan`."""

_KINDS = ("triton_unified", "triton", "hetero")
"""Kinds of harness that a configuration version can name; the first that its name contains is meant."""

_PROFILE = re.compile(r"\d+g\.\d+gb")


class _File(Struct, frozen=True):
    """One file of an engine, by its path in the tree. A changed file has another time, as make goes by it too."""

    path: str
    bytes: int
    mtime_ns: int


class _Record(Struct, frozen=True):
    """All engines that were built in one tree, by `_key`; without files where a build has begun and not succeeded."""

    tree: str
    engines: dict[str, tuple[_File, ...]]


def missing(needs: tuple[EngineNeed, ...], tree: Path, engines_dir: Path) -> tuple[tuple[EngineNeed, str], ...]:
    """Those of `needs` that are not there as they were built, each with the reason."""
    recorded = _read(tree, engines_dir)
    reasons = ((need, _why_missing(need, tree, recorded.engines.get(_key(need)))) for need in needs)
    return tuple((need, why) for need, why in reasons if why is not None)


def begin(needs: tuple[EngineNeed, ...], tree: Path, engines_dir: Path) -> None:
    """Remember that `needs` are being built: half of an engine has the name of a whole one.

    Raises:
        OSError: the record cannot be written.
    """
    _write(tree, engines_dir, {**_read(tree, engines_dir).engines, **dict.fromkeys(map(_key, needs), ())})


def record(needs: tuple[EngineNeed, ...], tree: Path, engines_dir: Path, *, started_utc_ns: UtcNs) -> None:
    """Remember the files that appeared in the tree since a build of `needs` was started that succeeded.

    One command builds all scenarios of all benchmarks that it names, so that others than `needs` may be new as well. A
    build that found its engines there already makes none appear: then what was remembered of them holds no more, and
    their names alone say that they are there.

    Raises:
        OSError: the record cannot be written.
    """
    engines = dict(_read(tree, engines_dir).engines)
    for need in _built_together(needs):
        fresh = tuple(
            _File(path=path.relative_to(tree).as_posix(), bytes=status.st_size, mtime_ns=status.st_mtime_ns)
            for path, status in _files(need, tree)
            if status.st_ctime_ns >= started_utc_ns - _TIMESTAMP_NS
            # Another version's may have been the last of the build before.
            and (is_plan(path.name, need.config_ver) or not path.name.endswith(".plan"))
        )
        if fresh:
            engines[_key(need)] = fresh
        elif need in needs:
            engines.pop(_key(need), None)
    _write(tree, engines_dir, engines)


def is_plan(name: str, config_ver: str) -> bool:
    """Whether a file of that name is an engine of a configuration version.

    The driver looks for parts of the version's name (constants.py:539-570 of v2.1). The engines of rnnt, `encoder.plan`
    and its siblings, carry no version: they are of all.
    """
    version = _CONFIG.search(name)
    if version is None:
        return name.endswith(".plan")
    kind = next((kind for kind in _KINDS if kind in config_ver), None)
    return (
        (version["kind"] == kind if kind is not None else version["kind"] not in _KINDS)
        and version["accuracy"] == ("k_99_9" if "high_accuracy" in config_ver else "k_99")
        and version["power"] == ("MaxQ" if "maxq" in config_ver else "MaxP")
    )


def _built_together(needs: tuple[EngineNeed, ...]) -> tuple[EngineNeed, ...]:
    return tuple(
        dict.fromkeys(
            msgspec.structs.replace(need, scenario=scenario)
            for need in needs
            for scenario in {other.scenario: None for other in needs}
        )
    )


def _why_missing(need: EngineNeed, tree: Path, recorded: tuple[_File, ...] | None) -> str | None:
    if recorded is None:
        if any(is_plan(path.name, need.config_ver) for path, _ in _files(need, tree)):
            return None
        where = f"{tree / ENGINES}/*/{need.benchmark}/{SCENARIO_NAMES[need.scenario]}"
        return f"There is no .plan of {need.config_ver} for {need.profile} in {where}."
    if not recorded:
        return "Its last build was begun and did not succeed."
    for file in recorded:
        try:
            status = (tree / file.path).stat()
        except OSError as error:
            return f"{file.path} was built, and now it cannot be read: {error.strerror}."
        if (status.st_size, status.st_mtime_ns) != (file.bytes, file.mtime_ns):
            return f"{file.path} was changed since it was built."
    return None


def _files(need: EngineNeed, tree: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files of a benchmark and scenario, of systems whose name speaks of no other profile than the need's."""
    for system in sorted((tree / ENGINES).glob("*")):
        profiles = _PROFILE.findall(system.name)
        if profiles and _PROFILE.fullmatch(need.profile) and need.profile not in profiles:
            continue
        for path in sorted((system / need.benchmark / SCENARIO_NAMES[need.scenario]).glob("*")):
            try:
                status = path.stat()
            except OSError:
                continue  # a link to nothing, or gone meanwhile
            if stat.S_ISREG(status.st_mode):
                yield path, status


def _key(need: EngineNeed) -> str:
    return f"{need.benchmark}/{need.scenario}/{need.config_ver}/{need.profile}"


def _record_path(tree: Path, engines_dir: Path) -> Path:
    """One record for each tree, though several may share a directory."""
    return engines_dir / f"make-{hashlib.sha256(str(tree).encode()).hexdigest()[:12]}.json"


def _read(tree: Path, engines_dir: Path) -> _Record:
    """What was recorded; nothing where there is no record that can be read, because names say enough then."""
    try:
        found = decode(_record_path(tree, engines_dir).read_bytes(), _Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Record(str(tree), {})
    return found if found.tree == str(tree) else _Record(str(tree), {})


def _write(tree: Path, engines_dir: Path, engines: dict[str, tuple[_File, ...]]) -> None:
    path = _record_path(tree, engines_dir)
    path.parent.mkdir(0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(0o644)  # for nobody else to write, whatever the umask is
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(_Record(str(tree), engines)), indent=2) + b"\n")
    temporary.replace(path)
