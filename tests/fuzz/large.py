"""`python -m tests.fuzz.large [--mb 100]`: one very large input for each parser, in a child with little memory.

Of each parser two: its real input again and again, and its first line with no end. Prints how much memory the child
took for it at most, and what came of it. The exit code is 1 when one crashed, or ended otherwise than by an answer or
a sentence.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import HeteromigError
from tests.e2e import quick as _quick  # noqa: F401 - so that `verify` in this process knows that harness
from tests.fuzz.parsers import BY_NAME, PARSERS, Parser, furnish
from tests.fuzz.recording import record

KINDS = ("again and again", "a line without end")
LIMIT_BYTES = 2 << 30
"""Of address space on top of the interpreter's: machines that run benchmarks have more."""
PATIENCE_S = 300.0
UNREADABLE = ("--slices", "--layout", "[command.<name>]", "lines of the sampler", "lines of the keeper")
"""Not files: the longest argument of a command line has 128 KiB, and the links have a limit of their own."""


class Outcome(Struct, frozen=True):
    """What came of one input; `peak_bytes` is the child's resident memory at its greatest, less that at the start."""

    peak_bytes: int
    took_s: float
    answer: str
    fine: bool


def inputs(parser: Parser, recorded: Path, size_bytes: int) -> dict[str, bytes]:
    """The two inputs."""
    original = parser.originals(recorded)[0]
    line, _, _ = original.partition(b"\n")
    again, without_end = KINDS
    return {
        again: original * (1 + size_bytes // len(original)),
        without_end: line[: max(1, len(line) // 2)] + b"x" * size_bytes,
    }


def try_it(parser: Parser, recorded: Path, kind: str, size_bytes: int) -> Outcome:
    """In a child of its own, whose memory is limited."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    place = Path(tempfile.mkdtemp(prefix="heteromig-large-"))
    try:
        furnish(place, recorded)
        data = inputs(parser, recorded, size_bytes)[kind]
        child = context.Process(target=_child, args=(parser.name, data, place, theirs))
        child.start()
        theirs.close()
        try:
            if not ours.poll(PATIENCE_S):
                child.kill()
                return Outcome(0, PATIENCE_S, "did not come to an end", fine=False)
            found: Outcome = ours.recv()
        except EOFError:
            return Outcome(0, 0.0, "died", fine=False)
        finally:
            child.join()
            ours.close()
            child.close()
        return found
    finally:
        shutil.rmtree(place)


def _child(name: str, data: bytes, place: Path, answers: Connection) -> None:
    parser = BY_NAME[name]
    before = _status_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (before + LIMIT_BYTES, before + LIMIT_BYTES))
    _forget_peak()
    started_bytes, started_s = _status_bytes("VmRSS"), time.monotonic()
    fine = True
    try:
        answer = f"answered with {len(repr(parser.read(data, place)))} characters"
    except HeteromigError as error:
        answer = str(error)
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        answer, fine = f"{type(error).__name__}: {error}", False
    answers.send(Outcome(_status_bytes("VmHWM") - started_bytes, time.monotonic() - started_s, answer, fine))


def _forget_peak() -> None:
    """Make VmHWM begin again at what is resident now: proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{key}:"))


def main() -> None:
    """Try all, or those that are named."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.large", description=__doc__)
    options.add_argument("names", nargs="*", help="parsers; all if left out")
    options.add_argument("--mb", type=int, default=100)
    chosen = options.parse_args()
    failed = False
    home = Path(tempfile.mkdtemp(prefix="heteromig-large-"))
    recorded = record(home)
    for parser in PARSERS:
        if parser.name in UNREADABLE or (chosen.names and parser.name not in chosen.names):
            continue
        for kind in KINDS:
            found = try_it(parser, recorded, kind, chosen.mb << 20)
            failed = failed or not found.fine
            sys.stdout.write(
                f"{parser.name:<26} {kind:<19} {found.peak_bytes / (1 << 20):7.0f} MiB {found.took_s:6.1f} s  "
                f"{'' if found.fine else 'FAILED '}{found.answer[:110]!r}\n"
            )
            sys.stdout.flush()
    shutil.rmtree(home)
    sys.exit(failed)


if __name__ == "__main__":
    main()
