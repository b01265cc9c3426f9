"""A stand-in for NVIDIA's `closed/NVIDIA` tree, for tests that drive it with real make and get real LoadGen logs.

`plant(root)` writes one. `make`, or any process that starts make there, may have these in its environment:

STANDIN_MAIN, STANDIN_BACKGROUND, STANDIN_BUILD
    How main, backgrounds and builds behave. Backgrounds are the runs with `--min_query_count=1` in RUN_ARGS.
STANDIN_RESNET50, STANDIN_BERT, STANDIN_3D_UNET, ...
    How runs of that one benchmark behave, whatever their role.

        good                valid; the usual one
        chatty              60 lines of configuration, then 50 lines/s of 200 bytes while it is timed
        slow-start          prints the marker, then loads for STANDIN_LOAD_MS (2000) before its timed section; a build
                            takes that long
        early-exit          a timed section of STANDIN_AFTER_MS (1000), at most half of what was asked; exit 0
        crash               exits with 1 so long after its timed section began
        crash-early         exits with 1 before the marker
        invalid             LoadGen says INVALID; exit 0
        hang-after-result   the harness stays when everything is printed and logged
        ignores-term        shells, driver and harness survive TERM, and make, which waits for them, until they end
        accuracy-fails      with --test_mode=AccuracyOnly
        audit-fails         TEST FAIL in verify_performance.txt; exit 0
        audit-second-trial  the first trial of an audit fails when it is verified
        audit-redeemed      TEST FAIL in verify_accuracy.txt of TEST01, because answers differ, but they are as good
        unknown-system      the driver finds no configuration for this machine, does nothing, and exits with 0
        no-engine           a build that exits with 0 and leaves nothing
        build-fails         a build that exits with 1

STANDIN_CONFIG_LINES
    How many lines of configuration a run prints (8).
STANDIN_SERVER_QPS
    How many queries a second a system in Server can answer (0: each at once).
STANDIN_RECORD
    A file that gets a line for each start of the driver; see `launches`.
STANDIN_WRITES
    A file that gets a line for each line that a chatty run prints while it is timed; see `writes`.
STANDIN_SYSTEM
    The system's name, instead of the one that was planted.
THERMAL_SLEEP_S
    How long audits rest before TEST04 and TEST05 (0; NVIDIA's is 20).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.nvidia_tree.planted.code import engines
from tests.nvidia_tree.planted.code.catalog import BENCHMARKS, FAMILIES, Workload, workloads
from tests.nvidia_tree.planted.code.measurements import MLPERF_CONF

SYSTEM = "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb"
VERSIONS = ("v1.1", "v2.0", "v2.1")
DEADLINE_S = 90.0
"""Far more than anything here takes, even on a machine that is busy with something else."""

_LOADGEN_CONF = """# LoadGen's own, as far as the stand-in needs it
*.Server.target_latency = 1000
*.Server.target_latency_percentile = 99
resnet50.Server.target_latency = 1000
"""
_PLANTED = Path(__file__).with_name("planted")
_DIRECTORIES = ("build/logs", "build/compliance_logs", "build/engines", "configs", "measurements", "systems")
_AUDIT_CONFIGS = {
    "TEST01/{benchmark}": {
        "mode": 2,
        "accuracy_log_rng_seed": 720381539243781796,
        "accuracy_log_sampling_target": 4096,
    },
    "TEST04": {
        "mode": 2,
        "performance_issue_same": 1,
        "performance_issue_same_index": 3,
        "performance_issue_unique": 0,
    },
    "TEST04-A": {"mode": 2, "performance_issue_unique": 1},
    "TEST04-B": {"mode": 2, "performance_issue_same": 1, "performance_issue_same_index": 3},
    "TEST05": {
        "mode": 2,
        "qsl_rng_seed": 313588358309856706,
        "sample_index_rng_seed": 471397156132239067,
        "schedule_rng_seed": 413914573387865862,
    },
}


class Launch(Struct, frozen=True):
    """One start of the driver. `goal` is what make was called for, `argv` what followed `-m module`."""

    at_ns: int
    pid: int
    goal: str
    module: str
    argv: tuple[str, ...]
    cwd: Path
    habit: str
    cuda_visible_devices: str | None
    log_dir: str | None
    run_args: str | None

    @property
    def action(self) -> str:
        return next(word.partition("=")[2] for word in self.argv if word.startswith("--action="))


class Write(Struct, frozen=True):
    """One line of a chatty run: when printing it began, how long it took, and whether the kernel let it wait."""

    pid: int
    benchmark: str
    at_ns: int
    took_ns: int
    blocked: bool


def plant(root: Path, *, version: str = "v2.1", system: str = SYSTEM, with_engines: bool = False) -> Path:
    """Write `<root>/closed/NVIDIA`, whose harnesses run on this Python.

    Args:
        root: A directory that exists.
        version: One of `VERSIONS`.
        system: The name of the system that the tree believes to be on.
        with_engines: Whether the engines of both hetero configurations are there, as after a build.

    Returns:
        The tree.
    """
    assert version in VERSIONS, version
    tree = root / "closed" / "NVIDIA"
    shutil.copytree(_PLANTED, tree, ignore=shutil.ignore_patterns("__pycache__"))
    for unwanted in (tree / "__init__.py", tree / "scripts" / "__init__.py"):
        unwanted.unlink()
    for name in _DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    (root / "scratch").mkdir()
    makefile = (tree / "Makefile").read_text()
    for name, value in {
        "@VERSION@": version,
        "@PYTHON@": shlex.quote(sys.executable).replace("$", "$$"),
        "@SCRATCH@": str(root / "scratch"),
        "@SYSTEM@": system,
    }.items():
        makefile = makefile.replace(name, value)
    (tree / "Makefile").write_text(makefile)
    _install_binaries(tree)
    _install_audit_configs(tree)
    (tree / MLPERF_CONF).write_text(_LOADGEN_CONF)
    for workload in hetero_workloads(system):
        reference = tree / "results" / workload.directory / "performance" / "run_1"
        reference.mkdir(parents=True)
        (reference / "mlperf_log_summary.txt").write_text("Result is : VALID\n")
        if with_engines:
            for file in workload.engine_files:
                engines.write(tree / file, workload)
    return tree


def hetero_workloads(system: str = SYSTEM) -> list[Workload]:
    """All that can be built with `hetero` or `hetero_high_accuracy`."""
    everything = workloads(",".join(BENCHMARKS), "Offline,Server", "hetero,hetero_high_accuracy", system)
    return [workload for workload in everything if workload.is_registered]


def workload(benchmark: str, scenario: str, config_ver: str = "hetero", system: str = SYSTEM) -> Workload:
    """Names of the files of one benchmark."""
    (only,) = workloads(benchmark, scenario, config_ver, system)
    return only


def make(tree: Path, goal: str, run_args: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `make goal RUN_ARGS=run_args` in `tree` to its end; stdout and stderr are one."""
    return subprocess.run(
        ("make", goal, f"RUN_ARGS={run_args}"),
        cwd=tree,
        env=environment(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process' environment without what a make or a test around it may have left there."""
    foreign = ("STANDIN_", "MAKE", "MFLAGS", "RUN_ARGS", "LOG_DIR", "MLPERF_SCRATCH_PATH")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(foreign)}, **more}


def launches(record: Path) -> list[Launch]:
    """What STANDIN_RECORD says was started, in that order."""
    if not record.exists():
        return []
    return msgspec.json.Decoder(Launch, dec_hook=lambda kind, value: kind(value)).decode_lines(record.read_bytes())


def writes(record: Path) -> list[Write]:
    """What STANDIN_WRITES says was printed, in the order of its ends."""
    return msgspec.json.Decoder(Write).decode_lines(record.read_bytes()) if record.exists() else []


def _install_binaries(tree: Path) -> None:
    directory = tree / "build" / "bin"
    directory.mkdir()
    for family in FAMILIES:
        binary = directory / f"harness_{family}"
        binary.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m code.harness {family} "$@"\n')
        binary.chmod(0o755)


def _install_audit_configs(tree: Path) -> None:
    for place, settings in _AUDIT_CONFIGS.items():
        text = "".join(f"*.*.{name} = {value}\n" for name, value in settings.items())
        for benchmark in BENCHMARKS if "{" in place else ("",):
            directory = tree / "build/inference/compliance/nvidia" / place.format(benchmark=benchmark)
            directory.mkdir(parents=True)
            (directory / "audit.config").write_text(text)
