"""How the stand-in is to misbehave. The Makefile says which habit this start has, in STANDIN_HABIT."""

from __future__ import annotations

import os

HABITS = frozenset(
    {
        "good",
        "chatty",
        "slow-start",
        "early-exit",
        "crash",
        "crash-early",
        "invalid",
        "hang-after-result",
        "ignores-term",
        "accuracy-fails",
        "audit-fails",
        "audit-second-trial",
        "audit-redeemed",
        "unknown-system",
        "no-engine",
        "build-fails",
    }
)
CHATTY_CONFIG_LINES = 60
CHATTY_LINES_PER_S = 50
CHATTY_LINE_BYTES = 200


def habit() -> str:
    """The habit of this start.

    Raises:
        RuntimeError: there is no such habit.
    """
    name = os.environ.get("STANDIN_HABIT", "good")
    if name not in HABITS:
        raise RuntimeError(f"STANDIN_HABIT is {name}, which is none of {', '.join(sorted(HABITS))}.")
    return name


def load_s() -> float:
    """How long slow-start loads, and builds."""
    return _number("STANDIN_LOAD_MS", 2000) / 1000


def ends_after_s() -> float:
    """When in their timed section early-exit ends and crash crashes."""
    return _number("STANDIN_AFTER_MS", 1000) / 1000


def server_s() -> float:
    """What a query of Server takes, one after the other."""
    rate_qps = _number("STANDIN_SERVER_QPS", 0)
    return 1 / rate_qps if rate_qps else 0.0


def config_lines() -> int:
    """How many lines of configuration the driver prints."""
    return _number("STANDIN_CONFIG_LINES", CHATTY_CONFIG_LINES if habit() == "chatty" else 8)


def _number(name: str, usual: int) -> int:
    return int(os.environ.get(name, usual))
