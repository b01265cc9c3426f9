"""What main left in NVIDIA's tree: copied into the run directory, and judged there."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import MainResult
from heteromig.core.plan import Assignment
from heteromig.core.units import NS_PER_MS, UtcNs
from heteromig.harnesses.judging import complaint_of_audit, complaints_of_errors, judge_performance
from heteromig.harnesses.make.catalog import SCENARIO_NAMES, directory_names
from heteromig.logs.detail import read_detail
from heteromig.logs.files import read_regular
from heteromig.logs.loadgen import DETAIL_LOG

COMPLIANCE_LOGS = Path("build", "compliance_logs")
LOGS = "logs"
"""Below a worker's directory: where LoadGen's logs lie in the end."""

_TRACE = "mlperf_log_trace.json"
"""Hundreds of bytes a sample, and evidence of nothing: it stays where it is."""
_SUMMARIES = ("perf_harness_summary.json", "accuracy_summary.json", "accuracy.txt")
_TIMESTAMP_NS = 20 * NS_PER_MS
"""As for engines: files are stamped with the time of the kernel's last tick."""

_VERIFY_PERFORMANCE = "verify_performance.txt"
_VERIFY_ACCURACY = "verify_accuracy.txt"
_PASS = re.compile(rb"^TEST PASS\b", re.MULTILINE)
"""What compliance scripts say of a test that passed; their exit code says nothing (run_verification.py)."""

_ACCURACY = re.compile(
    rb"Accuracy = (?P<value>\d+(?:\.\d+)?), Threshold = (?P<threshold>\d+(?:\.\d+)?)\. "
    rb"Accuracy test (?P<outcome>PASSED|FAILED)"
)
"""What the driver says of an AccuracyOnly run, in `accuracy_summary.json` and in its output."""
_ACCURACY_SUMMARY = "accuracy_summary.json"

_TRIAL = re.compile(rb"^TEST0\d trial \d+[ \t]*$", re.MULTILINE)
"""What the Makefile says before each trial of a compliance test (v2.1:760-784)."""
_REDEEMED = b"TEST01 failure redeemed via fallback approach"
"""What the driver says where answers differ from the accuracy run's, but are as good to within 1 % or 0.1 %: those of
harnesses that are not deterministic (code/main.py of v2.0, handle_audit_verification). Verify files do not tell."""
_FALLBACK_FILES = ("baseline_accuracy.txt", "compliance_accuracy.txt")


def copy_logs(source: Path, destination: Path) -> None:
    """Copy LoadGen's logs and the driver's summaries of one run, as they lie below its LOG_DIR.

    Raises:
        OSError: the file system does not let it.
    """
    for path in _regular_files(source):
        if (path.name.startswith("mlperf_log_") and path.name != _TRACE) or path.name in _SUMMARIES:
            _copy(path, destination / path.relative_to(source))


def copy_compliance(tree: Path, test: str, destination: Path, *, started_utc_ns: UtcNs) -> None:
    """Copy what was written for a compliance test since `started_utc_ns`; older files are of other runs.

    Raises:
        OSError: the file system does not let it.
    """
    for top in sorted((tree / COMPLIANCE_LOGS).glob(f"{test}*")):  # TEST04 of v1.1 and v2.0 is TEST04-A and TEST04-B
        for path in _regular_files(top):
            if path.stat().st_ctime_ns >= started_utc_ns - _TIMESTAMP_NS and path.name != _TRACE:
                _copy(path, destination / path.relative_to(tree / COMPLIANCE_LOGS))


def detail_logs(folder: Path, assignment: Assignment) -> tuple[Path, ...]:
    """LoadGen's detail logs of a benchmark and scenario below `folder`, in the order of their paths."""
    return tuple(path for path in sorted(folder.rglob(DETAIL_LOG)) if _is_of(path.relative_to(folder), assignment))


def _is_of(path: Path, assignment: Assignment) -> bool:
    """Whether a file lies in a directory of the benchmark and scenario."""
    names, scenario = directory_names(assignment.benchmark), SCENARIO_NAMES[assignment.scenario]
    return any(name in names and following == scenario for name, following in itertools.pairwise(path.parts))


def judge_last_performance(logs: tuple[Path, ...], main: Assignment) -> MainResult:
    """LoadGen's VALID, of the run that ended last.

    Raises:
        EvidenceError: there is no log, or it cannot be read.
    """
    detail = _last(logs, main)
    return judge_performance(detail, read_detail(detail), main)


def judge_accuracy(logs: tuple[Path, ...], folder: Path, output: Path, main: Assignment) -> MainResult:
    """Whether the driver says that the accuracy test passed; LoadGen itself does not judge answers.

    Raises:
        EvidenceError: nobody says so, or the run was none for accuracy.
    """
    detail = _last(logs, main)
    facts = read_detail(detail)
    if facts.test_mode != "AccuracyOnly":
        raise EvidenceError(f"{detail} is of a run in mode {facts.test_mode}, and AccuracyOnly was asked for.")
    if facts.audited:
        raise EvidenceError(f"{complaint_of_audit(detail)}.")
    said = _said_of_accuracy([*sorted(folder.rglob(_ACCURACY_SUMMARY)), output])
    if said is None:
        raise EvidenceError(f"Neither {_ACCURACY_SUMMARY} nor {output} says whether the accuracy test passed.")
    value, threshold = float(said["value"]), float(said["threshold"])
    metrics = {"accuracy": value, "accuracy_threshold": threshold}
    if facts.num_errors:
        return MainResult(valid=False, complaints=complaints_of_errors(facts), metrics=metrics)
    if said["outcome"] == b"PASSED" and value >= threshold:
        return MainResult(valid=True, complaints=(), metrics=metrics)
    return MainResult(
        valid=False, complaints=(f"accuracy {value:g} is below the threshold {threshold:g}",), metrics=metrics
    )


def judge_audit(logs: tuple[Path, ...], folder: Path, test: str, output: Path, main: Assignment) -> MainResult:
    """Whether the verify files of a compliance test say that it passed.

    LoadGen's own VALID is no part of it: TEST04 issues the same sample for less than a second, by design.

    Raises:
        EvidenceError: a verify file is missing, or LoadGen ran without the `audit.config` of the test.
    """
    detail = _last(logs, main)
    facts = read_detail(detail)
    if not facts.audited:
        raise EvidenceError(
            f"{detail} is of a run without an audit.config, so {test} was not done: another harness that starts in "
            "the tree removes it. Run again, with nothing else in the tree."
        )
    complaints = []
    for name in (_VERIFY_ACCURACY, _VERIFY_PERFORMANCE) if test == "TEST01" else (_VERIFY_PERFORMANCE,):
        files = [path for path in sorted(folder.rglob(name)) if _is_of(path.relative_to(folder), main)]
        if not files:
            raise EvidenceError(f"{test} left no {name} in {COMPLIANCE_LOGS}/{test}, so nobody says that it passed.")
        complaints += [
            f"{path.relative_to(folder)} does not say TEST PASS"
            for path in files
            if _PASS.search(read_regular(path, "The verification")) is None
            and not (name == _VERIFY_ACCURACY and _is_redeemed(path, output))
        ]
    return MainResult(valid=not complaints, complaints=tuple(complaints), metrics=facts.metrics)


def _is_redeemed(verify_accuracy: Path, output: Path) -> bool:
    """Whether the last trial compared accuracies instead of answers, and says that they agree."""
    accuracy = verify_accuracy.with_name("accuracy")
    try:
        said = read_regular(output, "The output")
    except FileNotFoundError:
        return False
    begins = [match.start() for match in _TRIAL.finditer(said)]
    return all((accuracy / name).is_file() for name in _FALLBACK_FILES) and _REDEEMED in said[max(begins, default=0) :]


def _last(logs: tuple[Path, ...], main: Assignment) -> Path:
    if not logs:
        raise EvidenceError(
            f"It left no LoadGen log of {main.benchmark} {main.scenario}: the tree may not know this system or "
            f"{main.config_ver}; see {main.directory}/stdout.log."
        )
    return max(logs, key=lambda path: read_detail(path).power_end_utc_ns or 0)


def _said_of_accuracy(files: list[Path]) -> re.Match[bytes] | None:
    for path in files:
        try:
            found = list(_ACCURACY.finditer(read_regular(path, "The accuracy")))
        except FileNotFoundError:
            continue
        if found:
            return found[-1]
    return None


def _regular_files(top: Path) -> Iterator[Path]:
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
