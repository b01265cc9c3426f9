from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import stat
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from heteromig.core.errors import EvidenceError, UsageError
from heteromig.runner.rundir import create_run_dir, hash_files, tidy, write_json
from tests.core.histories import SPEC

AT_UTC_NS = 1_700_000_000_123_456_789
NAME = "20231114T221320Z-resnet50-offline"


def _create(runs: Path) -> Path:
    return create_run_dir(replace(SPEC, runs_dir=str(runs)), AT_UTC_NS)


def test_fresh_directory_and_its_link(tmp_path: Path) -> None:
    run_dir = _create(tmp_path / "deep" / "runs")
    assert run_dir == tmp_path / "deep" / "runs" / NAME
    assert [path.name for path in run_dir.iterdir()] == ["workers"]
    assert (tmp_path / "deep" / "runs" / "latest").readlink() == Path(NAME)


def test_runs_of_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    names = [_create(tmp_path).name for _ in range(3)]
    assert names == [NAME, f"{NAME}-2", f"{NAME}-3"]
    assert (tmp_path / "latest").readlink() == Path(f"{NAME}-3")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine")
    (tmp_path / f"{NAME}-2").symlink_to("nowhere")
    assert _create(tmp_path).name == f"{NAME}-3"
    assert (tmp_path / NAME).read_text() == "mine"


def test_latest_that_is_somebody_elses_stays(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "thesis.tex").write_text("mine")
    _create(tmp_path)
    assert (tmp_path / "latest" / "thesis.tex").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "latest"]


def test_latest_that_points_nowhere_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("a-run-that-was-deleted")
    _create(tmp_path)
    assert (tmp_path / "latest").readlink() == Path(NAME)


@pytest.mark.parametrize("below", ["", "below"])
def test_place_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"No run directory can be made in .*Choose another place with --runs-dir"):
        _create(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": 1}, sync=False)
    with path.open() as before:
        write_json(path, {"a": 2}, sync=True)
        assert before.read() == '{\n  "a": 1\n}\n'
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_whole_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    leftovers = 0
    moments = random.Random(8)  # noqa: S311 - the same each time
    write_json(path, {"text": "x" * 100_000}, sync=False, private=True)
    for _ in range(60):
        writer = os.fork()
        if writer == 0:
            while True:
                write_json(path, {"text": "x" * 100_000}, sync=False, private=True)
        time.sleep(moments.uniform(0.001, 0.02))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        assert msgspec.json.decode(path.read_bytes()) == {"text": "x" * 100_000}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        leftovers += len(list(tmp_path.iterdir())) - 1
    assert leftovers, "some of them were in the middle of it"
    write_json(path, {"a": 1}, sync=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_an_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".run.json.new").symlink_to("precious")
    write_json(tmp_path / "run.json", {"a": 1}, sync=False)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "run.json").is_symlink()


def test_every_file_is_hashed_but_the_unsealed(tmp_path: Path) -> None:
    (tmp_path / "workers" / "0-main").mkdir(parents=True)
    (tmp_path / "workers" / "0-main" / "certificate.json").write_bytes(b"not that one")
    (tmp_path / "workers" / "0-main" / "big.log").write_bytes(b"x" * 3_000_000)
    (tmp_path / "certificate.json").write_bytes(b"this one")
    (tmp_path / "report.html").write_bytes(b"made of the rest")
    (tmp_path / "run.json").write_bytes(b"{}")
    found = hash_files(tmp_path)
    assert [(file.path, file.bytes) for file in found] == [
        ("run.json", 2),
        ("workers/0-main/big.log", 3_000_000),
        ("workers/0-main/certificate.json", 12),
    ]
    assert found[1].sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_what_programs_leave_is_made_fit_to_be_sealed(tmp_path: Path) -> None:
    home = tmp_path / "workers" / "0-main"
    (home / "kept").mkdir(parents=True)
    (home / "kept" / "log").write_text("1")
    (home / "latest").symlink_to("kept")
    (home / "gone").symlink_to("nowhere")
    os.mkfifo(home / "pipe")
    odd = os.fsencode(home) + b"/a\xffb"
    Path(os.fsdecode(odd)).mkdir()
    Path(os.fsdecode(odd + b"/c\xff")).write_text("2")
    (home / "a\\xffb").write_text("3")
    tidy(tmp_path)
    assert [file.path.removeprefix("workers/0-main/") for file in hash_files(tmp_path)] == [
        "a\\xffb",
        "a\\xffb_/c\\xff",
        "kept/log",
    ]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    with pytest.raises(EvidenceError, match="link is not a regular file"):
        hash_files(tmp_path)
    (tmp_path / "link").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "door"))
        with pytest.raises(EvidenceError, match="door is not a regular file"):
            hash_files(tmp_path)
