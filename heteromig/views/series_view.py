"""A series of runs while it goes on, and where it stopped, for people."""

from __future__ import annotations

from heteromig.core.phases import Role
from heteromig.core.record import RunRecord
from heteromig.views.summary import result_words
from heteromig.views.text import printable, shell_quote


def ended_line(number: str, record: RunRecord) -> str:
    """One run of it, as soon as it is over: which, how it came out, and what it measured."""
    main = next((worker for worker in record.workers if worker.role == Role.MAIN.value), None)
    status = "unfinished" if record.verdict is None else record.verdict.status
    result = "" if main is None else f", {result_words(main.scenario, main.mode, main.metrics)}"
    return printable(f"{number}: {record.goal} {status.upper()}{result}")


def stopped_text(sentence: str, done: int, planned: int, series_dir: str) -> str:
    """What is said of a series that did not come to its end."""
    lines = [printable(sentence), f"{done} of {planned} runs are in {series_dir}"]
    if done > 3:  # noqa: PLR2004 - a run between two baselines, and the one that stopped it
        lines.append(f"What was measured until then: heteromig compare {shell_quote(series_dir)}")
    return "\n".join(lines)
