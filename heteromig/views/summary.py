"""The end of a run as a person wants to read it: verdict, result, overlap, files, and what to do next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from rich.text import Text

from heteromig.core.phases import Phase, Role
from heteromig.core.record import ObserverPhase, PreparationRecord, RunRecord, WorkerRecord
from heteromig.core.spec import Goal, Isolation, Mode, Preparation
from heteromig.core.verdict import SIGNAL_BASE, ExitCode
from heteromig.views.guards_view import append_guards, append_remarks
from heteromig.views.text import printable, shell_quote, shown_path
from heteromig.views.verdict_text import SIMULATED_NOTE, SOFT_NOTE, append_block, append_overlap, append_verdict

_NS_PER_MS = 1e6
_LOGS_MAX = 3
_NOTES_MAX = 5
_AUDIT = "run_audit_"

# LoadGen's names (6.x first, then 2.x), in the order in which they are looked for.
_THROUGHPUTS = (
    "result_samples_per_second",
    "result_completed_samples_per_sec",
    "result_scheduled_samples_per_sec",
)
_LATENCIES = (
    ("result_mean_latency_ns", "mean"),
    ("result_50.00_percentile_latency_ns", "p50"),
    ("result_90.00_percentile_latency_ns", "p90"),
    ("result_99.00_percentile_latency_ns", "p99"),
    ("result_99.90_percentile_latency_ns", "p99.9"),
)

_LOADGENS = ("result_", "early_stopping_")
"""How LoadGen's figures begin; those of a performance run that do not are the program's own, under its own names."""

_STREAMS = {
    "singlestream": ("early_stopping_latency_ss", "90th percentile of latency"),
    "multistream": ("early_stopping_latency_ms", "99th percentile of latency of queries of 8 samples"),
}
"""What a stream is measured by: the percentile as early stopping estimates it, from above; 0 is no estimate."""


def summary(record: RunRecord, run_directory: str, width: int) -> Text:
    """What is printed when a run is over; also of a run that broke off, where much of it is unknown."""
    text = Text()
    verdict = record.verdict
    if verdict is None:
        words = f"UNFINISHED: the run was last heard of in {record.phase}, at {record.heartbeat_at}."
        append_block(text, "", words, width, indent=0)
    else:
        append_verdict(
            text, verdict.status, verdict.exit_code, verdict.reasons, width, backgrounds=_backgrounds(record)
        )
    append_remarks(text, record.device_guards, width)
    _append_nature(text, record, width)
    text.append("\n")
    main = next((worker for worker in record.workers if worker.role == Role.MAIN.value), None)
    if main is not None and Goal(record.goal).measures:
        append_block(text, "Main", _main(main, record), width)
        append_block(text, "Result", result_words(main.scenario, main.mode, main.metrics), width)
        if record.goal != Goal.BASELINE.value and (main.timed_begin is not None or record.overlap.backgrounds):
            overlap = record.overlap
            figures = (overlap.coverage, overlap.slack_before_s, overlap.slack_after_s)
            append_overlap(text, overlap.proven, figures, overlap.backgrounds, width)
    if record.left_out:
        append_block(text, "Left out", f"{', '.join(record.left_out)}, for want of slices", width)
    _append_preparation(text, record.preparation, width)
    measured = main is not None and main.timed_begin is not None
    append_guards(text, record.device_guards, width, simulated=record.simulated, measured=measured)
    remarks = {finding.remark for finding in record.device_guards}
    for number, note in enumerate(_notes([note for note in record.notes if note not in remarks])):
        append_block(text, "Noted" if number == 0 else "", printable(note), width)
    append_block(text, "Observer", observer_words(record), width)
    # Paths and commands are not wrapped: they are there to be copied.
    if main is not None and record.harness == "make" and (logs := _logs_in_tree(main)):
        append_block(text, "Logs", f"{logs} (in NVIDIA's tree)", len(logs) + width)
    files = shown_path(run_directory)
    append_block(text, "Files", files, len(files) + width)
    for number, step in enumerate(next_steps(record, run_directory.rstrip("/"))):
        append_block(text, "Next" if number == 0 else "", step.words, width)
        if step.command:
            append_block(text, "", f"  {step.command}", len(step.command) + width)
    text.rstrip()
    return text


def report_made(path: str, width: int) -> Text:
    """What is printed below the summary once the page is there; the path is not wrapped."""
    text = Text()
    append_block(text, "Report", path, len(path) + width)
    text.rstrip()
    return text


def _append_nature(text: Text, record: RunRecord, width: int) -> None:
    """What kind of slices these were, where that limits what the result means."""
    if record.simulated:
        text.append(SIMULATED_NOTE + "\n", "bold yellow")
    if record.isolation == Isolation.SOFT.value:
        append_block(text, "", SOFT_NOTE, width, indent=0)


def _main(main: WorkerRecord, record: RunRecord) -> str:
    profile = next((place.profile for place in record.slices if place.uuid == main.slice_uuid), "a slice")
    neighbours = _backgrounds(record)
    alone = record.goal == Goal.BASELINE.value
    beside = "alone: a baseline" if alone else f"beside {_count(neighbours, 'background')}"
    does = _audit(main) or main.mode
    accuracy = f"accuracy {main.accuracy}" + (f" ({main.config_ver})" if main.config_ver else "")
    return printable(f"{main.benchmark} {main.scenario}, {does}, {accuracy}, on {profile}, {beside}")


def _audit(main: WorkerRecord) -> str:
    """The target of NVIDIA's Makefile, where main is a compliance test."""
    return next((word for word in main.command if word.startswith(_AUDIT)), "")


def _logs_in_tree(main: WorkerRecord) -> str:
    """Where main's own logs are, relative to NVIDIA's tree; empty where main did not run."""
    audit = _audit(main).removeprefix(_AUDIT)
    return f"build/compliance_logs/{audit.upper()}" if audit else main.env.get("LOG_DIR", "")


def _append_preparation(text: Text, done: PreparationRecord | None, width: int) -> None:
    if done is None or done.what is None:
        return
    words = f"{done.what} {done.sentence or 'It is not known to be as before again.'}"
    new = sum(one.before is not None and one.before != one.after for one in done.returned)
    if new:
        words += f" {_count(new, 'slice')} got another UUID by that: run.json has them all, under preparation."
    append_block(text, "Prepared", printable(words), width)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    """The first few; the rest is in run.json."""
    yield from notes[:_NOTES_MAX]
    if len(notes) > _NOTES_MAX:
        yield f"... and {len(notes) - _NOTES_MAX} more, in run.json"


def _backgrounds(record: RunRecord) -> int:
    return sum(worker.role == Role.BACKGROUND.value for worker in record.workers)


def result_words(scenario: str, mode: str, metrics: Mapping[str, float]) -> str:
    """Main's result in one line: what its scenario is measured by first; also where that is nothing."""
    parts: list[str] = []
    if mode == Mode.ACCURACY.value:
        parts += _accuracy(metrics)
    else:
        own = [f"{name} {value:.6g}" for name, value in metrics.items() if not name.startswith(_LOADGENS)]
        parts += [", ".join(own)] if own else []
    key, percentile = _STREAMS.get(scenario, ("", ""))
    if metrics.get(key):
        parts.append(f"{percentile} {metrics[key] / _NS_PER_MS:.4g} ms (lower is better)")
    throughput = next((metrics[name] for name in _THROUGHPUTS if name in metrics), None)
    if throughput is not None:
        parts.append(f"{throughput:.6g} samples/s")
    # In Offline the one query holds all samples: its percentiles are points of the run's length, not latencies.
    if scenario != "offline":
        known = [f"{name} {metrics[key] / _NS_PER_MS:.2f} ms" for key, name in _LATENCIES if key in metrics]
        if known:
            parts.append(f"{'observed ' if scenario in _STREAMS else ''}latency {', '.join(known)}")
    return "; ".join(parts) or "none: main has no result"


def _accuracy(metrics: Mapping[str, float]) -> Iterator[str]:
    """In percent of the reference's answers, or in the benchmark's own unit, as NVIDIA's tree has it."""
    value, target = metrics.get("accuracy_percent"), metrics.get("accuracy_target_percent")
    if value is not None:
        yield f"accuracy {value:.4g} %" + ("" if target is None else f" (at least {target:g} % is needed)")
    value, target = metrics.get("accuracy"), metrics.get("accuracy_threshold")
    if value is not None:
        yield f"accuracy {value:.6g}" + ("" if target is None else f" (at least {target:.6g} is needed)")


def observer_words(record: RunRecord) -> str:
    """What watching cost, in one line."""
    observer = record.observer
    sampler = "unknown" if observer.sampler_cpu_s is None else f"{observer.sampler_cpu_s:.2f} s"
    words = f"{observer.cpu_s:.2f} s of CPU, {observer.wakeups} wake-ups; sampler {sampler}"
    measuring = next((phase for phase in observer.by_phase if phase.name == Phase.MAIN_RUNNING.value), None)
    if measuring is None:
        return words
    share = _share_of_a_core(measuring, record)
    return f"{words}; while main ran {measuring.cpu_s:.2f} s" + (
        "" if share is None else f" ({100 * share:.1f} % of a core)"
    )


def _share_of_a_core(measuring: ObserverPhase, record: RunRecord) -> float | None:
    for phase in record.phases:
        if phase.name == measuring.name and phase.left_at is not None:
            entered, left = msgspec.convert((phase.entered_at, phase.left_at), type=tuple[datetime, datetime])
            lasted_s = (left - entered).total_seconds()
            return measuring.cpu_s / lasted_s if lasted_s > 0 else None
    return None


class Step(NamedTuple):
    """One thing to do: `words`, and below them a command to copy, if there is one."""

    words: str
    command: str = ""


def next_steps(record: RunRecord, run_directory: str) -> Iterator[Step]:
    """What whoever reads the verdict can do now."""
    quoted = shell_quote(run_directory)
    verify = f"heteromig verify {quoted}"
    verdict = record.verdict
    if verdict is None:
        yield Step("If it is not going on any more, what is on disk can be judged:", verify)
        return
    if verdict.exit_code == ExitCode.VALID and record.goal == Goal.BUILD.value:
        yield Step("heteromig run, with the same options, uses these engines.")
        return
    if verdict.exit_code == ExitCode.VALID and record.goal == Goal.BASELINE.value:
        yield Step("What neighbours cost, once there is a run beside them:", f"heteromig compare {quoted} RUN_DIR")
    yield from _hints(record, quoted, verdict.exit_code)
    done = record.preparation
    # A sentence tells what became of it, and of a failure also the way back, which the next run may have as well.
    if done and done.kind == Preparation.LAYOUT.value and done.what is not None and done.sentence is None:
        yield Step("Cut the GPU back, once that is possible:", f"heteromig mig restore {quoted}")
    if verdict.exit_code != ExitCode.INTERNAL:
        yield Step("Prove this verdict again, from the files alone:", verify)


def _hints(record: RunRecord, quoted: str, code: int) -> Iterator[Step]:
    match code:
        case ExitCode.INVALID:
            yield from _hints_on_main(record, quoted)
        case ExitCode.OVERLAP:
            yield Step(
                "Backgrounds have to outlast main: leave --background-benchmark-duration automatic, or ask for more."
            )
            yield from _logs(quoted, filter(_ended_by_itself, record.workers))
        case ExitCode.WORKER:
            yield from _logs(quoted, filter(_failed, record.workers))
        case ExitCode.START_TIMEOUT:
            yield Step("Allow more with --background-start-timeout, or find out what they wait for.")
            yield from _logs(quoted, filter(_never_timed, record.workers))
        case ExitCode.DEVICE:
            yield Step("See what slices there are, and who is using them:", "heteromig slices")
            if not record.simulated:
                yield Step("Try the same without a GPU:", "heteromig run --slices sim:a100-sxm-80gb")
        case ExitCode.INCONCLUSIVE:
            yield Step("What is missing is named above; nothing is wrong with what is there.")
        case _ if code > SIGNAL_BASE:
            yield Step("It was stopped on request; start it again when you like.")
        case _:
            return


def _hints_on_main(record: RunRecord, quoted: str) -> Iterator[Step]:
    main = next((worker for worker in record.workers if worker.role == Role.MAIN.value), None)
    if main is None:
        return
    if record.harness == "command":
        yield from _logs(quoted, (main,))
    else:
        words = f"{_advice(main)} LoadGen's own words:"
        yield Step(words, f"ls {quoted}/{shell_quote(main.directory)}")


def _advice(main: WorkerRecord) -> str:
    if _audit(main):
        return "The verify files of the compliance test, beside the logs, say what did not pass."
    if main.mode == Mode.ACCURACY.value:
        return "An engine that loses accuracy is built anew with --rebuild."
    if main.scenario == "server":
        return "Ask for fewer queries a second with --main-target-qps, or run longer with --main-benchmark-duration."
    return "Run longer with --main-benchmark-duration, or state the rate with --main-target-qps."


def _failed(worker: WorkerRecord) -> bool:
    return worker.stopped_by is None and bool(worker.exit_code or worker.signal)


def _never_timed(worker: WorkerRecord) -> bool:
    return worker.pid is not None and worker.timed_begin is None


def _ended_by_itself(worker: WorkerRecord) -> bool:
    return worker.role == Role.BACKGROUND.value and worker.stopped_by is None and worker.exit_code is not None


def _logs(quoted: str, workers: Iterable[WorkerRecord]) -> Iterator[Step]:
    """Where the first few of `workers` say what happened."""
    for worker in itertools.islice(workers, _LOGS_MAX):
        log = f"tail {quoted}/{shell_quote(worker.directory)}/stdout.log"
        yield Step(f"See what {worker.role} {worker.index} ({printable(worker.benchmark)}) said last:", log)
