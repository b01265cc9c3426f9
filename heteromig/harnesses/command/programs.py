"""One `[command.<name>]` table, read once: whatever is wrong with it is said before anything runs."""

from __future__ import annotations

import re
import signal
import warnings
from pathlib import PurePath

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.core.names import NAME_RULE, is_name
from heteromig.core.spec import BenchmarkInfo, CommandSpec
from heteromig.harnesses.command.conditions import Condition, parse_condition
from heteromig.harnesses.command.placeholders import RATE, holds, require_known
from heteromig.workers.environment import SLICE_VARIABLE

ACCURACY = "default"
"""The one level that a command has: what its answers are worth is for its own `valid-when` to say."""

_LOG_PLACE_BYTES_MAX = 200
"""The worker's own directory and LoadGen's file come on top, and a component of a path has 255 bytes at most."""
_SET_NAMES = ("all", "none")
_UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP)


class Program(Struct, frozen=True):
    """A command whose expressions, conditions and signal are known to mean something."""

    spec: CommandSpec
    start: re.Pattern[bytes] | None
    end: re.Pattern[bytes] | None
    result: re.Pattern[bytes] | None
    conditions: tuple[Condition, ...]
    clean_stop_signal: int | None

    @property
    def info(self) -> BenchmarkInfo:
        """As the plan sees it."""
        return BenchmarkInfo(
            name=self.spec.name,
            model=self.spec.model,
            scenarios=self.spec.scenarios,
            accuracies=(ACCURACY,),
            default_accuracy=ACCURACY,
            stops_cleanly=self.clean_stop_signal is not None,
        )

    @property
    def takes_rate(self) -> bool:
        """Whether its command has a place for the rate."""
        return any(holds(text, RATE) for text in (*self.spec.argv, *self.spec.env.values(), self.spec.cwd or ""))


def read_program(spec: CommandSpec) -> Program:
    """Check a command and understand it.

    Raises:
        UsageError: a name, a placeholder, an expression, a condition, a signal or a path of it cannot be.
    """
    where = f"[command.{spec.name}]"
    _require_names(spec, where)
    _require_command_line(spec, where)
    if spec.start is None and spec.loadgen_logs is None:
        raise UsageError(
            f"{where} has neither `start` nor `loadgen-logs`, so nobody could tell when it is at work: give the "
            'pattern of a line that it prints then, as in start = "^ready$".'
        )
    if spec.end is not None and spec.start is None and spec.loadgen_logs is None:
        raise UsageError(f"{where} has an `end` without a `start`: give both.")
    _require_log_place(spec, where)
    result = _expression(where, "result", spec.result)
    if spec.valid_when and result is None:
        raise UsageError(f"{where} has `valid-when` and no `result`, whose groups it compares: give a `result`.")
    return Program(
        spec=spec,
        start=_expression(where, "start", spec.start),
        end=_expression(where, "end", spec.end),
        result=result,
        conditions=tuple(
            parse_condition(f"valid-when of {where}", text, frozenset(result.groupindex if result else ()))
            for text in spec.valid_when
        ),
        clean_stop_signal=_signal(where, spec.clean_stop),
    )


def _require_names(spec: CommandSpec, where: str) -> None:
    if not is_name(spec.name):
        raise UsageError(f"[command.{spec.name!r}] cannot be the name of a directory: use {NAME_RULE}.")
    if spec.name in _SET_NAMES:
        raise UsageError(f"{where} has the name of a set of backgrounds ({', '.join(_SET_NAMES)}): choose another.")
    for scenario in spec.scenarios:
        if not is_name(scenario):
            raise UsageError(
                f"{where} has the scenario {scenario!r}, which becomes part of a directory's name: use letters and "
                "digits."
            )


def _require_command_line(spec: CommandSpec, where: str) -> None:
    if not spec.argv or not spec.argv[0]:
        raise UsageError(f'The argv of {where} names no program: give one, as in argv = ["./bench", "--seconds=10"].')
    for word in spec.argv:
        _require_text(f"argv of {where}", word)
    for name, value in spec.env.items():
        if not name or "=" in name or "\0" in name:
            raise UsageError(f"env of {where} has {name!r}, which cannot be the name of a variable.")
        if name == SLICE_VARIABLE:
            raise UsageError(
                f"env of {where} sets {SLICE_VARIABLE}, by which heteromig puts it on its slice: leave it out."
            )
        _require_text(f"{name} in env of {where}", value)
    if spec.cwd is not None:
        _require_text(f"cwd of {where}", spec.cwd)


def _require_text(where: str, text: str) -> None:
    if "\0" in text:
        raise UsageError(f"The {where} holds a NUL character, which no program can be given: leave it out.")
    require_known(f"The {where}", text)


def _require_log_place(spec: CommandSpec, where: str) -> None:
    if spec.loadgen_logs is None:
        return
    path = PurePath(spec.loadgen_logs)
    plain = spec.loadgen_logs.isprintable() and 0 < len(spec.loadgen_logs.encode()) <= _LOG_PLACE_BYTES_MAX
    if path.is_absolute() or ".." in path.parts or not plain:
        raise UsageError(
            f"loadgen-logs of {where} is {spec.loadgen_logs!r}, and must be a directory below the worker's own, as are "
            '"." and "logs": tell the program to write to {directory} or {directory}/logs.'
        )


def _expression(where: str, key: str, text: str | None) -> re.Pattern[bytes] | None:
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what means something else in another version of Python is refused
            expression = re.compile(text.encode(), re.MULTILINE)
    except (Warning, re.error, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise UsageError(f"{key} of {where} is {text!r}, which is no regular expression: {error}.") from None
    if expression.search(b"") is not None:
        raise UsageError(
            f"{key} of {where} is {text!r}, which matches nothing at all and hence any output: say what the line holds."
        )
    return expression


def _signal(where: str, name: str | None) -> int | None:
    if name is None:
        return None
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    found = next((one for one in signal.Signals if one.name == full), None)
    if found is None:
        raise UsageError(f"clean-stop of {where} is {name!r}, which is no signal: name one, such as SIGTERM or SIGINT.")
    if found in _UNCATCHABLE:
        raise UsageError(f"clean-stop of {where} is {name!r}, which no program can act on: name another signal.")
    return int(found)
