from __future__ import annotations

from typing import Any

import msgspec
import pytest

from heteromig.core.record import (
    ObserverRecord,
    PhaseRecord,
    PreparationRecord,
    ReplacedSlice,
    RunRecord,
    VerdictRecord,
)
from heteromig.core.verdict import EXIT_CODES, Reason
from heteromig.views.summary import summary
from tests.views.records import NOT_KNOWN, RUN_DIR, failed, make_overlap, make_record, make_worker
from tests.views.stories import covered

NOTHING = make_overlap(**NOT_KNOWN)


def lines_of(record: RunRecord, width: int = 120) -> list[str]:
    return summary(record, RUN_DIR, width).plain.splitlines()


def text_of(record: RunRecord, width: int = 400) -> str:
    return summary(record, RUN_DIR, width).plain


def test_a_valid_run_as_a_person_reads_it() -> None:
    assert lines_of(make_record(), width=140) == [
        "VALID (exit 0): main is VALID, and every background was timed during the whole timed section of main.",
        "SIMULATED: no GPU was involved, and this is not a measurement of a GPU.",
        "",
        "Main         resnet50 offline, performance, accuracy 99, on 1g.10gb, beside 2 backgrounds",
        "Result       1234.56 samples/s",
        "Overlap      proven: at worst coverage 100 %, slack +5.321 s before and +1.512 s after main",
        "  BACKGROUND  TIMED DURING MAIN  COVERAGE      BEFORE       AFTER  EVIDENCE",
        "  1 bert      yes                   100 %    +5.321 s    +1.512 s  timed",
        "  2 dlrm      yes                   100 %    +6.321 s    +2.512 s  timed",
        "Observer     0.40 s of CPU, 345 wake-ups; sampler 0.21 s; while main ran 0.05 s (0.4 % of a core)",
        f"Files        {RUN_DIR}",
        "Next         Prove this verdict again, from the files alone:",
        f"               heteromig verify {RUN_DIR}",
    ]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_lines_keep_to_the_width_except_what_is_to_be_copied(width: int) -> None:
    for line in lines_of(make_record(verdict=failed("failed", 5, "Something " * 30)), width):
        assert len(line) <= width or RUN_DIR in line or "BACKGROUND" in line or " bert " in line or " dlrm " in line


def test_coverage_is_never_rounded_up_to_all() -> None:
    gap = msgspec.structs.replace(covered(1, "bert"), covered=False, coverage=0.99999, slack_after_s=-0.0004)
    text = text_of(make_record(overlap=make_overlap(gap, proven=False, coverage=0.99999, slack_after_s=-0.0004)))
    assert "NOT proven: at worst coverage 99.9 %, slack +5.321 s before and -0.000 s after main" in text
    assert "1 bert      NO                   99.9 %" in text


def test_what_the_evidence_does_not_decide_is_unknown() -> None:
    blank = msgspec.structs.replace(
        covered(1, "bert"), covered=None, coverage=None, slack_before_s=None, slack_after_s=None
    )
    text = text_of(make_record(overlap=make_overlap(blank, **NOT_KNOWN)))
    assert "NOT proven: at worst coverage unknown, slack unknown before and unknown after main" in text
    assert "1 bert      not proven          unknown     unknown     unknown  timed" in text


def test_server_results_have_latencies_and_accuracy_results_a_target() -> None:
    metrics = {
        "result_completed_samples_per_sec": 980.25,
        "result_mean_latency_ns": 3_200_000.0,
        "result_99.00_percentile_latency_ns": 9_870_000.0,
    }
    server = make_worker(0, "resnet50", scenario="server", metrics=metrics)
    assert "Result       980.25 samples/s; latency mean 3.20 ms, p99 9.87 ms\n" in text_of(
        make_record(workers=(server,))
    )
    accuracy = make_worker(
        0, "resnet50", mode="accuracy", metrics={"accuracy_percent": 99.417, "accuracy_target_percent": 99.0}
    )
    assert "Result       accuracy 99.42 % (at least 99 % is needed)\n" in text_of(make_record(workers=(accuracy,)))


def test_figures_of_programs_have_their_own_names() -> None:
    own = {"p99_ms": 12.34567891, "rounds": 400.0}
    program = make_worker(0, "mine", metrics=own)
    assert "Result       p99_ms 12.3457, rounds 400\n" in text_of(make_record(workers=(program,)))
    both = make_worker(0, "mine", metrics={"result_samples_per_second": 50.0, **own})
    assert "Result       p99_ms 12.3457, rounds 400; 50 samples/s\n" in text_of(make_record(workers=(both,)))


def test_an_invalid_program_is_looked_into_by_its_output() -> None:
    record = make_record(harness="command", verdict=failed("invalid", 3, "Main is not VALID."))
    text = text_of(record)
    assert "See what main 0 (resnet50) said last:" in text
    assert f"tail {RUN_DIR}/workers/0-main-resnet50/stdout.log" in text
    assert "LoadGen" not in text


def test_the_result_of_a_stream_is_a_latency_and_what_is_better() -> None:
    metrics = {
        "early_stopping_latency_ss": 2_148_764.0,
        "early_stopping_latency_ms": 9_999_999.0,
        "result_90.00_percentile_latency_ns": 2_133_070.0,
    }
    single = make_worker(0, "resnet50", scenario="singlestream", metrics=metrics)
    assert (
        "Result       90th percentile of latency 2.149 ms (lower is better); observed latency p90 2.13 ms\n"
        in text_of(make_record(workers=(single,)))
    )
    multi = make_worker(0, "resnet50", scenario="multistream", metrics=metrics)
    assert (
        "Result       99th percentile of latency of queries of 8 samples 10 ms (lower is better); observed"
        in text_of(make_record(workers=(multi,)))
    )
    cut = make_worker(0, "resnet50", scenario="multistream", metrics={"early_stopping_latency_ms": 0.0})
    assert "Result       none: main has no result\n" in text_of(make_record(workers=(cut,)))


def test_a_run_alone_does_not_speak_of_neighbours() -> None:
    text = text_of(
        make_record(workers=(make_worker(0, "resnet50"),), overlap=make_overlap(**{**NOT_KNOWN, "proven": True}))
    )
    assert text.startswith("VALID (exit 0): main is VALID; there was no background.\n")
    assert "beside 0 backgrounds" in text
    assert "Overlap      proven: there was no background" in text


def test_all_reasons_are_listed_the_weightiest_first() -> None:
    verdict = VerdictRecord("failed", 7, (Reason(7, "The GPU is gone."), Reason(5, "Main died.")))
    lines = lines_of(make_record(verdict=verdict, simulated=False))
    assert lines[:2] == ["FAILED (exit 7): The GPU is gone.", "  - Main died. (exit 5)"]
    assert "SIMULATED" not in "\n".join(lines)


def test_lenient_is_not_called_valid() -> None:
    text = text_of(make_record(verdict=VerdictRecord("lenient", 0, (Reason(5, "Background 1 (bert) died."),))))
    assert text.startswith(
        "LENIENT (exit 0): the run went on in spite of what is listed below, so it proves nothing.\n"
    )
    assert "  - Background 1 (bert) died. (exit 5)" in text
    assert "is VALID" not in text


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (3, f"ls {RUN_DIR}/workers/0-main-resnet50"),
        (3, "--main-benchmark-duration"),
        (4, "--background-benchmark-duration"),
        (4, f"tail {RUN_DIR}/workers/2-background-dlrm/stdout.log"),
        (5, f"tail {RUN_DIR}/workers/1-background-bert/stdout.log"),
        (6, "--background-start-timeout"),
        (6, f"tail {RUN_DIR}/workers/3-background-rnnt/stdout.log"),
        (7, "heteromig slices"),
        (7, "heteromig run --slices sim:a100-sxm-80gb"),
        (9, "What is missing is named above"),
        (143, "start it again"),
    ],
)
def test_each_failure_says_what_to_do_next(exit_code: int, expected: str) -> None:
    record = make_record(
        simulated=False,
        workers=(
            make_worker(0, "resnet50"),
            make_worker(1, "bert", exit_code=None, signal=11, stopped_by=None),
            make_worker(2, "dlrm", stopped_by=None),
            make_worker(3, "rnnt", timed_begin=None),
            make_worker(4, "never", pid=None, timed_begin=None, exit_code=None, stopped_by=None),
        ),
        verdict=failed("failed", exit_code, "Because."),
    )
    text = text_of(record)
    assert expected in text
    assert f"heteromig verify {RUN_DIR}" in text
    assert "4-background-never" not in text


@pytest.mark.parametrize(
    ("changes", "advice"),
    [({"mode": "accuracy"}, "--rebuild"), ({"scenario": "server"}, "fewer queries"), ({}, "Run longer")],
)
def test_advice_for_an_invalid_main_fits_its_kind(changes: dict[str, str], advice: str) -> None:
    main = make_worker(0, "resnet50", **changes)
    assert advice in text_of(make_record(workers=(main,), verdict=failed("invalid", 3, "Main is not VALID.")))


@pytest.mark.parametrize("exit_code", [code for code, _, _ in EXIT_CODES])
def test_a_record_that_knows_next_to_nothing_is_shown_for_every_exit_code(exit_code: int) -> None:
    record = make_record(
        ended_at=None,
        phase="discovering",
        slices=(),
        workers=(),
        overlap=NOTHING,
        observer=ObserverRecord(0.1, None, 3, ()),
        phases=(PhaseRecord("discovering", "2026-04-01T12:00:00Z", None),),
        verdict=VerdictRecord("failed", exit_code, ()),
    )
    text = text_of(record)
    assert text.startswith(f"FAILED (exit {exit_code}): no reason is recorded.")
    assert "sampler unknown" in text
    assert "None" not in text


def test_a_run_without_verdict_is_unfinished() -> None:
    main = make_worker(0, "resnet50", metrics={}, timed_begin=None, timed_end=None, exit_code=None)
    text = text_of(
        make_record(
            verdict=None,
            phase="main-running",
            workers=(main,),
            overlap=NOTHING,
            phases=(PhaseRecord("main-running", "2026-04-01T12:00:09Z", None),),
        )
    )
    assert text.startswith("UNFINISHED: the run was last heard of in main-running, at 2026-04-01T12:00:30.000Z.")
    assert "Result       none: main has no result" in text
    assert "while main ran 0.05 s\n" in text
    assert "Overlap" not in text


def test_a_build_speaks_of_engines_only() -> None:
    text = text_of(make_record(goal="build", verdict=VerdictRecord("built", 0, ())))
    assert text.startswith("BUILT (exit 0): every engine is there.")
    assert "Result" not in text
    assert "heteromig run, with the same options" in text


def test_a_stay_of_no_length_has_no_share() -> None:
    at = "2026-04-01T12:00:09.000Z"
    assert "while main ran 0.05 s\n" in text_of(make_record(phases=(PhaseRecord("main-running", at, at),)))


def test_what_was_left_out_is_said() -> None:
    assert "Left out     rnnt, 3d-unet, for want of slices" in text_of(make_record(left_out=("rnnt", "3d-unet")))


def test_reasons_cannot_carry_escapes_or_markup() -> None:
    text = text_of(make_record(verdict=failed("failed", 5, "It said \x1b[31m[bold]boo[/bold]\x07.")))
    assert text.startswith("FAILED (exit 5): It said [bold]boo[/bold].\n")


def _in_the_tree(target: str = "run_harness", **changes: Any) -> RunRecord:
    main = make_worker(
        0,
        "bert",
        config_ver="hetero_high_accuracy",
        accuracy="99.9",
        command=("make", target, "RUN_ARGS=--benchmarks=bert"),
        env={"CUDA_VISIBLE_DEVICES": "MIG-0", "LOG_DIR": "build/logs/2026.04.01-12.00.00"},
        **changes,
    )
    return make_record(harness="make", workers=(main,))


def test_a_run_in_nvidias_tree_names_its_configuration_and_its_logs() -> None:
    lines = lines_of(_in_the_tree())
    assert "Main         bert offline, performance, accuracy 99.9 (hetero_high_accuracy), on 1g.10gb, beside 0" in (
        "\n".join(lines)
    )
    assert "Logs         build/logs/2026.04.01-12.00.00 (in NVIDIA's tree)" in lines
    lines = lines_of(_in_the_tree(target="run_audit_test01"))
    assert lines[3].startswith("Main         bert offline, run_audit_test01, accuracy")
    assert "Logs         build/compliance_logs/TEST01 (in NVIDIA's tree)" in lines
    assert "Logs" not in text_of(make_record())


def test_accuracy_in_the_unit_of_nvidias_tree() -> None:
    record = _in_the_tree(mode="accuracy", metrics={"accuracy": 90.8765, "accuracy_threshold": 90.783})
    assert "Result       accuracy 90.8765 (at least 90.783 is needed)\n" in text_of(record)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"scenario": "server"}, "fewer queries a second with --main-target-qps"),
        ({"scenario": "offline"}, "state the rate with --main-target-qps"),
        ({"target": "run_audit_test04"}, "The verify files of the compliance test, beside the logs"),
    ],
)
def test_advice_for_an_invalid_main_in_nvidias_tree(changes: dict[str, str], advice: str) -> None:
    record = msgspec.structs.replace(_in_the_tree(**changes), verdict=failed("invalid", 3, "Main is INVALID."))
    assert advice in text_of(record)


def test_what_changes_no_verdict_is_noted() -> None:
    notes = tuple(f"Slice MIG-{number}, which is not part of the run, was used by \x1b[31mevil." for number in range(7))
    lines = lines_of(make_record(notes=notes[:1]))
    assert "Noted        Slice MIG-0, which is not part of the run, was used by evil." in lines
    lines = lines_of(make_record(notes=notes))
    assert [line[13:18] for line in lines if line.startswith((" " * 13 + "Slice", "Noted"))] == ["Slice"] * 5
    assert "             ... and 2 more, in run.json" in lines


CUT = PreparationRecord(
    kind="layout",
    gpu_uuid="GPU-0",
    what="It was cut for this run: 2x3g.40gb.",
    replaced=(ReplacedSlice("MIG-0", None), ReplacedSlice(None, "MIG-8")),
    restored=True,
    sentence="The GPU is cut as before the run: 7x1g.10gb.",
    returned=(ReplacedSlice("MIG-0", "MIG-9"), ReplacedSlice("MIG-1", "MIG-1"), ReplacedSlice(None, "MIG-7")),
)


def test_what_was_done_to_the_gpu_and_what_became_of_its_slices() -> None:
    text = text_of(make_record(preparation=CUT))
    assert "Prepared     It was cut for this run: 2x3g.40gb. The GPU is cut as before the run: 7x1g.10gb. " in text
    assert "1 slice got another UUID by that: run.json has them all, under preparation.\n" in text
    assert "heteromig mig restore" not in text
    same = msgspec.structs.replace(CUT, returned=())
    assert "another UUID" not in text_of(make_record(preparation=same))


def test_a_gpu_that_the_next_run_has_is_not_left_behind() -> None:
    kept = msgspec.structs.replace(CUT, restored=None, sentence="It stays so for the next run.", returned=())
    text = text_of(make_record(preparation=kept))
    assert "Prepared     It was cut for this run: 2x3g.40gb. It stays so for the next run.\n" in text
    assert "mig restore" not in text


@pytest.mark.parametrize("how", [{"restored": False}, {"restored": None}])
def test_a_gpu_that_is_not_back_has_a_next_step(how: dict[str, bool | None]) -> None:
    left = msgspec.structs.replace(CUT, **how, sentence=None, returned=())
    text = text_of(make_record(preparation=left, verdict=failed("failed", 7, "It is in use.")))
    assert "It is not known to be as before again.\n" in text
    assert f"heteromig mig restore {RUN_DIR}\n" in text
    told = msgspec.structs.replace(left, restored=False, sentence="It is in use: heteromig mig restore crew-1 goes on.")
    text = text_of(make_record(preparation=told, verdict=failed("failed", 7, "It is in use.")))
    assert "It was cut for this run: 2x3g.40gb. It is in use: heteromig mig restore crew-1 goes on." in text
    assert f"heteromig mig restore {RUN_DIR}" not in text
    never = msgspec.structs.replace(left, what=None)
    text = text_of(make_record(preparation=never, verdict=failed("failed", 7, "It is in use.")))
    assert "Prepared" not in text
    assert "mig restore" not in text
