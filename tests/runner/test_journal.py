from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from heteromig.core import effects as ef
from heteromig.core.errors import EvidenceError
from heteromig.runner.journal import JOURNAL, SCHEMA_VERSION, Asked, Header, Heard, Journal, read_journal
from heteromig.runner.recording import TOOL
from tests.core.histories import SPEC
from tests.core.test_journal_types import EXAMPLES, rich_history

HEADER = Header(
    schema_version=SCHEMA_VERSION,
    tool=TOOL,
    run_id="r",
    at_ns=5_000_000_000,
    at_utc_ns=1_700_000_000_000_000_000,
    spec=SPEC,
)


def _write(run_dir: Path, *lines: Header | Heard | Asked) -> None:
    journal = Journal(run_dir)
    for line in lines:
        journal.write(line)
    journal.sync()
    journal.close()


def test_every_event_and_effect_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = rich_history()
    heard = [Heard(number, event) for number, event in enumerate((*EXAMPLES, *history.events), start=1)]
    lines: tuple[Heard | Asked, ...] = (*heard, *(Asked(effect) for effect in history.effects))
    _write(tmp_path, HEADER, *lines)
    text = read_journal(tmp_path)
    assert text.header == HEADER
    assert text.lines == lines
    assert text.events == (*EXAMPLES, *history.events)
    assert not text.cut


def test_lines_of_one_call_stay_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(HEADER, Heard(1, EXAMPLES[0]), Asked(ef.StartSampler()))
    journal.close()
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 3
    assert read_journal(tmp_path).lines == (Heard(1, EXAMPLES[0]), Asked(ef.StartSampler()))


def test_journal_is_never_written_over(tmp_path: Path) -> None:
    _write(tmp_path, HEADER)
    with pytest.raises(FileExistsError):
        Journal(tmp_path)


@pytest.mark.parametrize("lost_bytes", [1, 2, 20])
def test_last_line_that_was_cut_is_left_out(tmp_path: Path, lost_bytes: int) -> None:
    _write(tmp_path, HEADER, Heard(1, EXAMPLES[0]), Heard(2, EXAMPLES[1]))
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    text = read_journal(tmp_path)
    assert text.events == (EXAMPLES[0],)
    assert text.cut


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\n",
        b"\n",
        b"{}\n",
        b'{"line":"event","number":2,"event":{"event":"NobodyKnows","at_ns":1}}\n',
        b'{"line":"event","number":2,"event":{"event":"GpusLocked","at_ns":"one"}}\n',
        b'{"line":"effect","effect":{"effect":"SetTick","period_s":"\xff"}}\n',
        b'{"line":"event","number":2,"event":{"event":"GpusLocked","at_ns":1}}{}\n',
    ],
)
def test_line_that_is_none_is_named(tmp_path: Path, garbage: bytes) -> None:
    _write(tmp_path, HEADER, Heard(1, EXAMPLES[0]))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(garbage + b"\n")
    with pytest.raises(EvidenceError, match=r"Line 3 of the journal .* is not readable"):
        read_journal(tmp_path)


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1), (2, 1), (0,)])
def test_event_that_is_missing_or_out_of_its_place_is_named(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    _write(tmp_path, HEADER, *(Heard(number, EXAMPLES[0]) for number in numbers))
    with pytest.raises(EvidenceError, match=r"has event \d where event \d belongs: it was altered"):
        read_journal(tmp_path)


def test_second_header_is_named(tmp_path: Path) -> None:
    _write(tmp_path, HEADER, Heard(1, EXAMPLES[0]), HEADER)
    with pytest.raises(EvidenceError, match="second header in line 3"):
        read_journal(tmp_path)


@pytest.mark.parametrize("start", [(), (Heard(1, EXAMPLES[0]),)])
def test_journal_without_a_header(tmp_path: Path, start: tuple[Heard, ...]) -> None:
    _write(tmp_path, *start)
    with pytest.raises(EvidenceError, match="has no header"):
        read_journal(tmp_path)


def test_journal_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="cannot be read: No such file"):
        read_journal(tmp_path)


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "link", "dangling"])
def test_journal_that_is_no_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / JOURNAL
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        _write(tmp_path, HEADER)
        path.symlink_to(path.rename(tmp_path / "elsewhere"))
    with pytest.raises(EvidenceError, match=r"The journal .*events\.jsonl is not a regular file"):
        read_journal(tmp_path)


@pytest.mark.parametrize("change", [{"schema_version": SCHEMA_VERSION + 1}, {"schema_version": 0, "spec": "changed"}])
def test_journal_of_another_version(tmp_path: Path, change: dict[str, object]) -> None:
    _write(tmp_path, HEADER)
    path = tmp_path / JOURNAL
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(EvidenceError, match="was written by another version of heteromig"):
        read_journal(tmp_path)


@pytest.mark.parametrize("number", [1, 2])
def test_line_that_is_nested_too_deeply(tmp_path: Path, number: int) -> None:
    depth = 200_000
    deep = '{"line":"header","schema_version":1,"x":' if number == 1 else '{"line":"event","x":'
    lines = [deep + depth * "[" + depth * "]" + "}\n"]
    _write(tmp_path, *(HEADER,) * (number - 1))
    with (tmp_path / JOURNAL).open("a") as file:
        file.writelines(lines)
    with pytest.raises(EvidenceError, match=rf"Line {number} of the journal .* is not readable"):
        read_journal(tmp_path)


def test_wall_clock_time_of_a_monotonic_one() -> None:
    assert HEADER.utc_ns(5_000_000_007) == 1_700_000_000_000_000_007
    assert HEADER.utc_ns(4_000_000_000) == 1_699_999_999_000_000_000
