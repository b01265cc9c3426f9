"""`verify` on copies of a good run in which something was altered, cut, swapped or lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.verdict import ExitCode
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.verification import Verification, verify_run
from tests.e2e.conftest import FLAGS
from tests.e2e.product import Command, Finished, RunCommand

MAIN, DLRM, RNNT = "workers/0-main-resnet50", "workers/1-background-dlrm", "workers/2-background-rnnt"
DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
KINDS = ("directory", "fifo", "device")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid run with two backgrounds."""
    flags = (*FLAGS, "--harness", "quick", "--main-benchmark-duration", "500ms", "--background-benchmarks", "dlrm,rnnt")
    command = RunCommand(tmp_path_factory.mktemp("good"), ("run", *flags), environ={}, module="tests.e2e.quick")
    try:
        command.expect(0)
    finally:
        command.close()
    return command.run_dir


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil, under the same name."""
    return Path(shutil.copytree(good, tmp_path / good.name))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _rehash(run_dir: Path, *names: str) -> None:
    """Put the hash that a file has now into the certificate, as somebody would who hides a change."""
    certificate = json.loads((run_dir / CERTIFICATE).read_text())
    for entry in certificate["files"]:
        if entry["path"] in names:
            data = (run_dir / entry["path"]).read_bytes()
            entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (run_dir / CERTIFICATE).write_text(json.dumps(certificate))


def _edit_certificate(run_dir: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = run_dir / CERTIFICATE
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def _put(path: Path, kind: str) -> None:
    """Put something in place of a file that nobody should open."""
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def _sentences(found: Verification) -> str:
    return " ".join(reason.sentence for reason in found.verdict.reasons)


def test_untouched_copy_is_as_good_as_the_run(copy: Path) -> None:
    found = verify_run(copy)
    assert found.verdict.status == "valid"
    assert found.verdict.exit_code == 0
    assert found.notes == ()
    assert found.certificate is not None
    assert found.certificate.overlap.proven


def test_result_of_main_altered(copy: Path) -> None:
    _replace(copy / MAIN / DETAIL, '"value": "VALID"', '"value": "INVALID"')
    _replace(copy / MAIN / SUMMARY, "Result is : VALID", "Result is : INVALID")
    found = verify_run(copy)
    assert found.verdict.exit_code == 3
    assert "was altered after the run" in _sentences(found)


def test_result_of_main_altered_in_one_of_its_logs(copy: Path) -> None:
    _replace(copy / MAIN / SUMMARY, "Result is : VALID", "Result is : INVALID")
    _rehash(copy, f"{MAIN}/{SUMMARY}")
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "contradict each other" in _sentences(found)


def test_logs_of_two_workers_swapped(copy: Path) -> None:
    first, second, aside = copy / MAIN / DETAIL, copy / RNNT / DETAIL, copy / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    found = verify_run(copy)
    assert found.verdict.exit_code in {3, 4, 9}
    assert _sentences(found).count("was altered after the run") == 2


def test_log_of_another_run_put_in_place_with_its_hash(copy: Path) -> None:
    path = copy / DLRM / DETAIL
    text = path.read_text()
    year = re.search(r'"power_begin", "value": "\d\d-\d\d-(\d{4})', text)
    assert year is not None
    path.write_text(text.replace(f"-{year[1]} ", f"-{int(year[1]) - 1} "))
    _rehash(copy, f"{DLRM}/{DETAIL}")
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "lies outside the life of the worker" in _sentences(found)


def test_background_that_ended_early_with_its_hash(copy: Path) -> None:
    """The end of a background's timed section becomes its own begin, everywhere."""
    path = copy / DLRM / DETAIL
    text = path.read_text()
    begin = re.search(r'"power_begin", "value": "([^"]+)"', text)
    end = re.search(r'"power_end", "value": "([^"]+)"', text)
    assert begin is not None
    assert end is not None
    path.write_text(text.replace(end[1], begin[1]))
    _rehash(copy, f"{DLRM}/{DETAIL}")
    found = verify_run(copy)
    assert found.verdict.exit_code == 4
    assert "Background 1 (dlrm) was not timed during the whole timed section of main" in _sentences(found)


@pytest.mark.parametrize("worker", [MAIN, DLRM])
def test_detail_log_truncated(copy: Path, worker: str) -> None:
    path = copy / worker / DETAIL
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"power_begin") + 20])
    _rehash(copy, f"{worker}/{DETAIL}")
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert str(path) in _sentences(found)


@pytest.mark.parametrize("name", [f"{DLRM}/{DETAIL}", f"{MAIN}/{SUMMARY}", f"{DLRM}/exit.json", "telemetry.jsonl"])
def test_file_deleted(copy: Path, name: str) -> None:
    (copy / name).unlink()
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"{copy / name} is missing, though the certificate lists it." in _sentences(found)


def test_run_json_altered_alone(copy: Path) -> None:
    _replace(copy / RUN_JSON, '"proven": true', '"proven": false')
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"{copy / RUN_JSON} was altered after the run" in _sentences(found)


def test_what_the_run_said_of_itself_is_not_believed(copy: Path) -> None:
    (copy / CERTIFICATE).unlink()
    (copy / RUN_JSON).unlink()
    found = verify_run(copy)
    assert found.verdict.exit_code == 0
    assert "could not be compared" in found.notes[0]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version":1,"run_id":"' + "\udcff" + '"}'])
def test_unreadable_certificate(copy: Path, text: str) -> None:
    (copy / CERTIFICATE).write_bytes(text.encode(errors="surrogateescape"))
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The certificate {copy / CERTIFICATE} is not readable" in _sentences(found)


@pytest.mark.parametrize("kind", KINDS)
def test_certificate_that_is_no_regular_file(copy: Path, kind: str) -> None:
    _put(copy / CERTIFICATE, kind)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The certificate {copy / CERTIFICATE} is not a regular file" in _sentences(found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_certificate_that_nobody_may_read(copy: Path) -> None:
    (copy / CERTIFICATE).chmod(0)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The certificate {copy / CERTIFICATE} cannot be read: Permission denied" in _sentences(found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run_id": "another"}, "is of the run 'another', and the journal beside it of"),
        ({"schema_version": 2}, "was written by another version of heteromig: its schema is 2"),
        ({"schema_version": 2, "files": None}, "was written by another version of heteromig: its schema is 2"),
    ],
)
def test_certificate_of_another_run_or_version(copy: Path, change: dict[str, object], sentence: str) -> None:
    _edit_certificate(copy, lambda certificate: certificate | change)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The certificate {copy / CERTIFICATE} {sentence}" in _sentences(found)


@pytest.mark.parametrize("name", ["events.jsonl", RUN_JSON, "plan.toml", "telemetry.jsonl", f"{MAIN}/{DETAIL}"])
def test_file_struck_from_the_certificate(copy: Path, name: str) -> None:
    def strike(certificate: dict[str, Any]) -> dict[str, Any]:
        return certificate | {"files": [file for file in certificate["files"] if file["path"] != name]}

    _edit_certificate(copy, strike)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"{copy / name} was struck from the certificate, or added after the run." in _sentences(found)
    assert found.notes == ()


def test_file_added_to_a_worker(copy: Path) -> None:
    (copy / DLRM / "more.log").touch()
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "more.log was struck from the certificate, or added after the run." in _sentences(found)


@pytest.mark.parametrize("log", [f"{MAIN}/{DETAIL}", f"{MAIN}/{SUMMARY}", f"{DLRM}/{DETAIL}"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_that_is_no_regular_file(copy: Path, log: str, kind: str) -> None:
    """Even without a certificate, which would find it first."""
    (copy / CERTIFICATE).unlink()
    _put(copy / log, kind)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"LoadGen's log {copy / log} is not a regular file" in _sentences(found)


@pytest.mark.parametrize("kind", KINDS)
def test_journal_that_is_no_regular_file(copy: Path, kind: str) -> None:
    _put(copy / "events.jsonl", kind)
    with pytest.raises(EvidenceError, match=r"events\.jsonl is not a regular file"):
        verify_run(copy)


def test_journal_of_another_version(copy: Path) -> None:
    _journal(lambda lines: [lines[0].replace(b'"schema_version":2', b'"schema_version":3'), *lines[1:]], copy)
    with pytest.raises(EvidenceError, match="was written by another version of heteromig: its schema is 3"):
        verify_run(copy)


def test_nested_too_deeply(copy: Path) -> None:
    deep = 200_000 * "[" + 200_000 * "]"
    _edit_certificate(copy, lambda certificate: certificate | {"deep": "DEEP"})
    _replace(copy / CERTIFICATE, '"DEEP"', deep)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The certificate {copy / CERTIFICATE} is not readable" in _sentences(found)
    line = b'{"line":"event","deep":' + deep.encode() + b"}\n"
    path = copy / "events.jsonl"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(EvidenceError, match=r"of the journal .* is not readable"):
        verify_run(copy)


@pytest.mark.parametrize("name", ["events.jsonl", CERTIFICATE, f"{MAIN}/{DETAIL}"])
def test_file_that_does_not_fit_into_memory(copy: Path, name: str) -> None:
    """8 GiB, all of it a hole, where 4 GiB of address space are allowed."""
    if name == f"{MAIN}/{DETAIL}":
        (copy / CERTIFICATE).unlink()  # hashing a hole takes its time
    os.truncate(copy / name, 8 << 30)
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "
        "import tests.e2e.quick, heteromig.cli.main; heteromig.cli.main.main()"
    )
    argv = (sys.executable, "-c", limited, "verify", str(copy))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == ExitCode.INCONCLUSIVE, said
    assert "does not fit into memory" in said
    assert "Traceback" not in said


def test_added_file_is_only_worth_a_note(copy: Path) -> None:
    (copy / "notes.txt").write_text("a fine run")
    (copy / "report.html").write_text("<p>made of the rest at any time")
    found = verify_run(copy)
    assert found.verdict.exit_code == 0
    assert found.notes == (f"{copy / 'notes.txt'} was added after the run.",)


def test_link_is_no_file(copy: Path) -> None:
    (copy / "elsewhere").symlink_to("/")
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "is not a regular file" in _sentences(found)


def _journal(edit: Callable[[list[bytes]], list[bytes]], run_dir: Path) -> None:
    path = run_dir / "events.jsonl"
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))
    _rehash(run_dir, "events.jsonl")


def _without(text: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [line for line in lines if text not in line]


def test_journal_cut_in_the_middle_of_a_line(copy: Path) -> None:
    path = copy / "events.jsonl"
    data = path.read_bytes()
    at = data.find(b'"event":"WorkerExited"')
    path.write_bytes(data[:at])
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "The journal ends in main-running" in _sentences(found)


def test_journal_cut_in_its_last_line(copy: Path) -> None:
    path = copy / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-2])
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "events.jsonl was altered after the run" in _sentences(found)


def test_event_removed_although_rehashed(copy: Path) -> None:
    _journal(_without(b'"event":"TimedSectionBegan"'), copy)
    with pytest.raises(EvidenceError, match=r"has event \d+ where event \d+ belongs: it was altered"):
        verify_run(copy)


def test_event_altered_although_rehashed(copy: Path) -> None:
    altered = (b'"event":"GpusLocked"', b'"event":"RunStarted","at_utc_ns":1,"controller_pid":1')
    _journal(lambda lines: [line.replace(*altered) for line in lines], copy)
    with pytest.raises(EvidenceError, match=r"does not replay to what it records from event \d+ \(RunStarted\) on"):
        verify_run(copy)


@pytest.mark.parametrize("change", ["removed", "doubled", "swapped"])
def test_no_change_of_a_line_is_more_than_a_finding(copy: Path, change: str) -> None:
    """Whichever line it is: either the journal is refused, or there is a verdict."""
    (copy / CERTIFICATE).unlink()
    path = copy / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    refused = 0
    for number in range(len(lines)):
        before, line, after = lines[:number], lines[number], lines[number + 1 :]
        changed = {"removed": after, "doubled": [line, line, *after], "swapped": [*after[:1], line, *after[1:]]}[change]
        path.write_bytes(b"".join([*before, *changed]))
        try:
            found = verify_run(copy)
        except EvidenceError:
            refused += 1
        else:
            # The last line that an event asked for, or the last event itself: as if the controller had died just then.
            assert number >= len(lines) - 3
            assert found.verdict.exit_code in {0, 9}
    assert refused >= len(lines) - 3


def test_line_altered_although_rehashed(copy: Path) -> None:
    _journal(lambda lines: [*lines[:3], b"nonsense\n", *lines[4:]], copy)
    with pytest.raises(EvidenceError, match="Line 4 of the journal"):
        verify_run(copy)


def test_event_altered_alone(copy: Path) -> None:
    path = copy / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"samples_per_s":100.0', b'"samples_per_s":999.0'))
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert "events.jsonl was altered after the run" in _sentences(found)


def test_journal_lost(copy: Path) -> None:
    (copy / "events.jsonl").unlink()
    with pytest.raises(EvidenceError, match="has lost its journal"):
        verify_run(copy)


def test_unknown_harness(copy: Path) -> None:
    _journal(lambda lines: [lines[0].replace(b'"harness":"quick"', b'"harness":"slow"'), *lines[1:]], copy)
    with pytest.raises(EvidenceError, match="used the harness 'slow'"):
        verify_run(copy)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"candidates":["dlrm"', b'"candidates":["dlrn"'),
        (b'"main":{"benchmark":"resnet50"', b'"main":{"benchmark":"resnet49"'),
        (b'"scenario":"offline"', b'"scenario":"offlinf"'),
    ],
)
def test_header_that_contradicts_itself(copy: Path, old: bytes, new: bytes) -> None:
    assert old in (copy / "events.jsonl").read_bytes()
    _journal(lambda lines: [lines[0].replace(old, new), *lines[1:]], copy)
    with pytest.raises(EvidenceError, match="contradicts itself"):
        verify_run(copy)


def test_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        verify_run(tmp_path)


def _verify(home: Path, *argv: str) -> Finished:
    """`heteromig verify`, where the harness of the run is known."""
    command = Command(home, ("verify", *argv), environ={}, module="tests.e2e.quick")
    try:
        return command.finish()
    finally:
        command.close()


def test_command_says_what_it_found_and_exits_with_its_code(copy: Path, tmp_path: Path) -> None:
    good = _verify(tmp_path, str(copy), "--json")
    assert good.exit_code == 0, good.stderr
    assert json.loads(good.stdout)["verdict"]["status"] == "valid"
    (copy / DLRM / DETAIL).unlink()
    bad = _verify(tmp_path, str(copy))
    assert bad.exit_code == ExitCode.INCONCLUSIVE
    assert "is missing" in " ".join(bad.stdout.split())
    none = _verify(tmp_path, str(tmp_path))
    assert none.exit_code == ExitCode.USAGE
    assert "is not a run directory" in none.stderr
    gone = _verify(tmp_path, str(tmp_path / "nowhere"))
    assert gone.exit_code == ExitCode.USAGE
