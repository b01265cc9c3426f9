"""`verify` on copies of a good run in which something was altered, cut, swapped or lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heteromig.core import events as ev
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.verdict import ExitCode
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.verification import Verification, verify_run
from tests.e2e.conftest import FLAGS, Start
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
    assert f" {worker}/{DETAIL} has no " in _sentences(found)


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
        ({"schema_version": 3}, "was written by another version of heteromig: its schema is 3"),
        ({"schema_version": 3, "files": None}, "was written by another version of heteromig: its schema is 3"),
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
    assert f"LoadGen's log {log} is not a regular file" in _sentences(found)


@pytest.mark.parametrize("kind", KINDS)
def test_journal_that_is_no_regular_file(copy: Path, kind: str) -> None:
    _put(copy / "events.jsonl", kind)
    with pytest.raises(EvidenceError, match=r"events\.jsonl is not a regular file"):
        verify_run(copy)


def test_journal_of_another_version(copy: Path) -> None:
    _journal(lambda lines: [lines[0].replace(b'"schema_version":3', b'"schema_version":4'), *lines[1:]], copy)
    with pytest.raises(EvidenceError, match="was written by another version of heteromig: its schema is 4"):
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
    """Everything before it is used; with the rest of a dead machine's disk behind it as well."""
    path = copy / "events.jsonl"
    data = path.read_bytes()
    at = data.find(b'"event":"WorkerExited"')
    for rest in (b"", 4096 * b"\0", b"\xff\xfe"):
        path.write_bytes(data[:at] + rest)
        found = verify_run(copy)
        assert found.verdict.exit_code == 9
        assert "The journal ends in main-running, and its controller" in _sentences(found)
        assert "does not run here any more" in _sentences(found)


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


# --- what the run says of itself --------------------------------------------------------------------------------------


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))


def _end_early(run_dir: Path) -> None:
    """Let the end of a background's timed section be its own begin, in its log."""
    path = run_dir / DLRM / DETAIL
    text = path.read_text()
    begin = re.search(r'"power_begin", "value": "([^"]+)"', text)
    end = re.search(r'"power_end", "value": "([^"]+)"', text)
    assert begin is not None
    assert end is not None
    path.write_text(text.replace(end[1], begin[1]))


@pytest.mark.parametrize("more", [(), (RUN_JSON,), (RUN_JSON, "plan.toml")])
def test_without_anything_that_the_run_says_of_itself_it_exits_the_same(copy: Path, more: tuple[str, ...]) -> None:
    (copy / CERTIFICATE).unlink()
    _edit_json(copy / RUN_JSON, lambda record: [record.pop(key) for key in ("verdict", "overlap")])
    for name in more:
        (copy / name).unlink()
    found = verify_run(copy)
    assert found.verdict.exit_code == 0
    assert found.certificate is not None
    assert found.certificate.overlap.proven


@pytest.mark.parametrize("rehashed", [True, False])
@pytest.mark.parametrize("sealed", [True, False])
def test_altered_log_of_a_background_disproves_the_overlap(copy: Path, *, rehashed: bool, sealed: bool) -> None:
    _end_early(copy)
    if rehashed:
        _rehash(copy, f"{DLRM}/{DETAIL}")
    if not sealed:
        (copy / CERTIFICATE).unlink()
    found = verify_run(copy)
    assert found.verdict.exit_code == 4
    assert f"{copy / RUN_JSON} contradicts the logs and the journal (overlap, verdict)" in _sentences(found)
    if sealed:
        assert f"{copy / CERTIFICATE} contradicts the logs and the journal (summary.overlap, " in _sentences(found)


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("simulated", lambda tree: tree.update(simulated=False)),
        ("level", lambda tree: tree.update(level="busy")),
        ("guards", lambda tree: tree["guards"].pop()),
        ("device_guards", lambda tree: tree["device_guards"][0].update(evidence="because I say so")),
        ("summary.overlap", lambda tree: tree["summary"]["overlap"].update(slack_after_s=99.0)),
        ("summary.main_result", lambda tree: tree["summary"]["main_result"]["metrics"].update(result_mean=1.0)),
        ("summary.clock", lambda tree: tree["summary"]["clock"].update(readings=1000)),
        ("summary.gap_threshold_s", lambda tree: tree["summary"].update(gap_threshold_s=60.0)),
        ("summary", lambda tree: tree.update(summary=None)),
    ],
)
def test_certificate_that_says_what_the_files_do_not(
    copy: Path, part: str, edit: Callable[[dict[str, Any]], object]
) -> None:
    _edit_json(copy / CERTIFICATE, edit)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"{copy / CERTIFICATE} contradicts the logs and the journal ({part}): it was altered" in _sentences(found)


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("verdict", lambda tree: tree["verdict"].update(status="lenient")),
        ("verdict", lambda tree: tree["verdict"].update(reasons=[{"exit_code": 5, "sentence": "No."}])),
        ("overlap", lambda tree: tree["overlap"].update(coverage=0.5)),
        ("workers", lambda tree: tree["workers"][0]["metrics"].update(result_samples_per_second=1e9)),
        ("simulated", lambda tree: tree.update(simulated=False)),
    ],
)
def test_record_that_says_what_the_files_do_not_although_rehashed(
    copy: Path, part: str, edit: Callable[[dict[str, Any]], object]
) -> None:
    _edit_json(copy / RUN_JSON, edit)
    _rehash(copy, RUN_JSON)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"{copy / RUN_JSON} contradicts the logs and the journal ({part}): it was altered" in _sentences(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 9}, "was written by another version of heteromig: its schema is 9"),
        ({"run_id": "another"}, "is of the run 'another', and the journal beside it of"),
        ({"verdict": 5}, "is not readable"),
    ],
)
def test_record_of_another_run_or_version(copy: Path, change: dict[str, Any], words: str) -> None:
    _edit_json(copy / RUN_JSON, lambda tree: tree.update(change))
    _rehash(copy, RUN_JSON)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The record {copy / RUN_JSON} {words}" in _sentences(found)


@pytest.mark.parametrize("kind", KINDS)
def test_record_that_is_no_regular_file(copy: Path, kind: str) -> None:
    _put(copy / RUN_JSON, kind)
    found = verify_run(copy)
    assert found.verdict.exit_code == 9
    assert f"The record {copy / RUN_JSON} is not a regular file" in _sentences(found)


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_moved_to_another_place_without_a_home_and_where_nothing_can_be_written(good: Path, tmp_path: Path) -> None:
    """As somebody else who was given the directory: nothing of the run's own paths is there."""
    elsewhere = tmp_path / "given away" / "by somebody"
    elsewhere.parent.mkdir()
    shutil.copytree(good, elsewhere)
    for path in (*elsewhere.rglob("*"), elsewhere):
        path.chmod(0o555 if path.is_dir() else 0o444)
    aside = good.with_name("aside")
    good.rename(aside)
    try:
        command = Command(
            tmp_path, ("verify", "--json", "by somebody"), environ={"HOME": "/nowhere"}, module="tests.e2e.quick",
            cwd=elsewhere.parent,
        )  # fmt: skip
        try:
            done = command.finish()
        finally:
            command.close()
    finally:
        aside.rename(good)
        for path in (elsewhere, *elsewhere.rglob("*")):
            path.chmod(0o755)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["notes"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_read_by_somebody_else(good: Path) -> None:
    """Another user, who owns nothing of it. All modules are there by then: he may not read where Python is."""
    lines = (
        "import os, sys, pathlib, tests.e2e.quick",
        "from heteromig.runner.verification import verify_run",
        "path = pathlib.Path(sys.argv[1])",
        "verify_run(path)",
        "os.setgid(65534); os.setuid(65534)",
        "sys.exit(verify_run(path).verdict.exit_code)",
    )
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        copy = shutil.copytree(good, Path(place, good.name))
        for path in copy.rglob("*"):  # most of it is for its owner alone, until he gives it away
            path.chmod(path.stat().st_mode | 0o044)
        argv = (sys.executable, "-c", "\n".join(lines), str(copy))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- bad input --------------------------------------------------------------------------------------------------------


def test_journal_of_a_newer_version_names_who_wrote_it(copy: Path) -> None:
    tool = b',"tool":{"name":"heteromig","version":"'
    newer = (b'"schema_version":3' + tool, b'"schema_version":9' + tool + b"9.")
    assert newer[0] in (copy / "events.jsonl").read_bytes()
    _journal(lambda lines: [lines[0].replace(*newer), *lines[1:]], copy)
    with pytest.raises(EvidenceError, match=r"its schema is 9, and this one reads 3\. Verify it with heteromig 9\."):
        verify_run(copy)
    _journal(lambda lines: [b'{"line":"header","schema_version":9,"tool":5}\n', *lines[1:]], copy)
    with pytest.raises(EvidenceError, match="Verify it with the version, which wrote it"):
        verify_run(copy)


def test_run_that_is_still_going(quick: Start) -> None:
    command = quick("--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    found = verify_run(command.run_dir)
    assert found.verdict.exit_code == 9
    assert f"The run is still going on: it is in main-running, and its controller is pid {command.pid}" in _sentences(
        found
    )
    said = _verify(command.home, str(command.run_dir))
    assert said.exit_code == 9
    assert "still going on" in " ".join(said.stdout.split())
    command.process.kill()
    command.process.wait()
    found = verify_run(command.run_dir)
    assert found.verdict.exit_code == 9
    assert f"its controller (pid {command.pid}) does not run here any more" in _sentences(found)


def test_another_process_with_the_pid_of_the_controller_is_not_taken_for_it(copy: Path) -> None:
    """This very process lives, and was started at another time."""
    path = copy / "events.jsonl"
    data = path.read_bytes()
    cut = data[: data.find(b'"event":"WorkerExited"')]
    path.write_bytes(re.sub(rb'"controller_pid":\d+', b'"controller_pid":%d' % os.getpid(), cut))
    assert "does not run here any more" in _sentences(verify_run(copy))


BIG = 100 << 20


@pytest.mark.parametrize("name", [f"{DLRM}/stdout.log", f"{DLRM}/{DETAIL}", f"{MAIN}/{DETAIL}", f"{MAIN}/{SUMMARY}"])
def test_lines_of_a_hundred_megabytes_in_logs(copy: Path, name: str) -> None:
    (copy / CERTIFICATE).unlink()
    path = copy / name
    head, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(head + b"\n" + BIG * b"x" + b"\n" + rest)
    assert verify_run(copy).verdict.exit_code == 0


def test_line_of_a_hundred_megabytes_in_the_journal(copy: Path) -> None:
    path = copy / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + BIG * b"x" + b"\n")
    with pytest.raises(EvidenceError, match=r"Line \d+ of the journal .* is not readable"):
        verify_run(copy)
    (copy / CERTIFICATE).unlink()
    path.write_bytes(whole + BIG * b"x")  # cut: all that is before it is used
    assert verify_run(copy).verdict.exit_code == 0


@pytest.mark.parametrize("name", [f"{DLRM}/stdout.log", f"{DLRM}/{DETAIL}", f"{MAIN}/{DETAIL}", f"{MAIN}/{SUMMARY}"])
@pytest.mark.parametrize(
    "rubbish", [b"\xff\xfe\x80\n", 5000 * b"\0" + b"\n", b':::MLLOG {"key": "result_x", "value": NaN}\n']
)
def test_rubbish_in_logs_is_no_trouble(copy: Path, name: str, rubbish: bytes) -> None:
    (copy / CERTIFICATE).unlink()
    path = copy / name
    path.write_bytes(rubbish + path.read_bytes() + rubbish)
    found = verify_run(copy)
    assert found.verdict.exit_code == 0, _sentences(found)


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_figures_of_main_that_are_no_numbers_are_unknown(copy: Path, figure: str) -> None:
    """They are left out, so that what is written with them can be read again."""
    path = copy / MAIN / DETAIL
    text = re.sub(r'("key": "result_mean_latency_ns", "value": )\d+', rf"\g<1>{figure}", path.read_text())
    assert figure in text
    path.write_text(text)
    found = verify_run(copy)
    assert found.certificate is not None
    assert "result_mean_latency_ns" not in found.certificate.main_result.metrics
    assert "result_max_latency_ns" in found.certificate.main_result.metrics


@pytest.mark.parametrize("text", [b"\xff", b'{"not_computed": "\xff"}', b"\0", b""])
def test_exit_record_that_is_no_text(copy: Path, text: bytes) -> None:
    (copy / CERTIFICATE).unlink()
    (copy / DLRM / "exit.json").write_bytes(text)
    assert verify_run(copy).verdict.exit_code == 0
