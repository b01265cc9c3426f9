"""Options of `run`, `plan` and `build`: what each says, in every spelling."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from heteromig.cli.command import ALIASES
from heteromig.cli.main import app
from heteromig.core.errors import PreflightError, UsageError

VALUES = {
    "main-benchmark": "resnet50",
    "main-scenario": "server",
    "main-benchmark-duration": "90s",
    "main-mode": "accuracy",
    "main-accuracy": "99.9",
    "main-slice": "1",
    "background-benchmarks": "dlrm,rnnt",
    "background-scenario": "server",
    "background-benchmark-duration": "5m",
    "background-benchmark-timeout": "3h",
    "drain": "wait",
    "lenient": None,
    "allow-busy": None,
    "main-action": "run_audit_test01",
    "main-benchmark-runargs": "--power_limit=300 --a_b='c d'",
    "main-benchmark-cmd-prefix": "nsys profile --trace=cuda,nvtx -o main",
    "main-config-ver": "hetero_triton",
    "background-config-ver": "hetero_triton",
    "start-from-device": None,
    "verbose": None,
    "verbose-all": None,
    "harness-dir": "other",
    "slices": "sim:a30",
    "gpu": "0",
    "layout": "7x1g.10gb",
    "enable-mig-mode": None,
    "harness": "loadgen",
    "seed": "3",
    "no-pin": None,
    "runs-dir": "my_runs",
    "engines-dir": "my_engines",
    "allow-shared-dirs": None,
    "rebuild": None,
    "start-time-buffer": "7s",
    "main-benchmark-immediate-start": "True",
    "start-evidence": "announced",
    "background-start-timeout": "8m",
    "end-time-buffer-min": "9s",
    "gap-threshold": "6s",
    "build-timeout": "10m",
    "main-timeout": "11m",
    "main-exit-timeout": "12s",
    "clean-stop": "13s",
    "grace": "14s",
    "sample-period": "150",
}
"""An option each, with a value that changes the specification of a run of bert in NVIDIA's tree."""

ELSEWHERE = {
    *{"config", "main-target-qps", "sim-faults", "repeat"},
    *{"dry-run", "live", "quiet", "report", "json", "events", "debug", "help"},
}
"""Options that the table cannot hold: they say nothing to NVIDIA's tree, or nothing about the run."""

TUNING = {"isolated", "probe-duration", "confirm", "precision", "start-qps"}
MATRIX = {"mains", "scenarios", "background-set", "one-at-a-time", "repetitions", "retries"}
CAMPAIGN = {"resume", "format"}
"""Options of `tune`, of `matrix`, and of both; others neither show them nor take them on the command line."""

APART = {"main-benchmark", "main-mode", "main-action", "harness", "harness-dir", "slices", "runs-dir"}
"""Options of the table that do not go with all others of it, or that change where the rest is looked for."""


COMMANDS = cast("Any", typer.main.get_command(app)).commands
"""Made once: that takes longer than most of the tests."""


def _call(*argv: str, **environ: str) -> Result:
    result = CliRunner().invoke(app, argv, env=dict(environ))
    if isinstance(result.exception, (UsageError, PreflightError)):
        raise result.exception
    return cast("Result", result)


def _spec(*argv: str) -> dict[str, Any]:
    memory = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(memory)) as out:
        COMMANDS["plan"].main([*argv, "--json"], prog_name="plan", standalone_mode=False)
        out.flush()
        return cast("dict[str, Any]", json.loads(memory.getvalue())["spec"])


@pytest.fixture(autouse=True, scope="module")
def _tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A directory that has two of NVIDIA's trees as far as planning can tell, the first to be in."""
    home = tmp_path_factory.mktemp("home")
    for tree in (home, home / "other"):
        (tree / "code" / "common").mkdir(parents=True)
        (tree / "Makefile").touch()
        (tree / "code" / "main_v2.py").touch()
    programs = home / "programs"
    programs.mkdir()
    for name in ("nsys", "--main_slice", "--dryrun"):  # what a prefix begins with has to be there
        (programs / name).touch(mode=0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs), prepend=os.pathsep)
        patch.chdir(home)
        patch.setenv("HETEROMIG_SLICES", "sim:a100-sxm-80gb")
        patch.setenv("HETEROMIG_MAIN_BENCHMARK", "bert")
        yield home


def _said(option: str, name: str | None = None, *, joined: bool = False) -> tuple[str, ...]:
    value = VALUES[option]
    flag = f"--{name or option}"
    if value is None:
        return (flag,)
    return (f"{flag}={value}",) if joined else (flag, value)


def _names(option: str) -> list[str]:
    """Every spelling of an option."""
    aliases = [alias for alias, known in ALIASES.items() if known == option]
    return [spelling for name in [option, *aliases] for spelling in {name, name.replace("-", "_")}]


def test_the_table_has_every_option() -> None:
    names = {name.lstrip("-") for param in COMMANDS["run"].params for name in (*param.opts, *param.secondary_opts)}
    told = {*VALUES, *ELSEWHERE, *TUNING, *MATRIX, *CAMPAIGN}
    assert {name for name in names if len(name) > 1 and name not in told and f"no-{name}" not in told} - {"help"} == {
        "no-allow-busy",
        "no-allow-shared-dirs",
        "no-enable-mig-mode",
        "no-isolated",
        "no-lenient",
        "no-live",
        "no-one-at-a-time",
        "no-rebuild",
        "no-report",
        "no-start-from-device",
        "no-verbose",
        "no-verbose-all",
    }
    assert told - names == {"help"}


@pytest.mark.parametrize("option", VALUES)
def test_every_spelling_says_the_same(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _spec(*_said(option))
    assert said != _spec()
    assert [_spec(*_said(option, name)) for name in _names(option)] == [said] * len(_names(option))
    variable = f"HETEROMIG_{option.removeprefix('no-').upper().replace('-', '_')}"
    monkeypatch.setenv(variable, VALUES[option] or ("0" if option.startswith("no-") else "1"))
    assert _spec() == said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spelling_and_order_do_not_matter(data: st.DataObject) -> None:
    options = data.draw(st.lists(st.sampled_from(sorted(VALUES.keys() - APART)), unique=True))
    plain = [word for option in options for word in _said(option)]
    fancy = [
        word
        for option in data.draw(st.permutations(options))
        for word in _said(option, data.draw(st.sampled_from(_names(option))), joined=data.draw(st.booleans()))
    ]
    assert _spec(*fancy) == _spec(*plain)


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run", "--dryrun"])
def test_dry_run_is_plan(flag: str) -> None:
    assert json.loads(_call("run", flag, "--json").stdout)["spec"] == _spec()


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "baseline",
        "plan",
        "build",
        "tune",
        "compare",
        "slices",
        "states",
        "verify",
        "clean",
        "import-results",
    ],
)
def test_help_shows_one_spelling_in_80_columns(command: str) -> None:
    words = (command,) if command else ()
    text = _call(*words, "--help", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"--\w*_\w*", text) == []
    for alias in ALIASES:
        assert f"--{alias} " not in text


def _shown(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w, )?--(?:\[no-\])?([\w-]+)", text, re.MULTILINE))


def test_help_of_run_has_every_option_in_its_group() -> None:
    text = _call("run", "--help", COLUMNS="80").stdout
    assert _shown(text) == {name.removeprefix("no-") for name in {*VALUES, *ELSEWHERE}}
    groups = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert groups == [
        *("Main", "Backgrounds", "NVIDIA's tree (harness make)", "Where it runs", "Timing", "Comparison"),
        *("Output", "Others"),
    ]
    assert "HETEROMIG_MAIN_BENCHMARK for --main-benchmark" in " ".join(text.split())


@pytest.mark.parametrize(("command", "own"), [("tune", TUNING), ("matrix", MATRIX)])
def test_help_of_campaigns_has_their_own_options_too(command: str, own: set[str]) -> None:
    text = _call(command, "--help", COLUMNS="80").stdout
    assert _shown(text) == {name.removeprefix("no-") for name in {*VALUES, *ELSEWHERE, *own, *CAMPAIGN}}
    assert "Campaign:" in text


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        ("run", ("--confirm", "3"), "is for tune, which makes several runs"),
        ("matrix", ("--isolated",), "is for tune, which makes several runs"),
        ("run", ("--start_qps", "5"), "is for tune, which makes several runs"),
        ("tune", ("--mains", "bert"), "is for matrix, which makes several runs"),
        ("run", ("--background_set", "a=bert"), "is for matrix, which makes several runs"),
        ("run", ("--resume", "x"), "is for tune and matrix, which make several runs"),
    ],
)
def test_options_of_campaigns_are_refused_elsewhere(command: str, option: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _call(command, *option)


def test_variables_of_tune_are_left_alone_elsewhere() -> None:
    assert _call("plan", HETEROMIG_CONFIRM="3", HETEROMIG_ISOLATED="1").exit_code == 0


def test_a_dry_run_of_tune_says_what_is_bounded_and_the_first_commands() -> None:
    argv = ("--dry-run", "--harness", "loadgen", "--slices", "sim:a30", "--main-scenario", "server", "--confirm", "3")
    text = _call("tune", *argv).stdout
    assert text.startswith("Tune bert server alone and then beside its backgrounds, at most 0.01 of the queries")
    assert text.count("--target-qps 100") == 2
    told = json.loads(_call("tune", *argv, "--json").stdout)
    assert told["tune"]["confirmations"] == 3
    assert {side: len(run["workers"]) for side, run in told["runs"].items()} == {"isolated": 1, "beside": 4}
    assert {run["spec"]["main"]["target-qps"] for run in told["runs"].values()} == {100}


def test_a_dry_run_of_tune_in_the_tree_shows_the_rate_as_the_tree_takes_it() -> None:
    text = _call("tune", "--dry-run", "--start-qps", "70").stdout
    assert text.count("--offline_expected_qps=70'") == 2, "alone, and beside"


@pytest.mark.parametrize("argv", [("--slices", "sim:a30", "--runs_dir", "x"), ("--slices=sim:a30", "--runs-dir=x")])
def test_other_commands_take_both_spellings_too(argv: tuple[str, ...]) -> None:
    found = json.loads(_call("slices", *argv, "--json").stdout)["inventory"]
    told = _call("slices", "--json", HETEROMIG_SLICES="sim:a30", HETEROMIG_RUNS_DIR="x").stdout
    assert found == json.loads(told)["inventory"]


@pytest.mark.parametrize(
    "argv",
    [
        ("--main_benchmark_runargs=--test_mode=AccuracyOnly",),
        ("--main_benchmark_runargs", "--test_mode=AccuracyOnly"),
        ("--main-benchmark-runargs", "--test_mode=AccuracyOnly"),
        ("--main-benchmark-runargs=--test_mode=AccuracyOnly",),
        ("--main-benchmark-runargs", "--test_mode AccuracyOnly"),
    ],
)
def test_a_value_that_looks_like_an_option_stays_as_it_is(argv: tuple[str, ...]) -> None:
    main = _spec(*argv)["main"]
    assert main["mode"] == "accuracy"
    assert main["run-args"] == argv[-1].removeprefix("--main_benchmark_runargs=").removeprefix(
        "--main-benchmark-runargs="
    ).split(" ")


def test_a_value_that_is_an_option_of_ours_stays_as_it_is() -> None:
    assert _spec("--main-benchmark-cmd-prefix", "--main_slice")["main"]["cmd-prefix"] == ["--main_slice"]
    assert _spec("--main_benchmark_cmd_prefix", "--dryrun")["main"]["cmd-prefix"] == ["--dryrun"]


def test_arguments_are_split_as_a_shell_would() -> None:
    main = _spec("--main_benchmark_runargs", "--a='b c' --d", "--main_benchmark_cmd_prefix", "nsys profile -o 'my run'")
    assert main["main"]["run-args"] == ["--a=b c", "--d"]
    assert main["main"]["cmd-prefix"] == ["nsys", "profile", "-o", "my run"]


@pytest.mark.parametrize("option", ["--main-benchmark-runargs", "--main_benchmark_cmd_prefix"])
def test_what_is_left_open_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option.replace('_', '-')} cannot be split .*no closing quotation"):
        _spec(option, "--a='b")


@pytest.mark.parametrize(
    ("said", "buffer_ms"),
    [("True", 0), ("true", 0), ("1", 0), ("yes", 0), ("False", 600_000), ("false", 600_000), ("0", 600_000)],
)
def test_immediate_start_means_what_it_says(said: str, buffer_ms: int) -> None:
    for argv in ((f"--main_benchmark_immediate_start={said}",), ("--main-benchmark-immediate-start", said)):
        assert _spec(*argv)["timing"]["start-time-buffer-ms"] == buffer_ms


def test_of_a_buffer_and_an_immediate_start_the_nearer_one_counts(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[main]\nimmediate-start = true\n")
    file, buffer = ("--config", str(config)), ("--start-time-buffer", "30s")

    def buffer_ms(*argv: str, **environ: str) -> int:
        found = json.loads(_call("plan", *argv, "--json", **environ).stdout)["spec"]["timing"]["start-time-buffer-ms"]
        return cast("int", found)

    assert buffer_ms(*file) == 0
    assert buffer_ms(*file, *buffer) == 30_000
    assert buffer_ms(*file, HETEROMIG_START_TIME_BUFFER="30s") == 30_000
    assert buffer_ms(*buffer, HETEROMIG_MAIN_BENCHMARK_IMMEDIATE_START="true") == 30_000
    assert buffer_ms("--main-benchmark-immediate-start=true", HETEROMIG_START_TIME_BUFFER="30s") == 0
    assert buffer_ms(*buffer, "--main-benchmark-immediate-start=true") == 0, "as the original launcher has it"


def test_a_variable_that_says_how_often_is_for_run() -> None:
    assert _call("plan", HETEROMIG_REPEAT="3").exit_code == 0
    assert _call("run", "--dry-run", HETEROMIG_REPEAT="3").exit_code == 0
    with pytest.raises(UsageError, match="--repeat is for run"):
        _call("plan", "--repeat", "3")


def test_immediate_start_is_true_or_false() -> None:
    with pytest.raises(UsageError, match="--main-benchmark-immediate-start is 'maybe': say true or false"):
        _spec("--main-benchmark-immediate-start=maybe")


def test_names_in_any_case() -> None:
    spec = _spec(
        *("--main-benchmark", "BERT", "--main-scenario", "SingleStream", "--main-action", "RUN_HARNESS"),
        *("--background-benchmarks", "RNNT, 3D-UNet", "--background-scenario", "Offline", "--drain", "Kill"),
        *("--background-benchmark-duration", "Automatic", "--start-evidence", "Timed", "--main-mode", "Performance"),
    )
    plain = _spec("--main-scenario", "singlestream", "--background-benchmarks", "rnnt,3d-unet", "--drain", "kill")
    assert spec == plain
    assert _spec("--background-benchmarks", "DataCenter") == _spec("--background-benchmarks", "datacenter")
    assert _spec("--background-benchmarks", "None") == _spec("--background-benchmarks", "none")


def test_target_is_for_the_embedded_harness() -> None:
    flags = ("--harness", "loadgen", "--slices", "sim:a30", "--background-benchmarks", "none")
    for name in ("--main-target-qps", "--main_target_qps"):
        assert _spec(*flags, name, "12.5")["main"]["target-qps"] == 12.5


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("--main-benchmrk", "bert"), "--main-benchmark"),
        (("--main_benchmrk=bert",), "--main-benchmark"),
        (("--background_benchmarks_duration", "1"), "--background-benchmark-duration"),
        (("--lenientt",), "--lenient"),
        (("--dryruns",), "--dryrun"),
    ],
)
def test_mistyped_options_are_answered_with_what_was_meant(argv: tuple[str, ...], hint: str) -> None:
    result = _call("run", *argv)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "Did you mean" in result.stderr or "possible" in result.stderr.lower()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("run", "--json", "--events"), "--json and --events would both write to standard output: choose one"),
        (("plan", "--events"), "--events shows what happens, and a plan launches nothing"),
        (("run", "--dryrun", "--events"), "--events shows what happens, and a plan launches nothing"),
        (("run", "--live", "--debug"), "--live and --debug would both write to standard error: choose one"),
    ],
)
def test_contradictions_are_refused(argv: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        _call(*argv)


def test_a_dry_run_may_be_asked_to_debug() -> None:
    assert _call("run", "--dryrun", "--debug", "--verbose").exit_code == 0
