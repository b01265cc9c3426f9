from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import jsonschema
import pytest
from msgspec.structs import replace

from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.spec import RunSpec
from heteromig.runner.config import Config, read_config, resolve
from heteromig.runner.journal import SCHEMA_VERSION, Header
from heteromig.runner.observer import Observer
from heteromig.runner.recording import TOOL, Recorder, describe_host
from heteromig.runner.schemas import schemas
from tests.core import histories
from tests.core.world import ANNOUNCING_BACKGROUND, Cast, Incident, Place, Trouble, World

SPEC = replace(resolve(Config(slices="sim:a100-sxm-80gb")), catalog=histories.SPEC.catalog)


def _recorder(run_dir: Path, spec: RunSpec = SPEC) -> Recorder:
    header = Header(schema_version=SCHEMA_VERSION, tool=TOOL, run_id="r", at_ns=0, at_utc_ns=0, spec=spec)
    recorder = Recorder(header, run_dir, describe_host())
    recorder.begin()
    return recorder


def test_run_that_has_heard_nothing_knows_nothing(tmp_path: Path) -> None:
    record = _recorder(tmp_path).write(Run(SPEC), Observer("discovering").record(None), 1_500_000_000)
    assert (record.phase, record.ended_at, record.verdict) == ("discovering", None, None)
    assert record.heartbeat_at == "1970-01-01T00:00:01.500Z"
    assert (record.gpus, record.slices, record.workers) == ((), (), ())
    assert (record.overlap.proven, record.overlap.coverage) == (False, None)
    assert resolve(read_config(tmp_path / "plan.toml")) == resolve(Config(slices="sim:a100-sxm-80gb"))
    jsonschema.validate(json.loads((tmp_path / "run.json").read_text()), json.loads(schemas()["run"]))


def test_sealed_run_lists_its_files_and_its_guards(tmp_path: Path) -> None:
    run = World(SPEC).finish().run
    recorder = _recorder(tmp_path)
    recorder.entered(Phase.FINISHED, 7_000_000_000)
    record = recorder.seal(run, Observer("finished").record(0.5), 8_000_000_000)
    assert record.ended_at == "1970-01-01T00:00:08.000Z"
    assert record.verdict is not None
    assert [phase.left_at for phase in record.phases] == ["1970-01-01T00:00:07.000Z", None]
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    jsonschema.validate(certificate, json.loads(schemas()["certificate"]))
    assert [file["path"] for file in certificate["files"]] == ["plan.toml", "run.json"]
    taken = [(step["source"], step["destination"]) for step in certificate["guards"]]
    assert ("buffering", "main-running") in taken
    findings = next(step["findings"] for step in certificate["guards"] if step["source"] == "buffering")
    assert {finding["guard"] for finding in findings} >= {"buffer_elapsed", "backgrounds_still_timed"}


def test_what_is_of_interest_beside_the_verdict_is_recorded(tmp_path: Path) -> None:
    spec = replace(histories.BATCHED, gpu="0")
    place = Place(inventory=histories.inventory(3, 1), engines_cached=False)
    world = World(spec, place=place, incidents=(Incident(Phase.MAIN_RUNNING, 0.0, Trouble.BYSTANDERS),)).finish()
    record = _recorder(tmp_path, spec).write(world.run, Observer("finished").record(None), 0)
    assert record.harness == "loadgen"
    assert record.notes == ("Slice SIM-3, which is not part of the run, was used meanwhile by pid 4242 (harness).",)
    said = {(worker.role, worker.benchmark, worker.config_ver) for worker in record.workers}
    assert said == {
        ("main", "resnet50", "low"),
        ("background", "bert", "low"),
        ("background", "dlrm", "high"),
        ("build", "low", "low"),
        ("build", "dlrm", "high"),
    }
    jsonschema.validate(json.loads((tmp_path / "run.json").read_text()), json.loads(schemas()["run"]))


@pytest.mark.parametrize(
    ("spec", "cast", "timed"),
    [
        (histories.ANNOUNCED, Cast(background=ANNOUNCING_BACKGROUND), True),
        (histories.ANNOUNCED, Cast(background=replace(ANNOUNCING_BACKGROUND, announces_s=None)), False),
        (histories.SPEC, Cast(background=ANNOUNCING_BACKGROUND), False),
        (histories.SPEC, Cast(), True),
    ],
    ids=["by its marker", "without any", "a marker is not enough", "by its log"],
)
def test_a_worker_is_timed_as_the_evidence_asks_for(tmp_path: Path, spec: RunSpec, cast: Cast, *, timed: bool) -> None:
    world = World(spec, cast=cast).go_to(Phase.BACKGROUND_STARTING)
    world.wait_s(5.0)
    record = _recorder(tmp_path, spec).write(world.run, Observer("buffering").record(None), 0)
    begins = {worker.timed_begin is not None for worker in record.workers if worker.role == "background"}
    assert begins == {timed}


def test_host_is_this_machine() -> None:
    host = describe_host()
    assert host.kernel == platform.release()
    assert host.cpus == tuple(sorted(os.sched_getaffinity(0)))
    assert host.memory_bytes is not None
    assert host.memory_bytes > 2**20
