"""What of `RUN_ARGS` is the user's own, and that it gets through real make and its shell unharmed."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromig.core.errors import UsageError
from heteromig.core.spec import Mode
from heteromig.harnesses.make.arguments import (
    START_FROM_DEVICE,
    VERBOSE,
    require_for_backgrounds,
    run_args,
    settle_mode,
    split_arguments,
)

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"))
"""Whatever can be an argument of a program, but for a line break."""


# --- splitting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", ()),
        ("   \t ", ()),
        ("--test_mode=AccuracyOnly", ("--test_mode=AccuracyOnly",)),
        ("--a=1  --b 2", ("--a=1", "--b", "2")),
        ("'--name=two words' \"--other=it's\" --c=\\ d", ("--name=two words", "--other=it's", "--c= d")),
        ("--x=$HOME `id` * ~ {a,b} #no", ("--x=$HOME", "`id`", "*", "~", "{a,b}", "#no")),
        ("a;b && c|d >e", ("a;b", "&&", "c|d", ">e")),
        ("''", ("",)),
        (["--a=two words", "", "'"], ("--a=two words", "", "'")),
        ([], ()),
    ],
)
def test_arguments_are_split_as_a_shell_would_with_nothing_expanded(
    said: str | list[str], found: tuple[str, ...]
) -> None:
    assert split_arguments("--option", said) == found


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("--a='open", "no closing quotation"),
        ('--a="open', "no closing quotation"),
        ("--a=\\", "no escaped character"),
    ],
)
def test_what_is_left_open_is_refused(said: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_arguments("--main-benchmark-runargs", said)
    assert str(caught.value) == f"--main-benchmark-runargs cannot be split ({why}): {said!r}. Close what is open."


@pytest.mark.parametrize("said", ["'two\nlines'", ["two\nlines"], ["nul\0"], ["fine", "\n"]])
def test_what_no_recipe_can_pass_on_is_refused(said: str | list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--o holds a line break, which make cannot pass on"):
        split_arguments("--o", said)


def test_a_line_break_between_arguments_parts_them() -> None:
    assert split_arguments("--o", "--a\n--b") == ("--a", "--b")


@given(st.lists(WORDS))
def test_a_list_and_the_text_of_it_are_the_same(words: list[str]) -> None:
    assert split_arguments("--o", words) == split_arguments("--o", shlex.join(words)) == tuple(words)


# --- the mode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, *Mode])
def test_a_mode_that_nobody_says_is_that_of_the_option(mode: Mode | None) -> None:
    own = ("--fast", "--other=AccuracyOnly")
    assert settle_mode(own, mode) == (mode or Mode.PERFORMANCE, own)


@pytest.mark.parametrize(
    ("said", "mode"),
    [("PerformanceOnly", Mode.PERFORMANCE), ("SubmissionRun", Mode.PERFORMANCE), ("AccuracyOnly", Mode.ACCURACY)],
)
@pytest.mark.parametrize("joined", [True, False])
def test_the_arguments_may_say_the_mode(said: str, mode: Mode, *, joined: bool) -> None:
    own = ("--fast", *((f"--test_mode={said}",) if joined else ("--test_mode", said)), "--slow")
    assert settle_mode(own, None) == settle_mode(own, mode) == (mode, own)
    other = Mode.ACCURACY if mode is Mode.PERFORMANCE else Mode.PERFORMANCE
    with pytest.raises(UsageError) as caught:
        settle_mode(own, other)
    assert str(caught.value) == (
        f"--main-benchmark-runargs holds --test_mode={said}, and --main-mode is {other.value}: leave one out."
    )


def test_the_last_mode_is_the_one_that_counts_as_it_does_for_the_driver() -> None:
    assert settle_mode(("--test_mode=AccuracyOnly", "--test_mode=PerformanceOnly"), None)[0] is Mode.PERFORMANCE
    assert settle_mode(("--test_mode=PerformanceOnly", "--test_mode", "AccuracyOnly"), None)[0] is Mode.ACCURACY


@pytest.mark.parametrize("own", [("--test_mode=accuracy",), ("--test_mode=",), ("--test_mode",), ("--test_mode", "-x")])
def test_a_mode_that_loadgen_does_not_have_is_refused(own: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"which is none of PerformanceOnly, SubmissionRun, AccuracyOnly\.$"):
        settle_mode(own, None)


@pytest.mark.parametrize(
    ("one", "option"),
    [
        ("--benchmarks=bert", "--main-benchmark"),
        ("--scenarios=server", "--main-scenario"),
        ("--config_ver=hetero", "--main-config-ver"),
        ("--min_duration", "--main-benchmark-duration"),
        ("--action=calibrate", "--main-action"),
        ("--audit_test=TEST01", "--main-action"),
    ],
)
def test_what_an_option_says_is_not_said_among_the_arguments(one: str, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        settle_mode(("--fine", one), None)
    assert str(caught.value) == f"--main-benchmark-runargs holds {one}: say it with {option}, so that heteromig knows."
    with pytest.raises(UsageError, match="which heteromig writes itself"):
        require_for_backgrounds(("--fine", one))


def test_backgrounds_measure_performance_and_nothing_else() -> None:
    with pytest.raises(UsageError, match=r"hold --test_mode=AccuracyOnly, which heteromig writes itself"):
        require_for_backgrounds(("--test_mode=AccuracyOnly",))


@given(st.lists(WORDS.map("--own_{}".format), max_size=5).map(tuple))
def test_the_users_own_arguments_are_left_as_they_are(own: tuple[str, ...]) -> None:
    assert settle_mode(own, None) == (Mode.PERFORMANCE, own)
    assert require_for_backgrounds(own) == own


def test_what_switches_stand_for_is_allowed_among_the_arguments() -> None:
    assert require_for_backgrounds((START_FROM_DEVICE, *VERBOSE)) == (START_FROM_DEVICE, *VERBOSE)
    assert settle_mode((START_FROM_DEVICE, *VERBOSE), None)[1] == (START_FROM_DEVICE, *VERBOSE)


# --- through make -----------------------------------------------------------------------------------------------------

# As NVIDIA's: the outer target calls make again, and that one's recipe pastes the arguments into a line for a shell.
MAKEFILE = r"""
SHELL := {shell}
.PHONY: direct once twice
direct:
	@printf '%s\0' begin $(RUN_ARGS) --action="run_harness" end 2>&1 | cat
once:
	@$(MAKE) --no-print-directory direct
twice:
	@for i in 1; do $(MAKE) --no-print-directory once && break; done
"""

SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]


@pytest.fixture(scope="module", params=SHELLS)
def makefile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("make") / "Makefile"
    path.write_text(MAKEFILE.format(shell=shutil.which(request.param)))
    return path


def through_make(makefile: Path, target: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments as the program of the recipe gets them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ("make", "--no-print-directory", "-f", makefile, target, run_args(arguments)),
        cwd=makefile.parent,
        env={**env, "MAKEFILES": "", "HOME": "/expanded", "RUN_ARGS": "of the environment"},
        stdout=subprocess.PIPE,
        check=True,
    )
    words = done.stdout.decode().split("\0")
    assert words[0] == "begin"
    assert words[-3:] == ["--action=run_harness", "end", ""]
    return tuple(words[1:-3])


TRICKY = (
    "",
    " ",
    "two words",
    "$HOME",
    "$$",
    "$(shell touch broken)",
    "${RUN_ARGS}",
    "`touch broken`",
    "$(MAKE)",
    "it's",
    '"quoted"',
    "back\\slash",
    "ends with \\",
    "\\n",
    "#not a comment",
    "; touch broken",
    "&& touch broken",
    "| cat > broken",
    "> broken",
    "*",
    "~",
    "{a,b}",
    "%",
    "!x",
    "=",
    ":=x",
    "--name=a=b",
    "-k",
    "tab\there",
    "grüße 🙂",
    "'\"'\"'",
    "$'x'",
)


@pytest.mark.parametrize("target", ["direct", "once", "twice"])
def test_every_trick_at_once_gets_through_make(makefile: Path, target: str) -> None:
    assert through_make(makefile, target, TRICKY) == TRICKY
    assert [path.name for path in makefile.parent.iterdir()] == ["Makefile"], "nothing of it was executed"


@pytest.mark.parametrize("trick", TRICKY)
def test_a_trick_gets_through_make_alone_and_beside_another(makefile: Path, trick: str) -> None:
    assert through_make(makefile, "twice", (trick,)) == (trick,)
    assert through_make(makefile, "once", ("--a", trick, trick)) == ("--a", trick, trick)


def test_no_arguments_are_none(makefile: Path) -> None:
    assert through_make(makefile, "twice", ()) == ()


@given(
    arguments=st.lists(WORDS | st.text("$\\'\"`#%:=(){} \t~*?!&|;<>-", max_size=8), max_size=6).map(tuple),
    target=st.sampled_from(["direct", "once", "twice"]),
)
@settings(max_examples=60, deadline=None)
def test_any_arguments_get_through_make(makefile: Path, arguments: tuple[str, ...], target: str) -> None:
    assert through_make(makefile, target, arguments) == arguments


@given(st.lists(WORDS, max_size=6).map(tuple))
def test_what_make_gets_is_one_argument_of_one_line(arguments: tuple[str, ...]) -> None:
    said = run_args(arguments)
    assert said.startswith("RUN_ARGS=")
    assert "\n" not in said
    dollars = [len(list(group)) for char, group in itertools.groupby(said) if char == "$"]
    assert all(count % 2 == 0 for count in dollars)
    assert tuple(shlex.split(said.removeprefix("RUN_ARGS=").replace("$$", "$"))) == arguments


def test_plain_arguments_look_as_in_the_document() -> None:
    arguments = ("--benchmarks=resnet50,bert", "--scenarios=offline,server", "--config_ver=hetero")
    assert run_args(arguments) == "RUN_ARGS=--benchmarks=resnet50,bert --scenarios=offline,server --config_ver=hetero"
