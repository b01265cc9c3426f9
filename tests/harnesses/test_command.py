"""The harness `command`: what it refuses, the commands it makes, the lines it hears, the results it judges."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from heteromig.core.errors import EvidenceError, PreflightError, UsageError
from heteromig.core.events import AnyEvent, FinishAnnounced, ProgressMade, StartAnnounced
from heteromig.core.overlap import MainResult
from heteromig.core.phases import EvidenceLevel
from heteromig.core.plan import Plan, make_plan
from heteromig.core.spec import CommandSpec, RunSpec
from heteromig.harnesses import HARNESSES, HarnessOptions, harness_of
from heteromig.harnesses.command.harness import CommandHarness
from heteromig.harnesses.command.marks import lines_of
from heteromig.harnesses.command.placeholders import KNOWN, fill, require_known
from heteromig.harnesses.command.results import last_match
from heteromig.harnesses.protocol import RateRules
from heteromig.logs.harness import HarnessLog
from heteromig.logs.tail import MAX_READ_BYTES
from heteromig.runner.config import BackgroundConfig, CommandConfig, Config, MainConfig, read_config, resolve, to_toml
from tests.core.histories import examples, inventory

RESULT = r"^p99_ms=(?P<p99_ms>\S*) status=(?P<status>.*?)(?: note=(?P<note>\w+))?$"
MAIN = CommandConfig(argv=["{python}", "main.py"], start="^start$", end="^end$", result=RESULT)
STARTED = b"start\n"
BESIDE = CommandConfig(argv=["{python}", "beside.py"], start="^start$")
LOGGING = CommandConfig(argv=["{python}", "loadgen.py"], loadgen_logs=".")


def spec_of(
    measured: CommandConfig = MAIN,
    *,
    name: str = "main",
    more: dict[str, CommandConfig] | None = None,
    background: str | list[str] = "all",
    **config: Any,
) -> RunSpec:
    commands = {name: measured, **({"beside": BESIDE} if more is None else more)}
    return resolve(
        Config(
            slices="sim:a100-sxm-80gb", command=commands, background=BackgroundConfig(benchmarks=background), **config
        )
    )


def plan_of(spec: RunSpec) -> Plan:
    return make_plan(spec, inventory(), (0, 1))


def harness(**changes: Any) -> CommandHarness:
    return CommandHarness(spec_of(replace(MAIN, **changes)).commands)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"argv": []}, "The argv of [command.main] names no program"),
            ({"argv": ""}, "The argv of [command.main] names no program"),
            ({"argv": [""]}, "The argv of [command.main] names no program"),
            ({"argv": "python 'main.py"}, "The argv of [command.main] cannot be split (no closing quotation)"),
            ({"argv": ["a\0b"]}, "holds a NUL character"),
            ({"argv": ["x", "{slize}"]}, "holds {slize}, which stands for nothing (did you mean {slice}?). Known are "),
            ({"argv": ["x", "{}"]}, "holds {}, which stands for nothing. Known are {slice}, {duration_ms}, "),
            ({"argv": ["x", "{slice!r}"]}, "which stands for nothing"),
            ({"argv": ["x", "{slice.x}"]}, "which stands for nothing"),
            ({"argv": ["x", "{"]}, "The argv of [command.main] holds a { without its partner"),
            ({"argv": ["x", "a}"]}, "a brace of your own is written twice, {{ or }}."),
            ({"argv": ["x", "{{slice}"]}, "holds a } without its partner"),
            ({"env": {"A": "{nothing}"}}, "The A in env of [command.main] holds {nothing}"),
            ({"env": {"A=B": ""}}, "env of [command.main] has 'A=B', which cannot be the name of a variable."),
            ({"env": {"": ""}}, "cannot be the name of a variable"),
            ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "env of [command.main] sets CUDA_VISIBLE_DEVICES"),
            ({"cwd": "{where}"}, "The cwd of [command.main] holds {where}"),
            ({"start": None}, "[command.main] has neither `start` nor `loadgen-logs`"),
            ({"start": "("}, "start of [command.main] is '(', which is no regular expression: missing )"),
            ({"end": "[z-a]"}, "end of [command.main] is '[z-a]', which is no regular expression"),
            ({"result": "(?P<x>1)(?P<x>2)"}, "result of [command.main] is"),
            ({"start": ""}, "which matches nothing at all and hence any output"),
            ({"result": ".*"}, "which matches nothing at all and hence any output"),
            ({"valid_when": ["p99 <= 15"]}, "asks for 'p99', which is no named group of `result`: its groups are note"),
            ({"valid_when": "p99_ms <= 15ms"}, "<= compares numbers, of which '15ms' is none"),
            ({"valid_when": ["status > VALID"]}, "> compares numbers, of which 'VALID' is none"),
            ({"valid_when": ["status = VALID"]}, "holds 'status = VALID', which is no condition: write a group"),
            ({"valid_when": ["status =="]}, "which is no condition"),
            ({"valid_when": ["15 >= p99_ms"]}, "which is no condition"),
            ({"valid_when": ["p99_ms <= 15"], "result": None}, "has `valid-when` and no `result`"),
            ({"valid_when": ["p99_ms <= 15"], "result": "done"}, "it has none, as (?P<p99_ms>[0-9.]+) is one."),
            ({"clean_stop": "SIGNOTHING"}, "clean-stop of [command.main] is 'SIGNOTHING', which is no signal"),
            ({"clean_stop": "15"}, "which is no signal: name one, such as SIGTERM or SIGINT."),
            ({"clean_stop": "kill"}, "which no program can act on"),
            ({"clean_stop": "SIGSTOP"}, "which no program can act on"),
            ({"loadgen_logs": "/tmp/logs"}, "and must be a directory below the worker's own"),  # noqa: S108 - not made
            ({"loadgen_logs": "../logs"}, "and must be a directory below the worker's own"),
            ({"loadgen_logs": ""}, "and must be a directory below the worker's own"),
            ({"scenarios": ["off/line"]}, "has the scenario 'off/line', which becomes part of a directory's name"),
        ],
    )
    def test_tables_that_cannot_be(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(UsageError) as refusal:
            spec_of(replace(MAIN, **changes))
        assert words in str(refusal.value)

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-x", "a b", "a,b", "x" * 65, "é", "a\n"])
    def test_names_that_cannot_be_directories(self, name: str) -> None:
        with pytest.raises(UsageError, match="cannot be the name of a directory"):
            spec_of(name=name)

    @pytest.mark.parametrize("name", ["all", "none"])
    def test_names_of_sets(self, name: str) -> None:
        with pytest.raises(UsageError, match="has the name of a set"):
            spec_of(name=name)

    def test_no_commands_at_all(self) -> None:
        with pytest.raises(UsageError, match=r"--harness command runs what \[command.<name>\] tables describe"):
            resolve(Config(slices="sim:a30", harness="command"))

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"main": MainConfig(benchmark="mian")}, "There is no [command.mian]: did you mean 'main'?"),
            (
                {"main": MainConfig(benchmark="zzz")},
                "There is no [command.zzz]: there are main, beside, and the set all.",
            ),
            ({"main": MainConfig(scenario="server")}, "[command.main] has no scenario 'server': choose one of offline"),
            ({"main": MainConfig(accuracy="99")}, "[command.main] has no accuracy '99'"),
        ],
    )
    def test_what_the_commands_do_not_offer(self, config: dict[str, Any], words: str) -> None:
        with pytest.raises(UsageError) as refusal:
            spec_of(**config)
        assert words in str(refusal.value)

    def test_main_that_could_never_be_valid(self) -> None:
        spec = spec_of(BESIDE, name="main", more={"beside": MAIN})
        with pytest.raises(UsageError, match="as main it could never be VALID"):
            harness_of(spec).preflight(spec)

    @pytest.mark.parametrize("model", ["main", "other"])
    def test_set_that_leaves_no_background(self, model: str) -> None:
        beside = replace(BESIDE, model=model, scenarios=["offline"] if model == "main" else ["server"])
        spec = spec_of(more={"beside": beside})
        with pytest.raises(UsageError, match="leaves no background"):
            harness_of(spec).preflight(spec)

    @pytest.mark.parametrize(
        ("main", "beside", "level", "silent"),
        [
            (MAIN, BESIDE, EvidenceLevel.TIMED, "main, beside"),
            (LOGGING, BESIDE, EvidenceLevel.TIMED, "beside"),
            (MAIN, LOGGING, EvidenceLevel.BUSY, "main"),
        ],
    )
    def test_evidence_that_plain_programs_cannot_give(
        self, main: CommandConfig, beside: CommandConfig, level: EvidenceLevel, silent: str
    ) -> None:
        spec = spec_of(main, more={"beside": beside}, start_evidence=level)
        with pytest.raises(UsageError, match=f"--start-evidence {level.value} .* there are none of {silent}: leave"):
            harness_of(spec).preflight(spec)

    @pytest.mark.parametrize(
        "main",
        [MainConfig(runargs="--fast"), MainConfig(runargs="--test_mode=AccuracyOnly")],
    )
    def test_options_of_other_harnesses(self, main: MainConfig) -> None:
        spec = spec_of(main=main)
        with pytest.raises(UsageError):
            harness_of(spec).preflight(spec)

    @pytest.mark.parametrize(
        ("argv", "config", "words"),
        [
            (
                ["x"],
                {"main": MainConfig(target_qps=1.0)},
                "has no place for a rate: write {target_qps}",
            ),
            (["x", "{{target_qps}}"], {"main": MainConfig(target_qps=1.0)}, "has no place for a rate"),
            (["x", "--rate={target_qps}"], {}, "no rate was given: say it with --main-target-qps"),
            (
                ["{python}", "{target_qps}"],
                {"main": MainConfig(target_qps=1.0), "background": ["main"]},
                "is a background and holds {target_qps}, which main alone has",
            ),
        ],
    )
    def test_rates_without_a_place_and_places_without_a_rate(
        self, argv: list[str], config: dict[str, Any], words: str
    ) -> None:
        spec = spec_of(replace(MAIN, argv=argv), **config)
        with pytest.raises(UsageError, match=words):
            harness_of(spec).preflight(spec)

    def test_programs_that_are_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here").touch(mode=0o755)
        (tmp_path / "data").touch(mode=0o644)

        def preflight(**changes: Any) -> None:
            spec = spec_of(replace(MAIN, **changes))
            harness_of(spec).preflight(spec)

        preflight(argv=["sh"])
        preflight(argv=["here"], env={"PATH": str(tmp_path)})
        preflight(argv=["./here"], cwd=".")
        preflight(argv=["./from-the-worker"], cwd="{directory}")
        preflight(argv=["{directory}/made-later"])
        for argv, cwd in (("no-such", None), ("./data", "."), ("/no/such", None), ("./nothing", ".")):
            with pytest.raises(PreflightError, match=f"The program {argv} of .* is not there or cannot be executed"):
                preflight(argv=[argv], cwd=cwd)
        with pytest.raises(PreflightError, match="The working directory nowhere"):
            preflight(cwd="nowhere")
        with pytest.raises(UsageError, match=r"runs ./here in its worker's own directory, which is empty"):
            preflight(argv=["./here"])


class TestPlan:
    def test_what_it_offers(self) -> None:
        assert isinstance(HARNESSES["command"](HarnessOptions(commands=spec_of().commands)), CommandHarness)
        found = harness(model="resnet", scenarios=["Offline", "single-stream"], clean_stop="INT")
        assert [info.name for info in found.catalog()] == ["main", "beside"]
        assert found.sets() == {"all": ("main", "beside")}
        info = found.benchmark("main")
        assert (info.model, info.scenarios, info.stops_cleanly) == ("resnet", ("offline", "singlestream"), True)
        assert not found.benchmark("beside").stops_cleanly
        assert found.missing_engines(plan_of(spec_of()).engines, spec_of()) == ()

    def test_evidence_is_announced_unless_all_write_loadgen_logs(self) -> None:
        assert spec_of().start_evidence is EvidenceLevel.ANNOUNCED
        assert spec_of(LOGGING).start_evidence is EvidenceLevel.ANNOUNCED
        assert spec_of(LOGGING, more={"beside": LOGGING}).start_evidence is EvidenceLevel.TIMED

    def test_first_command_is_main_and_commands_choose_the_harness(self) -> None:
        spec = spec_of()
        assert (spec.harness, spec.main.benchmark, spec.background.candidates) == ("command", "main", ("beside",))

    def test_what_the_configuration_says_is_said_again_by_the_plan(self, tmp_path: Path) -> None:
        odd = CommandConfig(
            argv=["{python}", "-c", "print('{{}}')\nprint(\"\\t\")", "é"],
            env={"LD_PRELOAD": "", "ODD NAME": 'quote " and {directory}'},
            cwd=".",
            start="^\\[start\\]$",
            result='(?P<x>"\\d+")',
            valid_when=["x != 'a b'"],
            clean_stop="SIGUSR1",
            loadgen_logs="logs",
        )
        spec = spec_of(odd)
        (tmp_path / "plan.toml").write_text(to_toml(spec), encoding="utf-8")
        assert resolve(read_config(tmp_path / "plan.toml")) == spec


class TestCommand:
    def test_every_placeholder(self, tmp_path: Path) -> None:
        argv = [
            "{python}", "{slice}", "{duration_ms}", "{duration_s}", "{directory}/out", "{benchmark}", "{role}",
            "{scenario}", "{{slice}}", "{{{role}}}", "a{{b}}c", "{role}{role}",
        ]  # fmt: skip
        spec = spec_of(replace(MAIN, argv=argv), main=MainConfig(duration="1234567"))
        main, background = plan_of(spec).workers[:2]
        command = harness_of(spec).command(main, spec, tmp_path)
        own = tmp_path / "workers/0-main-main"
        assert command.argv == (
            sys.executable, main.slice_uuid, "1234567", "1234.567", f"{own}/out", "main", "main",
            "offline", "{slice}", "{main}", "a{b}c", "mainmain",
        )  # fmt: skip
        assert command.cwd == own
        assert command.env == {"CUDA_VISIBLE_DEVICES": main.slice_uuid}
        assert command.clean_stop_signal is None
        assert harness_of(spec).command(background, spec, tmp_path).argv == (sys.executable, "beside.py")

    @pytest.mark.parametrize(("rate", "said"), [(12.5, "12.5"), (400.0, "400"), (1_234_567.0, "1234567")])
    def test_a_rate(self, tmp_path: Path, rate: float, said: str) -> None:
        argv = ["x", "--rate={target_qps}"]
        spec = spec_of(replace(MAIN, argv=argv, env={"RATE": "{target_qps}"}), main=MainConfig(target_qps=rate))
        command = harness_of(spec).command(plan_of(spec).main, spec, tmp_path)
        assert (command.argv[1], command.env["RATE"]) == (f"--rate={said}", said)

    @pytest.mark.parametrize(
        ("changes", "scenario", "rules"),
        [
            ({}, "offline", RateRules("server", verdicts_only=True)),
            ({"loadgen_logs": "."}, "offline", RateRules("offline")),
            ({"loadgen_logs": "."}, "server", RateRules("server")),
        ],
    )
    def test_rules_are_loadgens_where_it_logs(self, changes: dict[str, Any], scenario: str, rules: RateRules) -> None:
        program = replace(MAIN, argv=["x", "{target_qps}"], scenarios=["offline", "server"], **changes)
        spec = spec_of(program, main=MainConfig(scenario=scenario))
        assert harness_of(spec).rate_rules(spec) == rules

    def test_streams_need_no_rate(self) -> None:
        spec = spec_of(replace(LOGGING, scenarios=["SingleStream"]), main=MainConfig(scenario="singlestream"))
        assert harness_of(spec).rate_rules(spec) == RateRules("singlestream")
        with pytest.raises(UsageError, match="has no place for a rate"):
            harness_of(spec_of()).rate_rules(spec_of())

    def test_what_a_value_says_is_not_looked_at_again(self, tmp_path: Path) -> None:
        spec = spec_of(replace(MAIN, argv=["x", "{directory}"]))
        run_dir = tmp_path / "{slice}{{}}{0}"
        command = harness_of(spec).command(plan_of(spec).main, spec, run_dir)
        assert command.argv[1] == f"{run_dir}/workers/0-main-main"

    @pytest.mark.parametrize(
        ("duration", "seconds"), [("100s", "100"), ("700", "0.7"), ("1", "0.001"), ("10m", "600"), ("1050", "1.05")]
    )
    def test_seconds_are_neither_rounded_nor_padded(self, tmp_path: Path, duration: str, seconds: str) -> None:
        spec = spec_of(replace(MAIN, argv=["x", "{duration_s}"]), main=MainConfig(duration=duration))
        assert harness_of(spec).command(plan_of(spec).main, spec, tmp_path).argv[1] == seconds

    def test_environment_and_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        spec = spec_of(replace(MAIN, env={"OUT": "{directory}/{role}", "PLAIN": "{{}}"}, cwd="sub"))
        main = plan_of(spec).main
        command = harness_of(spec).command(main, spec, Path("/runs/r"))
        assert command.env == {
            "OUT": "/runs/r/workers/0-main-main/main",
            "PLAIN": "{}",
            "CUDA_VISIBLE_DEVICES": main.slice_uuid,
        }
        assert command.cwd == tmp_path / "sub"

    def test_prefix_is_for_main_alone(self, tmp_path: Path) -> None:
        spec = spec_of(background=["main", "beside"], main=MainConfig(cmd_prefix="nsys profile -o '{slice} x'"))
        main, same, _ = plan_of(spec).workers
        assert harness_of(spec).command(main, spec, tmp_path).argv[:4] == ("nsys", "profile", "-o", "{slice} x")
        assert harness_of(spec).command(same, spec, tmp_path).argv == (sys.executable, "main.py")

    @pytest.mark.parametrize("name", ["SIGTERM", "TERM", "term", "SIGterm"])
    def test_names_of_signals(self, name: str) -> None:
        spec = spec_of(replace(MAIN, clean_stop=name))
        assert harness_of(spec).command(plan_of(spec).main, spec, Path("/r")).clean_stop_signal == signal.SIGTERM

    def test_command_line_as_text_is_split_as_a_shell_would(self) -> None:
        spec = spec_of(replace(MAIN, argv="env A='b c' {python} -c 'print(\"1\n2\")'"))
        assert spec.commands[0].argv == ("env", "A=b c", "{python}", "-c", 'print("1\n2")')

    @given(text=st.text())
    @examples(100)
    def test_text_with_its_braces_doubled_is_itself(self, text: str) -> None:
        doubled = text.replace("{", "{{").replace("}", "}}")
        require_known("It", doubled)
        assert fill(doubled, {}) == text


class TestLines:
    def feed(self, *blocks: bytes, **changes: Any) -> list[list[AnyEvent]]:
        spec = spec_of(replace(MAIN, **changes))
        found = HarnessLog(7, harness_of(spec).lines(plan_of(spec).main))
        return [found.feed(block, at_ns) for at_ns, block in enumerate(blocks)]

    def kinds(self, *blocks: bytes, **changes: Any) -> list[list[type]]:
        return [[type(event) for event in events] for events in self.feed(*blocks, **changes)]

    def test_start_and_end_are_heard_once(self) -> None:
        assert self.feed(b"hello\nstart\n", b"start\nmore\n", b"end\n") == [
            [StartAnnounced(at_ns=0, worker=7)],
            [],
            [FinishAnnounced(at_ns=2, worker=7)],
        ]

    def test_both_in_one_look(self) -> None:
        assert self.kinds(b"start\nend\n") == [[StartAnnounced, FinishAnnounced]]

    def test_what_looks_like_an_end_before_the_start_is_none(self) -> None:
        assert self.kinds(b"end\nstart\n", b"end\n") == [[StartAnnounced], [FinishAnnounced]]
        assert self.kinds(b"end\n", b"start\n", b"end\n") == [[], [StartAnnounced], [FinishAnnounced]]
        assert self.kinds(b"end\nstart\nend\n") == [[StartAnnounced, FinishAnnounced]]

    def test_line_that_is_start_and_end_at_once_is_a_start(self) -> None:
        assert self.kinds(b"run\n", b"run over\n", start="^run", end="over$") == [[StartAnnounced], [FinishAnnounced]]
        assert self.kinds(b"run over\n", start="^run", end="^run over$") == [[StartAnnounced]]

    def test_heartbeats(self) -> None:
        beat = b"heartbeat: completed=5 samples_per_second=2.5\n"
        assert self.kinds(beat) == [[ProgressMade]]

    def test_patterns_are_of_lines_and_of_bytes(self) -> None:
        assert self.kinds("prêt à partir\n".encode(), start="^prêt à partir$") == [[StartAnnounced]]
        assert self.kinds(b"\xff\xfe\x1b[32mready\x1b[0m\n", start="ready") == [[StartAnnounced]]
        assert self.kinds(b"not start\nstarted\n") == [[]]
        assert self.kinds(b"START\n", start="(?i)^start$") == [[StartAnnounced]]

    def test_loadgens_log_knows_better_than_marks(self) -> None:
        assert self.kinds(b"start\nend\n", loadgen_logs=".") == [[]]


def judge(tmp_path: Path, output: bytes | None, **changes: Any) -> MainResult:
    spec = spec_of(replace(MAIN, **changes))
    main = plan_of(spec).main
    folder = tmp_path / main.directory
    folder.mkdir(parents=True, exist_ok=True)
    if output is not None:
        (folder / "stdout.log").write_bytes(STARTED + output)
    return harness_of(spec).result(main, spec, tmp_path)


class TestResult:
    LINE = b"p99_ms=12.50 status=all good\n"

    def test_valid_with_its_figures(self, tmp_path: Path) -> None:
        assert judge(tmp_path, self.LINE) == MainResult(valid=True, complaints=(), metrics={"p99_ms": 12.5})

    @pytest.mark.parametrize(
        "condition",
        [
            "p99_ms <= 12.5", "p99_ms < 13", "p99_ms >= 1.25e1", "p99_ms > -1", "p99_ms == 12.5", "p99_ms != 12",
            "p99_ms<=100", "status == all good", "status == 'all good'", 'status != "bad"', "  p99_ms   ==  +12.500 ",
        ],
    )  # fmt: skip
    def test_conditions_that_hold(self, tmp_path: Path, condition: str) -> None:
        assert judge(tmp_path, self.LINE, valid_when=condition).valid is True

    @pytest.mark.parametrize(
        ("condition", "complaint"),
        [
            ("p99_ms <= 9", "p99_ms is 12.50, and p99_ms <= 9 was asked for"),
            ("p99_ms != 12.5", "p99_ms is 12.50, and p99_ms != 12.5 was asked for"),
            ("status == VALID", "status is 'all good', and status == VALID was asked for"),
            ("status <= 3", "status is 'all good', which is no number, and status <= 3 was asked for"),
            ("note == yes", "note is not in its result, and note == yes was asked for"),
            ("note != yes", "note is not in its result, and note != yes was asked for"),
        ],
    )
    def test_conditions_that_do_not(self, tmp_path: Path, condition: str, complaint: str) -> None:
        result = judge(tmp_path, self.LINE, valid_when=["p99_ms > 0", condition])
        assert result == MainResult(valid=False, complaints=(complaint,), metrics={"p99_ms": 12.5})

    @pytest.mark.parametrize("said", ["nan", "inf", "1,5", "1_5", "0x1", "15ms", "", "\u0661"])
    def test_what_is_no_number_meets_no_bound(self, tmp_path: Path, said: str) -> None:
        result = judge(tmp_path, f"p99_ms={said} status=x\n".encode(), valid_when="p99_ms < 100")
        assert result.valid is False
        assert "which is no number" in result.complaints[0]
        assert result.metrics == {}

    def test_blanks_around_what_was_said_do_not_matter(self, tmp_path: Path) -> None:
        assert judge(tmp_path, b"p99_ms=1 status= OK  \n", valid_when=["status == OK", "p99_ms == 1"]).valid is True

    def test_numbers_are_compared_exactly(self, tmp_path: Path) -> None:
        output = b"p99_ms=9007199254740993 status=x\n"
        assert judge(tmp_path, output, valid_when="p99_ms == 9007199254740992").valid is False
        assert judge(tmp_path, output, valid_when="p99_ms == 9007199254740993.0").valid is True

    def test_number_too_large_for_a_figure(self, tmp_path: Path) -> None:
        result = judge(tmp_path, b"p99_ms=1e999 status=x\n", valid_when="p99_ms > 1")
        assert result == MainResult(valid=True, complaints=(), metrics={})

    def test_last_match_wins(self, tmp_path: Path) -> None:
        output = b"p99_ms=99 status=first\n" + self.LINE + b"p99_ms=7 status=last without an end of line"
        assert judge(tmp_path, output, valid_when="p99_ms == 7").valid is True

    @pytest.mark.parametrize("filler", [b"", b"x" * 100 + b"\n", b"warming up\n" * (1 << 19)])
    def test_what_was_printed_before_the_start_is_no_result(self, tmp_path: Path, filler: bytes) -> None:
        folder = tmp_path / "workers" / "0-main-main"
        folder.mkdir(parents=True)
        main = plan_of(spec := spec_of(replace(MAIN, valid_when="p99_ms < 10"))).main
        warm_up = filler + b"p99_ms=1 status=warm\n"
        (folder / "stdout.log").write_bytes(warm_up + STARTED + b"nothing more\n")
        assert harness_of(spec).result(main, spec, tmp_path).valid is False
        (folder / "stdout.log").write_bytes(warm_up + STARTED + self.LINE)
        assert harness_of(spec).result(main, spec, tmp_path).complaints == (
            "p99_ms is 12.50, and p99_ms < 10 was asked for",
        )
        (folder / "stdout.log").write_bytes(warm_up + STARTED + filler + b"p99_ms=2 status=cool")
        assert harness_of(spec).result(main, spec, tmp_path).metrics == {"p99_ms": 2.0}

    def test_no_start_is_no_word_about_the_result(self, tmp_path: Path) -> None:
        folder = tmp_path / "workers" / "0-main-main"
        folder.mkdir(parents=True)
        (folder / "stdout.log").write_bytes(self.LINE)
        main = plan_of(spec := spec_of(MAIN)).main
        with pytest.raises(EvidenceError, match="matches the start pattern"):
            harness_of(spec).result(main, spec, tmp_path)

    def test_carriage_returns_end_lines(self, tmp_path: Path) -> None:
        assert judge(tmp_path, b"50 %\r100 %\rp99_ms=7 status=OK\r\n", valid_when="status == OK").valid is True

    @pytest.mark.parametrize("output", [b"", b"p99_ms=1\n", b"say p99_ms=1 status=x\n"])
    def test_no_result_is_not_valid(self, tmp_path: Path, output: bytes) -> None:
        result = judge(tmp_path, output)
        assert result.valid is False
        assert "0-main-main/stdout.log matches its result pattern" in result.complaints[0]

    def test_escapes_do_not_get_into_complaints(self, tmp_path: Path) -> None:
        result = judge(tmp_path, b"p99_ms=1 status=\x1b]0;x\x07\x1b[31mred\x9b\n", valid_when="status == OK")
        assert "status is 'red" in result.complaints[0]
        assert not {"\x1b", "\x07", "\x9b"} & set(result.complaints[0])

    def test_output_that_is_not_there_or_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceError, match="cannot be read: No such file"):
            judge(tmp_path, None)
        os.mkfifo(tmp_path / "workers/0-main-main/stdout.log")
        with pytest.raises(EvidenceError, match="is not a regular file"):
            judge(tmp_path, None)

    def test_large_output_is_read_in_pieces(self, tmp_path: Path) -> None:
        noise = random.Random(0)  # noqa: S311 - nothing is kept secret by it
        filler = b"".join(noise.randbytes(999).replace(b"\n", b" ") + b"\n" for _ in range(2000))
        spec = spec_of(replace(MAIN, valid_when=["p99_ms == 3"]))
        main = plan_of(spec).main
        log = tmp_path / main.directory / "stdout.log"
        log.parent.mkdir(parents=True)
        with log.open("wb") as file:
            file.write(STARTED)
            for number in range(24):
                file.write(filler + (f"p99_ms={number} status=x\n".encode() if number < 4 else b""))
            file.write(b"x" * MAX_READ_BYTES)
        tracemalloc.start()
        try:
            assert harness_of(spec).result(main, spec, tmp_path).valid is True
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 8 * MAX_READ_BYTES < log.stat().st_size


def _loadgen_log(folder: Path, *, valid: str = "VALID", **values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entries = {"effective_scenario": "Offline", "result_validity": valid, "result_samples_per_second": 50.0, **values}
    lines = [f":::MLLOG {json.dumps({'key': key, 'value': value, 'time_ms': 1.5})}\n" for key, value in entries.items()]
    (folder / "mlperf_log_detail.txt").write_text("".join(lines))
    (folder / "mlperf_log_summary.txt").write_text(f"Result is : {valid}\n")


class TestLoadgenLogs:
    FOLDER = "workers/0-main-main/logs"

    def test_loadgen_judges_alone_where_nothing_else_is_asked_for(self, tmp_path: Path) -> None:
        _loadgen_log(tmp_path / self.FOLDER)
        result = judge(tmp_path, b"", loadgen_logs="logs", result=None)
        assert result == MainResult(valid=True, complaints=(), metrics={"result_samples_per_second": 50.0})
        _loadgen_log(tmp_path / self.FOLDER, valid="INVALID")
        assert judge(tmp_path, b"", loadgen_logs="logs", result=None).valid is False

    @pytest.mark.parametrize(
        ("loadgen", "output", "valid"),
        [
            ("VALID", b"p99_ms=1 status=OK\n", True),
            ("VALID", b"p99_ms=1 status=bad\n", False),
            ("VALID", b"", False),
            ("INVALID", b"p99_ms=1 status=OK\n", False),
            ("neither", b"p99_ms=1 status=OK\n", None),
            ("neither", b"p99_ms=1 status=bad\n", False),
        ],
    )
    def test_both_have_to_agree(self, tmp_path: Path, loadgen: str, output: bytes, valid: bool | None) -> None:  # noqa: FBT001
        _loadgen_log(tmp_path / self.FOLDER, valid=loadgen)
        result = judge(tmp_path, output, loadgen_logs="logs", valid_when="status == OK")
        assert result.valid is valid
        assert bool(result.complaints) is (valid is None or b"OK" not in output)

    def test_figures_of_both(self, tmp_path: Path) -> None:
        _loadgen_log(tmp_path / self.FOLDER)
        result = judge(tmp_path, b"p99_ms=1 status=OK\n", loadgen_logs="logs")
        assert result.metrics == {"result_samples_per_second": 50.0, "p99_ms": 1.0}

    def test_log_that_is_not_there_is_missing_evidence(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceError, match=r"mlperf_log_detail\.txt cannot be read"):
            judge(tmp_path, b"p99_ms=1 status=OK\n", loadgen_logs="logs")

    def test_where_the_log_is_looked_for(self, tmp_path: Path) -> None:
        spec = spec_of(replace(LOGGING, loadgen_logs="a/b"))
        main, background = plan_of(spec).workers[:2]
        place = harness_of(spec).logs(main, spec, tmp_path)
        assert place is not None
        assert place.detail_logs() == []
        _loadgen_log(tmp_path / "workers/0-main-main/a/b")
        found = tmp_path / "workers/0-main-main/a/b/mlperf_log_detail.txt"
        assert place.detail_logs() == [found]
        assert harness_of(spec).detail_logs(main, tmp_path) == (found,)
        assert harness_of(spec).logs(background, spec, tmp_path) is None
        assert harness_of(spec).detail_logs(background, tmp_path) == ()


class TestDocument:
    TEXT = (Path(__file__).parents[2] / "docs/command-harness.md").read_text(encoding="utf-8")

    def test_its_example_is_a_configuration(self, tmp_path: Path) -> None:
        (toml,) = re.findall(r"^```toml$(.*?)^```$", self.TEXT, re.DOTALL | re.MULTILINE)
        (tmp_path / "example.toml").write_text(toml, encoding="utf-8")
        spec = resolve(read_config(tmp_path / "example.toml"))
        assert (spec.main.benchmark, spec.background.candidates) == ("latency", ("neighbour",))

    def test_it_explains_every_key_and_placeholder(self) -> None:
        rows = re.findall(r"^\| (`.*?`) \|", self.TEXT, re.MULTILINE)
        explained = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
        keys = {field.encode_name for field in fields(CommandConfig)}
        assert explained == keys | {f"{{{name}}}" for name in KNOWN}


def test_worker_of_a_command_that_the_journal_does_not_have(tmp_path: Path) -> None:
    spec = spec_of()
    stranger = replace(plan_of(spec).main, benchmark="stranger")
    with pytest.raises(EvidenceError, match=r"no \[command.stranger\]: its journal was altered"):
        harness_of(spec).detail_logs(stranger, tmp_path)


def test_command_by_which_nothing_can_be_judged(tmp_path: Path) -> None:
    spec = spec_of(BESIDE, more={"beside": MAIN})
    with pytest.raises(EvidenceError, match="says nothing by which its result could be judged"):
        harness_of(spec).result(plan_of(spec).main, spec, tmp_path)


def test_altered_command_is_a_usage_error_wherever_it_comes_from() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        CommandHarness((CommandSpec(name="x", argv=("x",), model="x", scenarios=("offline",), start="("),))


RUNAWAY = "^(a+)+b$"
"""Twice as long for each further a."""


def test_a_mark_that_runs_away_is_given_up() -> None:
    (start, *_) = lines_of(re.compile(RUNAWAY.encode(), re.MULTILINE), None)
    log = HarnessLog(0, (start,))
    with pytest.raises(UsageError, match="took more than 1 s on what a program printed"):
        log.feed(b"a" * 60 + b"\n", 0)
    assert [type(event) for event in log.feed(b"aab\n", 0)] == [StartAnnounced]
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_result_that_runs_away_is_missing_evidence(tmp_path: Path) -> None:
    output = tmp_path / "stdout.log"
    output.write_bytes(b"a" * 60 + b"\n")
    with pytest.raises(EvidenceError, match="took more than 10 s"):
        last_match(output, re.compile(RUNAWAY.encode(), re.MULTILINE))
