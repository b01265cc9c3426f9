from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from heteromig.core.plan import Assignment, build_assignment, make_plan
from heteromig.core.spec import Drain, Goal, Mode, RunSpec
from heteromig.views.plan_view import plan_text
from heteromig.workers.command import Command
from tests.views.stories import Story, make_inventory, make_spec

ECHO = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"


def plan_lines(
    spec: RunSpec, commands: list[tuple[Assignment, Command]], *, slices: int = 4, simulated: bool = True
) -> list[str]:
    inventory = make_inventory(slices=slices, simulated=simulated)
    plan = make_plan(spec, inventory, (0, 1, 2))
    text = plan_text(spec, plan, inventory, commands, run_dir=Path("/runs/<run>"), here=Path("/here"))
    return text.splitlines()


def test_the_plan_says_who_goes_where_and_who_was_left_out() -> None:
    lines = plan_lines(make_spec(), [])
    assert lines[0] == "SIMULATED: no GPU is involved, and no figure of this run is a measurement of one."
    assert lines[1] == "NVIDIA A100-SXM4-80GB GPU-00c0ffee-1111-2222-3333-444444444444: 4 slices"
    assert lines[3].split() == (
        ["WORKER", "ROLE", "BENCHMARK", "SCENARIO", "MODE", "ACCURACY", "DURATION", "PROFILE", "CPUS", "SLICE"]
    )
    assert lines[4].split() == [
        *("0", "main", "resnet50", "offline", "performance", "99", "10.0", "s", "1g.10gb", "2"),
        "MIG-0000beef-aaaa-5bbb-8ccc-dddddddddddd",
    ]
    assert [line.split()[:2] for line in lines[5:8]] == [[str(n), "background"] for n in (1, 2, 3)]
    assert all(" 0-1 " in line for line in lines[5:8])
    assert lines[9:] == [
        "Engines: 4 needed, all built.",
        "Backgrounds: asked to run for 2:06 min (automatic); they are stopped when main has ended.",
        "Main starts 3.0 s after the last background is timed.",
        "Left out, for want of slices: ssd-resnet34, dlrm, rnnt.",
        "heteromig itself runs on processors 0-1.",
    ]


def test_what_is_asked_for_changes_the_words() -> None:
    spec = make_spec(mode=Mode.ACCURACY)
    background = msgspec.structs.replace(spec.background, duration_ms=90_000)
    spec = msgspec.structs.replace(spec, background=background, drain=Drain.WAIT, pin=False, uses_gpu=True)
    text = "\n".join(plan_lines(spec, [], slices=7, simulated=False))
    assert "SIMULATED" not in text
    assert " every sample " in text
    assert "asked to run for 1:30 min; they may finish after main." in text
    assert "Left out" not in text
    assert "heteromig itself" not in text
    assert " any " in text


def test_programs_have_no_engines_to_speak_of() -> None:
    spec = msgspec.structs.replace(make_spec(), harness="command")
    assert not any("Engines" in line for line in plan_lines(spec, []))


def test_a_build_shows_what_is_built(tmp_path: Path) -> None:
    spec = make_spec(goal=Goal.BUILD)
    target = Story(spec).discover().plan.main
    build = build_assignment((target.engine,), 7, target)
    lines = plan_lines(spec, [(build, Command(argv=("true",), env={}, cwd=tmp_path))])
    assert lines[4].split()[:3] == ["7", "build", "resnet50"]
    assert "Engines: 4 needed, 1 to build first." in lines
    assert not any("background" in line for line in lines)


def test_a_build_of_several_engines_counts_as_many(tmp_path: Path) -> None:
    plan = Story(make_spec()).discover().plan
    build = build_assignment(plan.engines[:3], 7, plan.main)
    lines = plan_lines(make_spec(), [(build, Command(argv=("true",), env={}, cwd=tmp_path))])
    assert "Engines: 4 needed, 3 to build first." in lines


@pytest.mark.parametrize("odd", ["ODD", "IT'S-ODD", "ö"])
def test_a_pasted_command_is_exactly_the_worker(tmp_path: Path, odd: str) -> None:
    folder = tmp_path / "it's a <run>"
    folder.mkdir()
    argv = ("two words", "$HOME `id`", "line\nbreak", "\x1b[31m", "--qps=1", "A=b c", "=", "A=")
    env = {"CUDA_VISIBLE_DEVICES": "MIG-1", "TRICKY": "it's; rm -rf \t*", "EMPTY": "", odd: "odd one"}
    main = Story().discover().plan.main
    command = Command(argv=(sys.executable, "-c", ECHO, *argv), env=env, cwd=folder)
    text = "\n".join(plan_lines(make_spec(), [(main, command)]))
    assert "\x1b" not in text
    pasted = text[text.index("# worker 0: main resnet50 on MIG-0000beef") :]
    done = subprocess.run(["bash", "-c", pasted], capture_output=True, check=True, cwd=tmp_path)
    seen_argv, seen_env, seen_cwd = json.loads(done.stdout)
    assert seen_argv == list(argv)
    assert {name: seen_env.get(name) for name in env} == env
    assert seen_cwd == str(folder)


def _make(cwd: str, target: str, run_args: str) -> Command:
    env = {"CUDA_VISIBLE_DEVICES": "MIG-1", "LOG_DIR": "/runs/<run>/logs"}
    return Command(argv=("make", target, f"RUN_ARGS={run_args}"), env=env, cwd=Path(cwd))


def test_each_command_is_a_line_that_begins_with_its_slice() -> None:
    plan = Story().discover().plan
    commands = [
        (plan.workers[1], _make("/runs/<run>/tree", "run_harness", "--benchmarks=bert --scenarios=offline")),
        (plan.main, _make("/here", "run_audit_test01", "--benchmarks=resnet50")),
    ]
    lines = plan_lines(make_spec(), commands)
    visible = "CUDA_VISIBLE_DEVICES=MIG-1 LOG_DIR='/runs/<run>/logs'"
    at = lines.index("Commands, in the order of starting; <run> stands for the name of the run:")
    name, uuid = plan.workers[1].benchmark, plan.workers[1].slice_uuid
    assert lines[at + 1 :] == [
        "",
        f"# worker 1: background {name} on {uuid}, pinned to processors 0-2",
        "cd '/runs/<run>/tree' &&",
        f"{visible} make run_harness RUN_ARGS='--benchmarks=bert --scenarios=offline'",
        "",
        f"# worker 0: main resnet50 on {plan.main.slice_uuid}, pinned to processors 3",
        "cd /here &&",
        f"{visible} make run_audit_test01 RUN_ARGS=--benchmarks=resnet50",
    ]


def test_no_directory_is_named_where_all_are_started_here() -> None:
    plan = Story().discover().plan
    text = "\n".join(plan_lines(make_spec(), [(plan.main, Command(argv=("true",), env={}, cwd=Path("/here")))]))
    assert "cd " not in text
    assert text.endswith("\nCommands, in the order of starting:\n\n" + text.splitlines()[-2] + "\ntrue")


def test_a_build_of_several_engines_names_them_all() -> None:
    plan = Story().discover().plan
    needs = tuple(
        msgspec.structs.replace(plan.main.engine, benchmark=name, scenario=scenario, config_ver="hetero")
        for name in ("resnet50", "bert")
        for scenario in ("offline", "server")
    )
    build = build_assignment(needs, 7, plan.main)
    lines = plan_lines(make_spec(goal=Goal.BUILD), [(build, _make("/here", "generate_engines", ""))])
    assert lines[3].split()[-5:] == ["CONFIG", "DURATION", "PROFILE", "CPUS", "SLICE"]
    row = ["7", "build", "resnet50,bert", "offline,server", "-", "99", "hetero", "-", "1g.10gb"]
    assert lines[4].split()[:9] == row
    assert "Engines: 4 needed, 4 to build first." in lines
    assert any(line.startswith("# worker 7: build hetero: resnet50, bert x offline, server on ") for line in lines)
