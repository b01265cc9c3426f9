"""Whether engines are there: as a build left them, or by their names."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.core.plan import EngineNeed
from heteromig.harnesses.make import engines
from tests.nvidia_tree.tree import make, plant, workload

BERT = EngineNeed(benchmark="bert", scenario="offline", accuracy="99", profile="1g.10gb", config_ver="hetero")
BERT_HIGH = replace(BERT, accuracy="99.9", config_ver="hetero_high_accuracy")
RESNET = replace(BERT, benchmark="resnet50")
RESNET_SERVER = replace(RESNET, scenario="server")
RNNT = replace(BERT, benchmark="rnnt")


class Engines:
    """The engines of one tree, as a run sees them."""

    def __init__(self, tree: Path, engines_dir: Path) -> None:
        self.tree = tree
        self.engines_dir = engines_dir

    def missing(self, *needs: EngineNeed) -> dict[EngineNeed, str]:
        return dict(engines.missing(needs, self.tree, self.engines_dir))

    def build(self, *needs: EngineNeed, **environ: str) -> None:
        """As a run does it: with make, and a note before and after."""
        engines.begin(needs, self.tree, self.engines_dir)
        started_utc_ns = time.time_ns()
        scenarios, benchmarks = ({getattr(need, name) for need in needs} for name in ("scenario", "benchmark"))
        ended = make(
            self.tree,
            "generate_engines",
            f"--scenarios={','.join(scenarios)} --benchmarks={','.join(benchmarks)} --config_ver={needs[0].config_ver}",
            **environ,
        )
        if ended.returncode == 0:
            engines.record(needs, self.tree, self.engines_dir, started_utc_ns=started_utc_ns)

    def file(self, need: EngineNeed) -> Path:
        (path,) = workload(need.benchmark, need.scenario, need.config_ver).engine_files
        return self.tree / path


@pytest.fixture
def there(tmp_path: Path) -> Engines:
    """A tree without engines."""
    return Engines(plant(tmp_path), tmp_path / "engines")


def rewrite(path: Path, text: str) -> None:
    """Replace what is in a file, with a time that is not the one it had."""
    path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def test_what_was_built_is_there_until_somebody_changes_it(there: Engines) -> None:
    assert set(there.missing(BERT, RESNET, RNNT)) == {BERT, RESNET, RNNT}
    there.build(BERT, RESNET, RNNT)
    assert there.missing(BERT, RESNET, RNNT) == {}
    rewrite(there.file(BERT), there.file(BERT).read_text())
    assert there.missing(BERT, RESNET, RNNT) == {
        BERT: f"{there.file(BERT).relative_to(there.tree)} was changed since it was built."
    }
    there.file(RESNET).unlink()
    assert there.missing(RESNET)[RESNET].endswith("was built, and now it cannot be read: No such file or directory.")
    there.build(BERT, RESNET)
    assert there.missing(BERT, RESNET, RNNT) == {}


def test_a_file_that_grew_at_the_same_time_was_changed(there: Engines) -> None:
    there.build(BERT)
    status = there.file(BERT).stat()
    there.file(BERT).write_text("longer" * 100)
    os.utime(there.file(BERT), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "was changed" in there.missing(BERT)[BERT]


def test_each_part_of_an_engine_counts(there: Engines) -> None:
    there.build(RNNT)
    parts = [there.tree / file for file in workload("rnnt", "Offline").engine_files]
    assert len(parts) == 7
    for part in parts:
        kept = part.rename(part.with_suffix(".kept"))
        assert "now it cannot be read" in there.missing(RNNT)[RNNT]
        kept.rename(part)
    assert there.missing(RNNT) == {}


def test_configuration_versions_scenarios_and_profiles_are_engines_of_their_own(there: Engines) -> None:
    there.build(BERT)
    others = (BERT_HIGH, replace(BERT, scenario="server"), replace(BERT, profile="3g.40gb"))
    assert set(there.missing(BERT, *others)) == set(others)
    there.build(BERT_HIGH)
    assert there.missing(BERT, BERT_HIGH) == {}
    rewrite(there.file(BERT), "changed\n")
    assert set(there.missing(BERT, BERT_HIGH)) == {BERT}
    rewrite(there.file(BERT_HIGH), "changed\n")
    assert set(there.missing(BERT, BERT_HIGH)) == {BERT, BERT_HIGH}


def test_what_a_command_builds_besides_is_remembered_too(there: Engines) -> None:
    # Both scenarios of both benchmarks are made; a record of what was there before must not call them changed.
    bert_server = replace(BERT, scenario="server")
    there.build(RESNET, bert_server)
    there.build(RESNET_SERVER, BERT)
    assert there.missing(RESNET, RESNET_SERVER, BERT, bert_server) == {}
    rewrite(there.file(RESNET), "changed\n")
    assert set(there.missing(RESNET, RESNET_SERVER, BERT, bert_server)) == {RESNET}


def test_what_an_earlier_build_left_is_not_part_of_an_engine(there: Engines) -> None:
    earlier = there.file(BERT).with_name("bert-Offline-gpu-b1-int8.hetero_k_99_MaxP.plan")
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    while time.time_ns() <= earlier.stat().st_ctime_ns + engines._TIMESTAMP_NS:
        time.sleep(0.001)
    there.build(BERT)
    earlier.unlink()
    assert there.missing(BERT) == {}


def test_a_build_that_did_not_succeed_leaves_nothing_that_counts(there: Engines) -> None:
    there.build(BERT, STANDIN_BUILD="build-fails")
    there.file(BERT).parent.mkdir(parents=True)
    there.file(BERT).write_text("half an engine")
    assert there.missing(BERT) == {BERT: "Its last build was begun and did not succeed."}
    there.build(BERT)
    assert there.missing(BERT) == {}


def test_a_build_that_leaves_nothing(there: Engines) -> None:
    there.build(BERT, STANDIN_BUILD="no-engine")
    assert there.missing(BERT) == {
        BERT: f"There is no .plan of hetero for 1g.10gb in {there.tree}/build/engines/*/bert/Offline."
    }


def test_a_build_that_finds_its_engines_there_leaves_it_to_their_names(there: Engines) -> None:
    there.build(BERT)
    rewrite(there.file(BERT), "by hand\n")
    assert there.missing(BERT)
    engines.record((BERT,), there.tree, there.engines_dir, started_utc_ns=time.time_ns() + 10**9)
    assert there.missing(BERT) == {}


def test_without_a_record_names_say_it(there: Engines) -> None:
    make(there.tree, "generate_engines", "--benchmarks=bert,rnnt --scenarios=offline --config_ver=hetero")
    assert set(there.missing(BERT, RNNT, BERT_HIGH, RESNET)) == {BERT_HIGH, RESNET}
    shutil.rmtree(there.file(BERT).parent)
    (there.file(BERT).parent / there.file(BERT).name).mkdir(parents=True)  # a directory is no engine
    assert set(there.missing(BERT)) == {BERT}


@pytest.mark.parametrize(
    "record", [b"", b"\xff\xfe", b"[]", b'{"tree": 5}', b"{" * 100_000, b'{"tree":"/other","engines":{}}']
)
def test_a_record_that_cannot_be_read_is_none(there: Engines, record: bytes) -> None:
    there.build(BERT)
    (file,) = there.engines_dir.iterdir()
    file.write_bytes(record)
    rewrite(there.file(BERT), "changed\n")
    assert there.missing(BERT) == {}
    there.build(RESNET)
    assert there.missing(BERT, RESNET) == {}
    rewrite(there.file(RESNET), "changed\n")
    assert set(there.missing(BERT, RESNET)) == {RESNET}


def test_trees_that_share_a_directory_do_not_share_a_record(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (Engines(plant(tmp_path / name), tmp_path / "engines") for name in ("one", "two"))
    one.build(BERT)
    assert set(two.missing(BERT)) == {BERT}
    two.build(BERT)
    rewrite(one.file(BERT), "changed\n")
    assert set(one.missing(BERT)) == {BERT}
    assert two.missing(BERT) == {}


def test_systems_of_another_profile_do_not_count(there: Engines) -> None:
    by_system = {
        "DGX-A100_A100-SXM-80GB-MIG_1x3g.40gb": {"3g.40gb"},
        "A30-MIG_1x1g.6gb": {"1g.6gb"},
        # Names that speak of none may be of any.
        "A100-SXM-80GBx1": {"1g.10gb", "3g.40gb", "1g.6gb", "a100"},
    }
    for system, profiles in by_system.items():
        shutil.rmtree(there.tree / "build" / "engines")
        make(
            there.tree,
            "generate_engines",
            f"--benchmarks=bert --scenarios=offline --config_ver=hetero --system_name={system}",
        )
        asked = [replace(BERT, profile=profile) for profile in ("1g.10gb", "3g.40gb", "1g.6gb", "a100")]
        found = {need.profile for need in asked} - {need.profile for need in there.missing(*asked)}
        assert found - {"a100"} == profiles - {"a100"}


def test_mixed_profiles_are_recorded_apart(there: Engines) -> None:
    large = replace(BERT, profile="3g.40gb")
    system = "DGX-A100_A100-SXM-80GB-MIG_1x3g.40gb"
    there.build(BERT)
    there.build(large, STANDIN_SYSTEM=system)
    assert there.missing(BERT, large) == {}
    (file,) = (there.tree / "build" / "engines" / system / "bert" / "Offline").iterdir()
    rewrite(file, "changed\n")
    assert set(there.missing(BERT, large)) == {large}


def test_what_cannot_be_looked_at_is_passed_over(there: Engines) -> None:
    directory = there.file(BERT).parent
    directory.mkdir(parents=True)
    (directory / "gone.hetero_k_99_MaxP.plan").symlink_to("nowhere")
    (directory / "circle.hetero_k_99_MaxP.plan").symlink_to("circle.hetero_k_99_MaxP.plan")
    assert set(there.missing(BERT)) == {BERT}


NAMES = {
    "hetero": "x.hetero_k_99_MaxP.plan",
    "hetero_high_accuracy": "x.hetero_k_99_9_MaxP.plan",
    "hetero_maxq": "x.hetero_k_99_MaxQ.plan",
    "hetero_triton": "x.triton_k_99_MaxP.plan",
    "triton_unified_high_accuracy": "x.triton_unified_k_99_9_MaxP.plan",
    "default": "resnet50-Offline-gpu-b256-int8.lwis_k_99_MaxP.plan",
    "high_accuracy": "x.custom_k_99_9_MaxP.plan",
}


@pytest.mark.parametrize(("config_ver", "wanted"), list(itertools.product(NAMES, NAMES)))
def test_names_of_engines(config_ver: str, wanted: str) -> None:
    assert engines.is_plan(NAMES[wanted], config_ver) == (config_ver == wanted)


@pytest.mark.parametrize("config_ver", NAMES)
def test_engines_without_a_version_are_of_all(config_ver: str) -> None:
    assert engines.is_plan("encoder.plan", config_ver)
    assert not engines.is_plan("encoder.plan.txt", config_ver)
    assert not engines.is_plan("x.hetero_k_99_MaxP.plan.cache", config_ver)
