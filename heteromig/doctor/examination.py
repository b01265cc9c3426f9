"""The whole examination: everything that is looked at, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from heteromig.core.errors import HeteromigError
from heteromig.core.spec import Preparation, RunSpec
from heteromig.doctor import clients, devices, health, host, kernel_log, leftovers, permissions
from heteromig.doctor.findings import ExaminedGpu, Finding, Report, ok, report_of
from heteromig.doctor.probing import LIMIT_S, Probed, probe
from heteromig.doctor.refusals import Rehearsed, refused_locks, rehearse
from heteromig.harnesses import Harness
from heteromig.slices.source import SliceSource, parse_slices

_PYNVML = "nvidia-ml-py"


def examine(spec: RunSpec, harness: Harness, *, limit_s: float = LIMIT_S) -> Report:
    """Look at everything that a run of `spec` needs; nothing is changed. The devices have `limit_s` to answer."""
    source, runs_dir = parse_slices(spec.slices), Path(spec.runs_dir).absolute()
    try:
        probed = probe(source, runs_dir, spec.gpu, limit_s=limit_s)
    except HeteromigError as error:
        probed = Probed(refusal=str(error))
    rehearsed = rehearse(spec, probed)
    findings = (
        *_about_slices(spec, source, runs_dir, probed, rehearsed),
        *_about_machine(source, probed),
        *host.about_harness(harness, spec),
        *host.about_tools(source),
        *host.about_packages(source, spec),
        *host.about_runs_dir(runs_dir),
        *host.about_processors(source),
        *host.about_clock(),
        *_about_gpus(probed),
    )
    gpus = tuple(ExaminedGpu(one.index, one.gpu.uuid, one.gpu.name) for one in probed.gpus if one.gpu is not None)
    return report_of(spec.slices, gpus, findings, probed.latencies, simulated=source.simulated)


def _about_slices(
    spec: RunSpec, source: SliceSource, runs_dir: Path, probed: Probed, rehearsed: Rehearsed
) -> Iterator[Finding]:
    yield from devices.about_library(probed, host.release_of(_PYNVML) or "of unknown release")
    yield from devices.about_answers(probed)
    prepared_by = f"--layout {spec.layout}" if spec.preparation is Preparation.LAYOUT else ""
    yield from devices.about_slices(probed, rehearsed, prepared_by=prepared_by)
    yield from devices.about_occupants(probed, rehearsed)
    refusals = tuple(refused_locks(source, runs_dir, rehearsed.gpu_uuids))
    yield from devices.about_locks(refusals, rehearsed.gpu_uuids)
    yield from leftovers.about_layouts(source, runs_dir)


def _about_gpus(probed: Probed) -> Iterator[Finding]:
    for facts in probed.gpus:
        yield from devices.about_gpu(facts)
        if facts.gpu is not None and facts.health is not None:
            yield from health.about_health(facts.health, facts.gpu.uuid)


def _about_machine(source: SliceSource, probed: Probed) -> Iterator[Finding]:
    if source.simulated:
        yield ok("hardware", "not applicable to simulated GPUs: permissions, clients, ECC, Xids, heat, power, clocks")
        return
    yield from permissions.about_permissions(probed.gpus)
    if probed.inventory is not None:
        yield from permissions.about_nodes(probed.inventory, probed.gpus)
    census = clients.take_census()
    yield from clients.about_clients(census, probed.gpus)
    yield from clients.about_sharing(census)
    yield from clients.about_namespace(probed.gpus)
    yield from kernel_log.about_xids(probed.gpus)
