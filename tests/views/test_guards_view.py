from __future__ import annotations

import itertools
from typing import Any

from heteromig.core.device_guards import DeviceFinding
from heteromig.core.guards import Status
from heteromig.core.verdict import Verdict
from heteromig.views.summary import summary
from heteromig.views.verification import verification
from tests.views.records import RUN_DIR, failed, make_record, make_worker
from tests.views.test_verification import Found

REMARK = "Main was measured while GPU GPU-0 was slowed down by heat for 3.2 s."
SLOWED = DeviceFinding(
    "not_slowed_down", "GPU-0", Status.VIOLATED, "thermal 0.000 s", "thermal 3.200 s", "slowed down by heat", REMARK
)
XID = DeviceFinding("no_fault_reported", "GPU-0", Status.VIOLATED, "0 reported", "1 reported", "Xid 79 on GPU-0.")
FINE = DeviceFinding("geometry_unchanged", "GPU-0", Status.OK, "a1b2", "a1b2", "the same in 60 samples")


def blind(guard: str, scope: str, why: str) -> DeviceFinding:
    return DeviceFinding(guard, scope, Status.NOT_OBSERVABLE, None, None, why)


def lines_of(*findings: DeviceFinding, **changes: Any) -> list[str]:
    record = make_record(device_guards=findings, simulated=False, **changes)
    return summary(record, RUN_DIR, 120).plain.splitlines()


def guards_in(lines: list[str]) -> list[str]:
    """What is said beside `Guards`, up to the next word in the margin."""
    begin = next((number for number, line in enumerate(lines) if line.startswith("Guards ")), len(lines))
    margins = ("Guards ", " " * 13)
    return [line[13:] for line in itertools.takewhile(lambda line: line.startswith(margins), lines[begin:])]


def test_a_good_run_has_no_line_about_guards() -> None:
    assert guards_in(lines_of(FINE)) == []


def test_a_remark_is_beside_the_verdict_and_not_among_the_notes_again() -> None:
    lines = lines_of(FINE, SLOWED, notes=(REMARK, "Something else."))
    assert lines[0].startswith("VALID (exit 0)")
    assert lines[1] == REMARK
    assert "Noted        Something else." in lines
    assert sum(REMARK in line for line in lines) == 1
    assert guards_in(lines) == ["not slowed down: violated on GPU-0: slowed down by heat"]


def test_of_what_ended_the_run_only_the_values_are_told_again() -> None:
    lines = lines_of(XID, verdict=failed("failed", 7, "Xid 79 on GPU-0."))
    assert guards_in(lines) == ["no fault reported: violated on GPU-0: 0 reported before, 1 reported after"]


def test_what_is_alike_is_told_once() -> None:
    findings = [blind("only_own_processes", f"MIG-{number}", "they are hidden") for number in range(7)]
    lines = lines_of(*findings, blind("memory_returned", "MIG-3", "the device does not show its memory"))
    assert guards_in(lines) == [
        "only own processes: not observable on 7 of them: they are hidden",
        "memory returned: not observable on MIG-3: the device does not show its memory",
    ]


def test_what_could_not_be_seen_matters_where_there_is_a_measurement() -> None:
    unseen = blind("not_slowed_down", "GPU-0", "main's timed section never began")
    never = make_worker(0, "resnet50", timed_begin=None, timed_end=None)
    assert guards_in(lines_of(unseen, workers=(never,))) == []
    assert len(guards_in(lines_of(unseen))) == 1


def test_that_a_simulated_gpu_is_not_slowed_down_goes_without_saying() -> None:
    unseen = blind("not_slowed_down", "SIM-GPU-0", "the driver does not count slowdowns by heat")
    hidden = blind("only_own_processes", "SIM-MIG-0", "they are hidden")
    text = summary(make_record(device_guards=(unseen, hidden)), RUN_DIR, 120).plain
    assert "not slowed down" not in text
    assert "Guards       only own processes: not observable on SIM-MIG-0: they are hidden" in text


def test_a_process_cannot_name_itself_into_the_terminal() -> None:
    evil = DeviceFinding("only_own_processes", "MIG-0", Status.VIOLATED, None, None, "pid 5 (\x1b[31mevil)")
    assert guards_in(lines_of(evil)) == ["only own processes: violated on MIG-0: pid 5 (evil)"]


def test_a_verification_tells_the_recomputed_ones() -> None:
    found = Found(Verdict("valid", 0, ()), device_guards=(FINE, SLOWED, blind("memory_returned", "MIG-1", "why")))
    lines = verification(found, RUN_DIR, 120).plain.splitlines()
    assert lines[1] == REMARK
    assert guards_in(lines) == ["not slowed down: violated on GPU-0: slowed down by heat"]
