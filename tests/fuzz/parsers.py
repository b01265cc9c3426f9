"""Every parser of text that somebody else wrote, with real input for it and the words of its format."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.errors import HeteromigError
from heteromig.core.events import AnyEvent
from heteromig.core.spec import CommandSpec
from heteromig.harnesses.command.programs import read_program
from heteromig.harnesses.command.results import judge_output
from heteromig.harnesses.make.results import judge_accuracy, judge_audit, judge_last_performance
from heteromig.logs.detail import read_detail, read_summary
from heteromig.logs.harness import HarnessLog
from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG, DetailLog
from heteromig.logs.tail import Tail, displayable
from heteromig.results.readings import read_run
from heteromig.runner.config import MainConfig, read_config, resolve, to_toml
from heteromig.runner.journal import JOURNAL, Heard, read_controller_pid, read_journal
from heteromig.runner.keeper_link import KeeperLink
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.sampler_link import SamplerLink
from heteromig.runner.verification import verify_run
from heteromig.slices import keeping, messages
from heteromig.slices.boards import BOARDS
from heteromig.slices.mig.journal import JournalFile, LayoutJournal, Progress
from heteromig.slices.mig.parted import names_file, read_layout
from heteromig.slices.mig.partition import GpuInstance
from heteromig.slices.mig.planning import Offer, parse_wanted, plan_layout
from heteromig.slices.mps import journal as mps
from heteromig.slices.rehearsal import RehearsalFile
from heteromig.slices.source import parse_slices
from heteromig.views.text import printable
from heteromig.workers.worker import EXIT_FILE, STDOUT_LOG, Spawned, read_exit, read_report
from tests.harnesses.make.plans import Planned
from tests.logs.recorded import ALL
from tests.results.trees import detail_text, summary_text
from tests.slices.mig.test_parted import YAML

MAIN = "workers/0-main-resnet50"
BACKGROUND = "workers/1-background-dlrm"
EXAMPLES = Path(__file__).parents[2] / "examples"

Originals = Callable[[Path], tuple[bytes, ...]]
"""Real input, out of the directory of a real run where that has it."""


class Parser(Struct, frozen=True):
    """`read` makes something of bytes; `words` are what its format is made of."""

    name: str
    read: Callable[[bytes, Path], object]
    originals: Originals
    words: tuple[bytes, ...]


def _file(place: Path, name: str, data: bytes) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _journaled(events: Iterable[AnyEvent]) -> list[AnyEvent]:
    """What a parser makes events of has to come back from a journal as it was."""
    told = list(events)
    for event in told:
        line = Heard(1, event)
        assert msgspec.json.decode(msgspec.json.encode(line), type=Heard) == line
    return told


# --- what harnesses and LoadGen write ---------------------------------------------------------------------------------


def _tailed(path: Path) -> Iterable[bytes]:
    tail = Tail(path)
    try:
        while block := tail.read(at_end=True):
            yield block
    finally:
        tail.close()


def _output(data: bytes, place: Path) -> object:
    log = HarnessLog(3)
    found = [event for block in _tailed(_file(place, "out", data)) for event in log.feed(block, 7)]
    return _journaled(found), displayable(data), printable(data.decode(errors="replace"))


def _growing_detail(data: bytes, place: Path) -> object:
    log = DetailLog(3)
    return _journaled(event for block in _tailed(_file(place, "log", data)) for event in log.feed(block, 7))


def _detail(data: bytes, place: Path) -> object:
    return read_detail(_file(place, DETAIL_LOG, data))


def _summary(data: bytes, place: Path) -> object:
    return read_summary(_file(place, SUMMARY_LOG, data))


def _published(data: bytes, place: Path) -> object:
    detail, _, summary = data.partition(b"\n====\n")
    _file(place, DETAIL_LOG, detail)
    _file(place, SUMMARY_LOG, summary)
    return msgspec.json.encode(read_run(place, "Offline"))


_PLANS: dict[tuple[str, str], Planned] = {}


def _judged(place: Path, main: MainConfig, data: bytes, judge: Callable[[Planned, Path, Path], object]) -> object:
    """`data` has a detail log, what the driver said of accuracy, and what a compliance test said."""
    key = (str(place), repr(main))
    planned = _PLANS.setdefault(key, Planned(place / "NVIDIA", main))
    detail, accuracy, verified, output = (*data.split(b"\n====\n"), b"", b"", b"")[:4]
    logs = planned.logs / "system" / "resnet50" / "Offline"
    path = _file(logs, DETAIL_LOG, detail)
    _file(logs, "accuracy_summary.json", accuracy)
    _file(logs, "verify_performance.txt", verified)
    said = _file(place, "said.log", output)
    return judge(planned, path, said)


def _make_results(data: bytes, place: Path) -> object:
    answers = []
    for judge in (
        lambda planned, path, _: judge_last_performance((path,), planned.main),
        lambda planned, path, said: judge_accuracy((path,), planned.logs, said, planned.main),
        lambda planned, path, said: judge_audit((path,), planned.logs, "TEST04", said, planned.main),
    ):
        try:
            answers.append(repr(_judged(place, MainConfig(benchmark="resnet50", duration="300"), data, judge)))
        except HeteromigError as error:  # noqa: PERF203 - each judges for itself
            answers.append(str(error))
    return answers


_PROGRAM = read_program(
    CommandSpec(
        name="it", argv=("x",), model="it", scenarios=("offline",), start="^start$", end="^end$",
        result=r"^p99_ms=(?P<p99_ms>\S*) status=(?P<status>.*?)(?: note=(?P<note>\w+))?$",
        valid_when=("p99_ms <= 15", "status == OK"),
    )
)  # fmt: skip


def _program_output(data: bytes, place: Path) -> object:
    assert _PROGRAM.result is not None
    return msgspec.json.encode(judge_output(_file(place, STDOUT_LOG, data), _PROGRAM, _PROGRAM.result))


# --- what heteromig's own processes write -----------------------------------------------------------------------------


def _exit(data: bytes, place: Path) -> object:
    record = read_exit(_file(place, EXIT_FILE, data))
    if record is not None:
        _journaled([ev.WorkerExited(1, 0, record.exit_code, record.signal, record.stopped_by)])
    return record


def _report(data: bytes, place: Path) -> object:
    del place
    report = read_report(data)
    if isinstance(report, Spawned):
        _journaled([ev.WorkerSpawned(1, 0, 2, report.pid)])
    return report


def _sampler(data: bytes, place: Path) -> object:
    link = SamplerLink(slices="sim:a30", runs_dir="runs", run_dir=place, period_ms=1000, cpus=(), faults=None)
    link._lost = 1  # so that none is started for it
    return _journaled(event for line in data.split(b"\n") for event in link._event(line, 5))


def _keeper(data: bytes, place: Path) -> object:
    spec = resolve(read_config(_file(place, "keeper.toml", b'slices = "sim:a30"\nlayout = "4x1g.6gb"\n')))
    link = KeeperLink(spec, place)
    return _journaled(event for line in data.split(b"\n") for event in link._event(line, 5))


def _sampler_lines(run: Path) -> tuple[bytes, ...]:
    events = read_journal(run).events
    said: list[messages.Message] = [
        *(messages.Discovered(event.inventory) for event in events if isinstance(event, ev.SlicesDiscovered)),
        *(messages.Sampled(event.sample) for event in events if isinstance(event, ev.SampleTaken)),
        messages.Faulted("Xid 79", "GPU-1"),
        messages.Refused("No.", 7),
    ]
    return tuple(messages.encode_line(one) for one in said)


def _keeper_lines(run: Path) -> tuple[bytes, ...]:
    del run
    said = (
        keeping.Prepared("GPU-1", "cut", {"A": "b"}, (("MIG-1", None), (None, "MIG-2"))),
        keeping.Refused("No.", 7),
        keeping.Lost("It ended."),
        keeping.Restored("as before"),
        keeping.NotRestored("It is busy."),
    )
    return tuple(keeping.encode_line(one) for one in said)


# --- the files of a run -----------------------------------------------------------------------------------------------


def _verified(name: str, *, sealed: bool) -> Callable[[bytes, Path], object]:
    """A copy of the run in which one file is another; what is verified may be valid only where nothing was changed."""

    def read(data: bytes, place: Path) -> object:
        run = place / "run"
        original = (run / name).read_bytes()
        certificate = (run / CERTIFICATE).read_bytes()
        try:
            (run / name).write_bytes(data)
            if not sealed:
                (run / CERTIFICATE).unlink()
            found = verify_run(run)
            assert not sealed or found.verdict.exit_code != 0 or data == original
            return found.verdict, found.notes
        finally:
            (run / name).write_bytes(original)
            (run / CERTIFICATE).write_bytes(certificate)

    return read


def _certificate(data: bytes, place: Path) -> object:
    run = place / "run"
    original = (run / CERTIFICATE).read_bytes()
    try:
        (run / CERTIFICATE).write_bytes(data)
        return verify_run(run).verdict
    finally:
        (run / CERTIFICATE).write_bytes(original)


def _controller(data: bytes, place: Path) -> object:
    _file(place, JOURNAL, data)
    return read_controller_pid(place)


def _layout_journal(data: bytes, place: Path) -> object:
    return JournalFile(_file(place, "layout.json", data)).read()


def _mps_journal(data: bytes, place: Path) -> object:
    return mps.read_journal(_file(place, "mps.json", data))


_INSTANCE = GpuInstance(19, "1g.10gb", 0, 1)
_LAYOUT_JOURNAL = LayoutJournal(
    1, "0.1.0", "mig", "/runs", "GPU-1", "H100", "now", Progress.APPLYING, True, (_INSTANCE,), ((_INSTANCE,),), ()  # noqa: FBT003 - a record
)  # fmt: skip
_MPS_JOURNAL = mps.ShareJournal(
    1,
    "0.1.0",
    "GPU-1",
    "mps:7x14",
    "/run/pipes",
    "now",
    (mps.DaemonProcess(4711, 99, "nvidia-cuda-mps-server"),),
)


# --- what users write -------------------------------------------------------------------------------------------------


def _config(data: bytes, place: Path) -> object:
    spec = resolve(read_config(_file(place, "config.toml", data)))
    again = resolve(read_config(_file(place, "again.toml", to_toml(spec).encode())))
    assert again == spec
    return spec


def _text(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, place: read(data.decode(errors="replace"))  # noqa: ARG005 - there is no file


def _wanted(text: str) -> object:
    board = BOARDS["a100-sxm-80gb"]
    offer = Offer(board.name, board.profiles)
    return plan_layout(offer, parse_wanted(text, offer))


def _source(text: str) -> object:
    source = parse_slices(text)
    assert parse_slices(str(source)) == source
    return source


def _parted(suffix: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, place: Path) -> object:
        path = _file(place, f"file.{suffix}", data)
        assert names_file(f"{path}:mixed")
        return read_layout(f"{path}:mixed", 0, 0x233010DE)

    return read


def _rehearsal(data: bytes, place: Path) -> object:
    return RehearsalFile(_file(place, "faults.json", data)).changed()


_KEYS = (b"argv", b"start", b"end", b"result", b"valid-when", b"clean-stop", b"loadgen-logs", b"cwd", b"model", b"env")


def _program(data: bytes, place: Path) -> object:
    """Lines of `key=value`."""
    del place
    said = dict.fromkeys(_KEYS, b"") | dict(line.partition(b"=")[::2] for line in data.split(b"\n"))
    text = {key.decode(): value.decode(errors="replace") for key, value in said.items() if key in _KEYS}
    program = read_program(
        CommandSpec(
            name="it", argv=tuple(text["argv"].split()), model=text["model"] or "it", scenarios=("offline",),
            env={"A": text["env"]}, cwd=text["cwd"] or None, start=text["start"] or None, end=text["end"] or None,
            result=text["result"] or None, valid_when=tuple(filter(None, text["valid-when"].split(";"))),
            clean_stop=text["clean-stop"] or None, loadgen_logs=text["loadgen-logs"] or None,
        )
    )  # fmt: skip
    groups = re.findall(r"\w+", text["model"])
    return program.info, [one.complaint(dict.fromkeys(groups, text["env"])) for one in program.conditions]


def _in_run(*names: str) -> Originals:
    return lambda run: tuple((run / name).read_bytes() for name in names)


def _fixed(*originals: bytes) -> Originals:
    return lambda run: originals  # noqa: ARG005 - none is in a run


def _recorded(name: str) -> tuple[bytes, ...]:
    return tuple((one.detail.parent / name).read_bytes() for one in ALL)


_MLLOG = b':::MLLOG {"key": "'
_DETAIL_WORDS = (
    _MLLOG, b'generated_query_count"', b'power_begin"', b'power_end"', b'result_validity"', b'num_errors"',
    b'test_datetime"', b', "value": ', b'"VALID"', b'"11-28-2026 10:00:00.123"', b'"2026-11-28T10:00:00Z"',
    b', "time_ms": ', b"}\n", b'"is_error": true', b"logger_swap_request_slots_retry_count", b"result_", b"\n",
)  # fmt: skip
_OUTPUT_WORDS = (
    b"heartbeat: completed=", b" samples_per_second=", b"Starting running actual test.", b"Result is : ", b"VALID",
    b"INVALID", b"Accuracy test PASSED", b"Finished running actual test.", b"\n", b"\r", b" ", b"\t",
)  # fmt: skip
_JSON_WORDS = (b"{", b"}", b"[", b"]", b":", b",", b'"', b"null", b"true")
_LINE_WORDS = (
    b'{"line":"header","schema_version":2', b'{"line":"event","number":', b',"event":{"type":"', b"RunStarted",
    b"WorkerExited", b'","at_ns":', b',"worker":', b"}}\n", *_JSON_WORDS,
)  # fmt: skip
_TOML_WORDS = (
    b"[main]\n", b"[background]\n", b"[timing]\n", b"[[systems]]\n", b"[command.x]\n", b"slices = ", b"seed = ",
    b"gpu = ", b"duration = ", b"benchmark = ", b"target-qps = ", b"argv = ", b"start = ", b"result = ",
    b'"sim:a30"', b'"mig"', b'"resnet50"', b'"10s"', b"inf", b"nan", b"1979-05-27T07:32:00Z", b"'''", b'"""', b"\n",
    b" = ", b"#", b"{ a = 1 }", b"[1, 2]", b'runs-dir = "a"\n', b"harness = ", b'"command"', b'"make"',
)  # fmt: skip
_LAYOUT_WORDS = (
    b"sim:", b"mig", b"gpu", b"mps:", b"7x14", b",8gib", b"a100-sxm-80gb", b"a30", b"/", b";", b",", b"7x", b"1g.10gb",
    b"3g.40gb", b"4x1g.6gb", b"@4", b"1c.", b"+me", b"x", b"999999x", b" ",
)  # fmt: skip
_YAML_WORDS = (
    b"version: v1\n", b"mig-configs:\n", b"  mixed:\n", b"  - devices: all\n", b"    mig-enabled: true\n",
    b"    mig-devices:\n", b'      "1g.10gb": 7\n', b"&a ", b"*a", b"<<: ", b"!!bool ", b"!!int ", b"!!timestamp ",
    b"!!set ", b"!!binary ", b"!!omap ", b"? ",
    b": ", b"- ", b"\n", b"{", b"}", b"[", b"]", b"|\n", b"%YAML 9\n", b"---\n",
)  # fmt: skip
_PROGRAM_WORDS = (
    *(key + b"=" for key in _KEYS), b"\n", b"{python}", b"{slice}", b"{{", b"(?P<p99>", b")", b"\\S+", b"[", b"]", b"*",
    b"{9999999999}", b"(?i)", b"\\1", b"p99 <= 15", b";", b"==", b"TERM", b"KILL", b"../", b"^", b"$", b"|",
)  # fmt: skip
_COMMAND = (
    b"argv={python} x.py --seconds={duration_s}\nstart=^start$\nend=^end$\nresult=p99=(?P<p99>\\S+) (?P<s>\\w+)$\n"
    b"valid-when=p99 <= 15; s == OK\nclean-stop=TERM\nmodel=p99 s\nenv=15.0"
)
_SAID = b"start\np99_ms=12 status=OK\np99_ms=14.5 status=OK note=last\nend\n"
_MAKE = (
    b'{"x": "Accuracy = 76.034, Threshold = 75.695. Accuracy test PASSED."}\n====\nTEST PASS\n====\n'
    b"TEST01 trial 1\nTEST01 failure redeemed via fallback approach\nAccuracy = 1.0, Threshold = 0.5. Accuracy test "
    b"PASSED.\n"
)

PARSERS = (
    Parser("harness output", _output, _in_run(f"{MAIN}/stdout.log", f"{BACKGROUND}/stdout.log"), _OUTPUT_WORDS),
    Parser("growing detail log", _growing_detail, lambda run: _recorded(DETAIL_LOG), _DETAIL_WORDS),  # noqa: ARG005
    Parser("detail log", _detail, lambda run: _recorded(DETAIL_LOG), _DETAIL_WORDS),  # noqa: ARG005
    Parser("summary", _summary, lambda run: _recorded(SUMMARY_LOG), (b"Result is", b": ", b"VALID", b"\n", b" ")),  # noqa: ARG005
    Parser(
        "published results",
        _published,
        _fixed(f"{detail_text('Offline', 100.0, 5)}\n====\n{summary_text('Offline', 100.0, 5)}".encode()),
        (*_DETAIL_WORDS, b"\n====\n", b"Samples per second", b": ", b"Mode", b"Scenario : Offline\n", b" "),
    ),
    Parser(
        "results of make",
        _make_results,
        lambda run: tuple(b"\n====\n".join((one, _MAKE)) for one in _recorded(DETAIL_LOG)),  # noqa: ARG005
        (*_DETAIL_WORDS, b"\n====\n", b"Accuracy = ", b", Threshold = ", b". Accuracy test PASSED", b"TEST PASS"),
    ),
    Parser("output of a command", _program_output, _fixed(_SAID), (b"start\n", b"p99_ms=", b" status=", b"OK", b"\n")),
    Parser("exit.json", _exit, _in_run(f"{MAIN}/exit.json"), (b'"pid":', b'"exit_code":', b'"signal":', *_JSON_WORDS)),
    Parser(
        "report of a guardian",
        _report,
        _fixed(b'{"pid": 4711, "start_time": 99}\n', b'{"error": "No."}\n'),
        (b'"pid":', b'"error":', b'"start_time":', *_JSON_WORDS),
    ),
    Parser("lines of the sampler", _sampler, _sampler_lines, (b'{"type":"Sampled","sample":', b"\n", *_JSON_WORDS)),
    Parser("lines of the keeper", _keeper, _keeper_lines, (b'{"type":"Lost","message":', b"\n", *_JSON_WORDS)),
    Parser("journal, sealed", _verified(JOURNAL, sealed=True), _in_run(JOURNAL), _LINE_WORDS),
    Parser("journal, not sealed", _verified(JOURNAL, sealed=False), _in_run(JOURNAL), _LINE_WORDS),
    Parser("run.json, sealed", _verified(RUN_JSON, sealed=True), _in_run(RUN_JSON), _JSON_WORDS),
    Parser(
        "main's log, not sealed", _verified(f"{MAIN}/{DETAIL_LOG}", sealed=False), _in_run(f"{MAIN}/{DETAIL_LOG}"),
        _DETAIL_WORDS,
    ),
    Parser(
        "a neighbour's log, sealed", _verified(f"{BACKGROUND}/{DETAIL_LOG}", sealed=True),
        _in_run(f"{BACKGROUND}/{DETAIL_LOG}"), _DETAIL_WORDS,
    ),
    Parser("certificate", _certificate, _in_run(CERTIFICATE), (b'"schema_version":', b'"files":', *_JSON_WORDS)),
    Parser("pid in a journal", _controller, _in_run(JOURNAL), _LINE_WORDS),
    Parser("journal of a layout", _layout_journal, _fixed(msgspec.json.encode(_LAYOUT_JOURNAL)), _JSON_WORDS),
    Parser("journal of a daemon", _mps_journal, _fixed(msgspec.json.encode(_MPS_JOURNAL)), _JSON_WORDS),
    Parser(
        "configuration", _config, lambda run: tuple(path.read_bytes() for path in sorted(EXAMPLES.glob("*.toml"))),  # noqa: ARG005
        _TOML_WORDS,
    ),
    Parser(
        "--slices",
        _text(_source),
        _fixed(b"sim:a100-sxm-80gb/3g.40gb,4x1g.10gb;2xa30", b"mps:7x14,8gib"),
        _LAYOUT_WORDS,
    ),
    Parser("--layout", _text(_wanted), _fixed(b"3g.40gb@4,4x1g.10gb", b"7x19"), _LAYOUT_WORDS),
    Parser("layout in YAML", _parted("yaml"), _fixed(YAML.encode()), _YAML_WORDS),
    Parser(
        "layout in JSON",
        _parted("json"),
        _fixed(
            b'{"version": "v1", "mig-configs": {"mixed": [{"devices": "all", "mig-enabled": true, "mig-devices": '
            b'{"1g.10gb": 7}, "device-filter": ["0x233010DE"]}]}}'
        ),
        (b'"version":"v1"', b'"mig-configs":', b'"devices":', b'"mig-enabled":', *_JSON_WORDS),
    ),
    Parser("rehearsed failures", _rehearsal, _fixed(b'{"xid": 79, "gpu": 0, "hang_s": 1.5}'), _JSON_WORDS),
    Parser("[command.<name>]", _program, _fixed(_COMMAND), _PROGRAM_WORDS),
)  # fmt: skip

BY_NAME = {parser.name: parser for parser in PARSERS}


def furnish(place: Path, recorded: Path) -> None:
    """What parsers of files of a run need in the directory that they are given."""
    if not (place / "run").exists():
        shutil.copytree(recorded, place / "run")
