"""A program that knows nothing of heteromig: `ordinary.py HABIT [ARGUMENT]`.

measuring SECONDS   says start, end after so long, and a result
quick SECONDS       the same without an end
serving SECONDS RATE  the same; its p99 is 20 ms up to 400 requests a second, and 2000 ms above
steady              says start, and works until TERM, of which it dies
polite              says start, and end at TERM
early DIRECTORY     says start, and is done when something is in that directory
crashing DIRECTORY  the same, but with status 3
silent              never says start
stubborn            says start, ignores TERM, and has a child that does
colourful           says start in colours, and other things that do something to a terminal; then dies of an error
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

SERVED_QPS = 400.0


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


def measuring(duration_s: str, *last: str) -> None:
    say("warm-up: end")
    say("start")
    time.sleep(float(duration_s))
    for line in (*last, "p99_ms=21.5 status=OK rounds=400"):
        say(line)


def serving(duration_s: str, rate: str) -> None:
    say("start")
    time.sleep(float(duration_s))
    say("end")
    say(f"p99_ms={20 if float(rate) <= SERVED_QPS else 2000} status=OK rounds={rate}")


def silent() -> None:
    signal.pause()


def steady() -> None:
    say("start")
    signal.pause()


def polite() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    say("start")
    signal.pause()
    say("end")


def ending(directory: str, *, start: str, last: str, exit_code: int) -> None:
    say(start)
    while not list(Path(directory).glob("*")):
        time.sleep(0.01)
    say(last)
    sys.exit(exit_code)


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        say("start")
    while True:
        signal.pause()


ESCAPES = "\x1b[2J\x1b[31mboom\x9b31m\x07\x1b]0;owned"

HABITS: dict[str, Callable[..., None]] = {
    "measuring": lambda duration_s: measuring(duration_s, "end"),
    "quick": measuring,
    "serving": serving,
    "steady": steady,
    "polite": polite,
    "early": lambda directory: ending(directory, start="start", last="that is all", exit_code=0),
    "crashing": lambda directory: ending(directory, start="start", last="that is all", exit_code=3),
    "silent": silent,
    "stubborn": stubborn,
    "colourful": lambda directory: ending(directory, start="\x1b[32mstart\x1b[0m", last=ESCAPES, exit_code=1),
}


if __name__ == "__main__":
    HABITS[sys.argv[1]](*sys.argv[2:])
