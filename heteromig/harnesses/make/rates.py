"""How main's rate gets into NVIDIA's tree, by which rules it is judged, and how a hopeless run is ended.

The driver writes `user.conf` anew at each start, with the rate that it was given as an argument and with what its
configuration says (code/common/submission.py). It knows no argument for `max_async_queries`, by which LoadGen ends a
run in which too many queries are outstanding; but the harness binaries read `mlperf.conf` before `user.conf`
(harness_default/main_default.cc), and the driver takes the path of another `mlperf.conf`. So main is given a copy of
the tree's with that one line more: the tree stays as it is, and `user.conf` is the tree's own.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from heteromig.campaign.outstanding import most_outstanding
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.spec import MainSpec, Mode
from heteromig.core.units import NS_PER_MS
from heteromig.harnesses.make.arguments import value_of
from heteromig.harnesses.make.catalog import OFFLINE, SCENARIO_NAMES, SERVER

CONF = "build/inference/mlperf.conf"
"""LoadGen's own, where the tree clones it to (`make clone_loadgen`)."""
RATES = {SERVER: "--server_target_qps", OFFLINE: "--offline_expected_qps"}
"""What the driver calls a rate, of which it takes whole ones (fields.py of v2.1; arguments.py of versions before)."""

_CONF_PATH = "--mlperf_conf_path"
_LATENCY = "--server_target_latency_ns"
_RULING = ("--server_target_qps_adj_factor", "--server_target_latency_percentile", _CONF_PATH, "--user_conf_path")
"""Arguments that would change the rate, or the rules, behind the back of whoever looks for the best rate."""
_USUAL_PERCENTILE = 99.0
"""Of Server in every mlperf.conf since v1.0."""


class ServerRules(Struct, frozen=True):
    """What `mlperf.conf` says of main in Server."""

    latency_limit_ms: float
    percentile: float
    min_queries: int


def rate_arguments(main: MainSpec) -> tuple[str, ...]:
    """The rate as the driver takes it; none where main has none of ours."""
    return () if main.target_qps is None else (f"{RATES[main.scenario]}={main.target_qps:.0f}",)


def require_rate(main: MainSpec, rate_qps: float) -> None:
    """Check that the driver can be given that rate.

    Raises:
        UsageError: it cannot.
    """
    if main.scenario not in RATES or main.mode is not Mode.PERFORMANCE:
        raise UsageError(
            f"--main-target-qps is the rate of Server or Offline in performance mode, and main is {main.scenario} in "
            f"{main.mode.value} mode: leave it out."
        )
    if rate_qps != round(rate_qps):
        raise UsageError(f"--main-target-qps is {rate_qps:g}, and NVIDIA's tree takes whole rates only: round it.")
    _require_unsaid(main.run_args, tuple(RATES.values()), "--main-target-qps says the rate")


def require_free_rate(main: MainSpec) -> None:
    """Check that nothing but `MainSpec.target_qps` decides about main's rate and its rules.

    Raises:
        UsageError: something else does.
    """
    if main.may_run_again:
        raise UsageError(
            "A rate is looked for by plain runs, and main would make several in one: leave --main-action and "
            "--test_mode out."
        )
    _require_unsaid(main.run_args, (*RATES.values(), *_RULING), "the best rate by the tree's own rules is looked for")


def _require_unsaid(own: tuple[str, ...], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if value_of(own, name) is not None:
            raise UsageError(f"--main-benchmark-runargs holds {name}, and {why}: leave it out of them.")


def server_rules(tree: Path, main: MainSpec) -> ServerRules:
    """By which rules LoadGen will judge a run of main in Server.

    Raises:
        PreflightError: `mlperf.conf` is not there, or does not say.
        UsageError: the limit among main's own arguments is no number.
    """
    values = _values(_read_conf(tree))

    def number(key: str) -> float | None:
        # The order in which LoadGen looks (loadgen 6.0.17, test_settings_internal.cc).
        scenario = SCENARIO_NAMES[SERVER]
        names = (f"{main.benchmark}.{scenario}", f"*.{scenario}", f"{main.benchmark}.*", "*.*")
        return next((values[f"{name}.{key}"] for name in names if f"{name}.{key}" in values), None)

    own = value_of(main.run_args, _LATENCY)
    latency_ms = number("target_latency") if own is None else _own_limit_ms(own)
    if latency_ms is None:
        raise PreflightError(
            f"{tree / CONF} has no target_latency of {main.benchmark} in Server, so that nobody knows what is late: "
            f"say it with --main-benchmark-runargs={_LATENCY}=NANOSECONDS."
        )
    return ServerRules(
        latency_limit_ms=latency_ms,
        percentile=(number("target_latency_percentile") or _USUAL_PERCENTILE) / 100,
        min_queries=max(1, round(number("min_query_count") or 1)),
    )


def limited_conf(tree: Path, main: MainSpec) -> tuple[str, str] | None:
    """Name and text of the `mlperf.conf` with which LoadGen ends a hopeless run; None where none is to be ended.

    Raises:
        PreflightError: the tree's is not there, or does not say what is late.
    """
    if main.scenario != SERVER or main.target_qps is None or main.most_over_latency is None:
        return None
    limit_ms = server_rules(tree, main).latency_limit_ms
    most = most_outstanding(main.most_over_latency, main.target_qps, limit_ms)
    return f"mlperf-{most}-outstanding.conf", f"{_read_conf(tree)}\n*.Server.max_async_queries = {most}\n"


def conf_argument(path: Path) -> str:
    """What tells the driver to hand that `mlperf.conf` to the harness."""
    return f"{_CONF_PATH}={path}"


def _own_limit_ms(text: str) -> float:
    try:
        limit_ms = int(text) / NS_PER_MS
    except ValueError:
        limit_ms = 0.0
    if limit_ms <= 0:
        raise UsageError(f"--main-benchmark-runargs holds {_LATENCY}={text}, which is no number above 0.")
    return limit_ms


def _read_conf(tree: Path) -> str:
    try:
        return (tree / CONF).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PreflightError(
            f"{tree / CONF}, which says by which rules LoadGen judges, cannot be read ({error.strerror}): make "
            "clone_loadgen in the tree brings it."
        ) from None


def _values(text: str) -> dict[str, float]:
    """`key = value` as LoadGen reads it, with blanks around the sign; what is no number is not there."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and words[1] == "=":  # noqa: PLR2004 - key, sign and value
            try:
                found[words[0]] = float(words[2])
            except ValueError:
                continue
    return found
