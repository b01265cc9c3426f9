"""`RUN_ARGS`: what of it is the user's own, and how it gets through make and its shell unharmed."""

from __future__ import annotations

import itertools
import shlex

from heteromig.core.errors import UsageError
from heteromig.core.spec import Mode

VERBOSE = ("--verbose", "--verbose_nvtx")
"""What the original launcher adds for `--verbose` (launch_heterogeneous_mig.py v2.1, get_cmd_templates)."""

START_FROM_DEVICE = "--start_from_device"
"""The launcher of v1.0 adds it to every benchmark, with a value; since v1.1 it takes none (fields.py: a bool)."""

_TEST_MODE = "--test_mode"
_MODES = {"PerformanceOnly": Mode.PERFORMANCE, "SubmissionRun": Mode.PERFORMANCE, "AccuracyOnly": Mode.ACCURACY}
"""LoadGen's modes; of a SubmissionRun, the performance part is judged."""

_OURS = {
    "--benchmarks": "--main-benchmark",
    "--scenarios": "--main-scenario",
    "--config_ver": "--main-config-ver",
    "--min_duration": "--main-benchmark-duration",
    "--action": "--main-action",
    "--audit_test": "--main-action",
}
"""Arguments that heteromig writes itself, because it has to know them, and the options that say them."""


def split_arguments(option: str, said: str | list[str]) -> tuple[str, ...]:
    """The arguments that `said` is: text is split as a shell would split it, with nothing expanded.

    Raises:
        UsageError: a quotation or an escape has no end, or an argument holds a line break, which no recipe of make can
            pass on.
    """
    try:
        found = tuple(shlex.split(said)) if isinstance(said, str) else tuple(said)
    except ValueError as error:
        raise UsageError(f"{option} cannot be split ({str(error).lower()}): {said!r}. Close what is open.") from None
    if any("\n" in one or "\0" in one for one in found):
        raise UsageError(f"{option} holds a line break, which make cannot pass on: {said!r}. Leave it out.")
    return found


def settle_mode(own: tuple[str, ...], mode: Mode | None) -> tuple[Mode, tuple[str, ...]]:
    """LoadGen's mode, which either may say, and the user's own arguments as they are.

    Raises:
        UsageError: they contradict `mode`, or hold an argument that an option of heteromig stands for.
    """
    for one in own:
        name = one.partition("=")[0]
        if name in _OURS:
            raise UsageError(
                f"--main-benchmark-runargs holds {one}: say it with {_OURS[name]}, so that heteromig knows."
            )
    said = value_of(own, _TEST_MODE)
    if said is None:
        return mode or Mode.PERFORMANCE, own
    if said not in _MODES:
        raise UsageError(f"--main-benchmark-runargs holds {_TEST_MODE}={said}, which is none of {', '.join(_MODES)}.")
    if mode is not None and mode is not _MODES[said]:
        raise UsageError(
            f"--main-benchmark-runargs holds {_TEST_MODE}={said}, and --main-mode is {mode.value}: leave one out."
        )
    return _MODES[said], own


def require_for_backgrounds(own: tuple[str, ...]) -> tuple[str, ...]:
    """`own`, if backgrounds can have these arguments.

    Raises:
        UsageError: one of them says what heteromig has to know, or takes the background out of performance mode.
    """
    for one in own:
        if one.partition("=")[0] in {*_OURS, _TEST_MODE}:
            raise UsageError(
                f"runargs of [background] hold {one}, which heteromig writes itself: say it by another key of "
                "[background], or leave it out."
            )
    return own


def value_of(own: tuple[str, ...], argument: str) -> str | None:
    """What `own` says for an argument, the last time that it does; None where it does not."""
    said = None
    for one, following in itertools.zip_longest(own, own[1:], fillvalue=""):
        name, equals, value = one.partition("=")
        if name == argument:
            said = value if equals else following
    return said


def run_args(arguments: tuple[str, ...]) -> str:
    """`RUN_ARGS=...` as one argument of make, whose recipe pastes it into a line for a shell.

    What a shell would take for something else is quoted for it, and a dollar is doubled for make.
    """
    return "RUN_ARGS=" + shlex.join(arguments).replace("$", "$$")
