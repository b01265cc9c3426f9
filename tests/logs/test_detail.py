from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromig.core.errors import EvidenceError
from heteromig.logs.detail import (
    POWER_RESOLUTION_NS,
    read_detail,
    read_summary,
)
from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG
from tests.logs.loadgen_runs import run_loadgen
from tests.logs.recorded import KILLED, SUBMISSION


def utc_ns(text: str) -> int:
    reading = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
    return round(reading.timestamp() * 1000) * 1_000_000


def line(key: str, value: object, time_ms: float = 1.0, *, is_error: bool = False) -> str:
    entry = {"key": key, "value": value, "time_ms": time_ms, "metadata": {"is_error": is_error}}
    return f":::MLLOG {json.dumps(entry)}\n"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines))
    return path


class TestRealRuns:
    def test_an_audit_config(self, tmp_path: Path) -> None:
        for name in ("plain", "audit"):
            (tmp_path / name).mkdir()
        (tmp_path / "audit" / "no-audit.config").write_text("*.*.mode = 2\n")
        for name in ("plain", "audit"):
            run_loadgen(tmp_path / name / "logs", "Offline", cwd=tmp_path / name)
        assert not read_detail(tmp_path / "plain" / "logs" / DETAIL_LOG).audited
        assert read_detail(tmp_path / "audit" / "logs" / DETAIL_LOG).audited

    @pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
    def test_offline(self, tmp_path: Path, zone: str) -> None:
        before_ns = time.time_ns()
        run_loadgen(tmp_path / "logs", "Offline", timezone=zone)
        after_ns = time.time_ns()

        facts = read_detail(tmp_path / "logs" / DETAIL_LOG)

        assert facts.power_begin_utc_ns is not None
        assert facts.power_end_utc_ns is not None
        assert before_ns - POWER_RESOLUTION_NS <= facts.power_begin_utc_ns
        assert facts.power_begin_utc_ns + 250_000_000 <= facts.power_end_utc_ns <= after_ns
        assert facts.has_end_key
        assert (facts.scenario, facts.test_mode) == ("Offline", "PerformanceOnly")
        assert (facts.min_duration_ms, facts.samples_per_query, facts.target_qps) == (300, 330, 1000.0)
        assert (facts.num_errors, facts.errors, facts.unreadable_lines) == (0, (), 0)
        assert facts.metrics["result_samples_per_second"] == pytest.approx(1000, rel=0.5)
        assert facts.metrics["result_99.00_percentile_latency_ns"] > 1e8
        assert facts.perf_constraints_met is None
        assert facts.min_queries_met is True
        assert facts.valid == read_summary(tmp_path / "logs" / SUMMARY_LOG)

    def test_server(self, tmp_path: Path) -> None:
        run_loadgen(tmp_path / "logs", "Server")

        facts = read_detail(tmp_path / "logs" / DETAIL_LOG)

        assert facts.scenario == "Server"
        assert isinstance(facts.perf_constraints_met, bool)
        assert isinstance(facts.early_stopping_met, bool)
        assert facts.metrics["result_completed_samples_per_sec"] > 100
        assert "result_scheduled_samples_per_sec" in facts.metrics

    def test_accuracy_has_no_result(self, tmp_path: Path) -> None:
        run_loadgen(tmp_path / "logs", "Offline", "AccuracyOnly")

        facts = read_detail(tmp_path / "logs" / DETAIL_LOG)

        assert facts.test_mode == "AccuracyOnly"
        assert facts.power_end_utc_ns is not None
        assert facts.valid is None
        assert facts.metrics == {}
        assert read_summary(tmp_path / "logs" / SUMMARY_LOG) is None


class TestRecordings:
    def test_a_submission_run(self) -> None:
        facts = read_detail(SUBMISSION)

        assert facts.power_begin_utc_ns == utc_ns("2026-11-23 23:55:57.975")
        assert facts.power_end_utc_ns == utc_ns("2026-11-23 23:55:58.477")
        assert facts.timed_begin_offset_ns == 71_394_969

    def test_a_submission_run_killed_in_its_second_part_has_no_end(self, tmp_path: Path) -> None:
        text = SUBMISSION.read_text()
        cut = tmp_path / "cut"
        cut.write_text(text[: text.rindex(':::MLLOG {"key": "logger_swap_request_slots_retry_count"')])

        facts = read_detail(cut)

        assert not facts.has_end_key
        assert facts.power_begin_utc_ns is None
        assert facts.timed_begin_offset_ns == 71_394_969

    def test_a_log_cut_anywhere_can_be_read(self, tmp_path: Path) -> None:
        data = SUBMISSION.read_bytes()
        whole = read_detail(SUBMISSION)
        cut = tmp_path / "cut"
        for size in range(0, len(data), 997):
            cut.write_bytes(data[:size])
            facts = read_detail(cut)
            assert facts.unreadable_lines == 0
            assert facts.metrics.items() <= whole.metrics.items()


class TestOddLogs:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceError, match="absent cannot be read: No such file"):
            read_detail(tmp_path / "absent")

    @pytest.mark.parametrize("read", [read_detail, read_summary])
    @pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
    def test_no_regular_file(self, tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
        path = tmp_path / "log"
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(EvidenceError, match="log is not a regular file"):
            read(path)

    def test_empty(self, tmp_path: Path) -> None:
        facts = read_detail(write(tmp_path / "log"))
        assert msgspec.structs.asdict(facts) == {
            **dict.fromkeys(facts.__struct_fields__),
            "has_end_key": False,
            "num_errors": 0,
            "errors": (),
            "audited": False,
            "ended_by_queue": False,
            "metrics": {},
            "unreadable_lines": 0,
        }
        assert read_summary(write(tmp_path / "summary")) is None

    def test_numbers_that_json_does_not_know(self, tmp_path: Path) -> None:
        facts = read_detail(
            write(
                tmp_path / "log",
                line("result_samples_per_second", math.inf),
                line("result_mean_latency_ns", math.nan),
                line("result_min_latency_ns", value=True),
                line("early_stopping_latency_ss", 5),
            )
        )
        assert facts.metrics["result_samples_per_second"] == math.inf
        assert math.isnan(facts.metrics["result_mean_latency_ns"])
        assert facts.metrics["early_stopping_latency_ss"] == 5.0
        assert set(facts.metrics) == {
            "result_samples_per_second",
            "result_mean_latency_ns",
            "early_stopping_latency_ss",
        }

    @pytest.mark.parametrize(
        ("time_ms", "offset_ns"),
        [
            ("18446744073709.26", -291_616),
            ("12.5", 12_500_000),
            ("NaN", None),
            ("-1", None),
            ("1e300", None),
            (400 * "9", None),
            ('"x"', None),
        ],
    )
    def test_times(self, tmp_path: Path, time_ms: str, offset_ns: int | None) -> None:
        facts = read_detail(
            write(tmp_path / "log", f':::MLLOG {{"key": "generated_query_count", "value": 1, "time_ms": {time_ms}}}\n')
        )
        if offset_ns is None:
            assert facts.timed_begin_offset_ns is None
        else:
            # A double of that size is exact to 4 microseconds.
            assert facts.timed_begin_offset_ns == pytest.approx(offset_ns, abs=4000)

    def test_errors(self, tmp_path: Path) -> None:
        facts = read_detail(
            write(
                tmp_path / "log",
                *(line("error_runtime", f"message {number}", is_error=True) for number in range(9)),
                line("num_errors", 9),
            )
        )
        assert facts.num_errors == 9
        assert facts.errors == tuple(f"error_runtime: message {number}" for number in range(5))

    def test_errors_before_loadgen_counted_them(self, tmp_path: Path) -> None:
        facts = read_detail(
            write(tmp_path / "log", *(line("error_runtime", number, is_error=True) for number in range(9)))
        )
        assert facts.num_errors == 9

    @pytest.mark.parametrize("told", [(), (line("num_errors", 2),)])
    def test_how_loadgen_was_built_is_no_error_of_the_run(self, tmp_path: Path, told: tuple[str, ...]) -> None:
        facts = read_detail(
            write(
                tmp_path / "log",
                line("error_uncommitted_loadgen_changes", "Built with changes", is_error=True),
                line("error_runtime", "message", is_error=True),
                *told,
            )
        )
        assert (facts.num_errors, facts.errors) == (1, ("error_runtime: message",))

    def test_an_error_of_several_lines(self, tmp_path: Path) -> None:
        text = line("generic_message", "x") + line("error_runtime", "one@two", is_error=True)
        facts = read_detail(write(tmp_path / "log", text.replace("@", "\n")))
        assert facts.errors == ("error_runtime: one two",)

    def test_an_error_in_a_line_that_was_cut(self, tmp_path: Path) -> None:
        text = line("generic_message", "x") + line("error_runtime", "message", is_error=True)
        facts = read_detail(write(tmp_path / "log", text[:-3]))
        assert len(facts.errors) == 1
        assert "error_runtime" in facts.errors[0]

    def test_values_of_the_wrong_kind_are_unknown(self, tmp_path: Path) -> None:
        keys = (
            "power_begin",
            "result_validity",
            "result_min_duration_met",
            "num_errors",
            "effective_scenario",
            "effective_target_qps",
        )
        facts = read_detail(write(tmp_path / "log", *(line(key, [1]) for key in keys)))
        assert facts.has_end_key
        assert [facts.power_begin_utc_ns, facts.valid, facts.min_duration_met] == [None] * 3
        assert [facts.scenario, facts.target_qps] == [None] * 2
        assert facts.num_errors == 0

    def test_unreadable_lines_are_counted(self, tmp_path: Path) -> None:
        facts = read_detail(
            write(
                tmp_path / "log",
                "noise\n",
                line("effective_scenario", "Server"),
                ':::MLLOG {"key": "num_errors", "value": }\n',
                ':::MLLOG {"key": "num_errors"}\n',
                "\n",
                "cut",
            )
        )
        assert facts.scenario == "Server"
        assert facts.unreadable_lines == 4

    def test_messages_with_line_breaks(self, tmp_path: Path) -> None:
        text = "".join(
            (
                line("result_invalid_reason", "one@ * two@"),
                "noise\n",
                line("result_min_duration_met", value=False),
                line("early_stopping_met@", value=False),
                line("result_validity", "INVALID"),
            )
        )
        facts = read_detail(write(tmp_path / "log", text.replace("@", "\n")))
        assert facts.invalid_reason == "one  * two "
        assert (facts.min_duration_met, facts.early_stopping_met, facts.valid) == (False, None, False)
        assert facts.unreadable_lines == 2

    def test_line_ends_of_another_system(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(SUBMISSION.read_bytes().replace(b"\n", b"\r\n"))
        assert read_detail(tmp_path / "log") == read_detail(SUBMISSION)

    def test_a_flood_of_warnings_is_skipped(self, tmp_path: Path) -> None:
        head, key, rest = KILLED.read_text().partition(':::MLLOG {"key": "generic_message", "value": "Ending')
        flood = line("warning_generic_message", "CAS failed.") * 10_000
        facts = read_detail(
            write(tmp_path / "log", head, flood, key, rest, line("power_end", "11-23-2026 21:10:05.000"))
        )
        assert facts.power_end_utc_ns == utc_ns("2026-11-23 21:10:05.000")
        assert facts.min_duration_ms == 5000
        assert facts.unreadable_lines == 0

    @given(
        st.lists(
            st.one_of(st.binary(max_size=80), st.sampled_from(SUBMISSION.read_bytes().splitlines()[55:])), max_size=30
        )
    )
    @settings(deadline=None)
    def test_garbage(self, tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
        path = tmp_path_factory.mktemp("garbage") / "log"
        path.write_bytes(b"\n".join(lines))
        facts = read_detail(path)
        assert 0 <= facts.unreadable_lines <= path.read_bytes().count(b"\n")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("Scenario : Offline\nResult is : VALID\n", True),
        ("Result is : INVALID\n  Min duration satisfied : NO\n", False),
        ("No errors encountered during test.\n", None),
        ("Result is : VALI", None),
    ],
)
def test_summary(tmp_path: Path, text: str, valid: bool | None) -> None:  # noqa: FBT001 - pytest passes by name
    assert read_summary(write(tmp_path / "summary", text)) is valid
