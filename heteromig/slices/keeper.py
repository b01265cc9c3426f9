"""The process that keeps a GPU prepared for a run, or several, and takes that back in the end, however it comes.

`python -m heteromig.slices.keeper --preparation KIND --slices SOURCE --runs-dir DIR --run-dir DIR [--gpu GPU]
[--layout LAYOUT] [--enable-mig-mode] [--controller-pid PID] [--only-restore]`

It locks the GPU, prepares it, and writes one line, `Prepared` or `Refused`; after the latter it exits with 0. `Lost`
follows if what it keeps ends by itself. Its standard input is its lifeline: the end of it, which comes with the
controller's death as well, makes it take back what it did, let go of the GPU, say how that came out by `Restored` or
`NotRestored`, and exit. Lines that come before the end are orders for what it keeps; `look_again` is one for itself, to
say `Prepared` or `Lost` anew. `--only-restore` is for the successor of one that was killed: it prepares nothing.

No signal but KILL ends it: who ends a whole group of processes, as a terminal or a service manager does, ends the
controller as well, and that is what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from heteromig.core.errors import BusyError, HeteromigError
from heteromig.core.spec import Preparation
from heteromig.slices.keeping import LOOK_AGAIN, Kept, Lost, Message, NotRestored, Refused, Restored, encode_line
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.mig.keeping import KeptLayout
from heteromig.slices.mps.keeping import KeptShares
from heteromig.slices.source import parse_slices

_STDIN = 0
_STDOUT = 1
_STDERR = 2
_RETRY_S = 0.25

RESTORE_PATIENCE_S = 10.0
"""How long the GPU may still be in use when it is to be taken back: a controller that was killed leaves workers whose
guardians need up to two seconds to end them, and a driver lists a process for a moment after its end."""


_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the GPU until the controller is gone."""
    for signum in _SIGNALS:
        signal.signal(signum, _go_on)  # unlike SIG_IGN, that is not handed down to what is kept
        signal.siginterrupt(signum, False)  # noqa: FBT003 - it takes no names
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    options = _options(argv)
    with ExitStack() as held:
        last_word = _keep(options, held)
    _say(last_word)
    return 0


def _go_on(_signum: int, _frame: FrameType | None) -> None:
    """What ends the controller as well is not this process' business."""


def _keep(options: argparse.Namespace, held: ExitStack) -> Message:
    if options.only_restore:
        return _restored(options, None, held)
    try:
        kept = _locked(options, held)
        prepared = kept.prepare()
    except HeteromigError as error:
        return Refused(str(error), error.exit_code)
    _say(prepared)
    for order in _orders(kept):
        if order == LOOK_AGAIN:
            why = kept.loss()
            _say(prepared if why is None else Lost(why))
        else:
            kept.obey(order)
    return _restored(options, kept, held)


def _locked(options: argparse.Namespace, held: ExitStack) -> Kept:
    """What is to be kept, with the GPU locked on behalf of the controller, which is whom to stop."""
    kept = _kept(options)
    directory = lock_directory(parse_slices(options.slices), options.runs_dir)
    held.callback(lock_gpus([kept.gpu_uuid], directory, options.controller_pid).close)
    return kept


def _kept(options: argparse.Namespace) -> Kept:
    if options.preparation is Preparation.MPS:
        return KeptShares(slices=options.slices, runs_dir=options.runs_dir, run_dir=options.run_dir, gpu=options.gpu)
    return KeptLayout(
        slices=options.slices,
        runs_dir=options.runs_dir,
        run_dir=options.run_dir,
        gpu=options.gpu,
        layout=options.layout,
        enable_mig_mode=options.enable_mig_mode,
    )


def _orders(kept: Kept) -> Iterator[str]:
    """Lines from the controller until it has no more; meanwhile it is told if what is kept is lost."""
    unread = b""
    watched = kept.watched
    while True:
        ready = select.select((_STDIN, *watched), (), ())[0]
        if ready != [_STDIN] and (why := kept.loss()) is not None:
            _say(Lost(why))
            watched = ()
        if _STDIN not in ready:
            continue
        said = os.read(_STDIN, 4096)
        if not said:
            return
        *lines, unread = (unread + said).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _restored(options: argparse.Namespace, kept: Kept | None, held: ExitStack) -> Restored | NotRestored:
    """Take it back, if need be in several tries; without `kept`, what a predecessor did."""
    deadline_s = time.monotonic() + RESTORE_PATIENCE_S
    while True:
        try:
            kept = kept or _locked(options, held)
            return kept.restore()
        except HeteromigError as error:
            if not isinstance(error, BusyError) or time.monotonic() >= deadline_s:
                return NotRestored(str(error))
        time.sleep(_RETRY_S)


def _say(message: Message) -> None:
    line = encode_line(message)
    for fd in (_STDERR, _STDOUT):  # keeper.log tells it when nobody listens any more
        with contextlib.suppress(OSError):  # the controller is gone, or the disk is full
            os.write(fd, line)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m heteromig.slices.keeper", allow_abbrev=False)
    parser.add_argument("--preparation", required=True, type=Preparation, metavar="KIND")
    parser.add_argument("--slices", required=True, metavar="SOURCE")
    parser.add_argument("--runs-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--gpu", metavar="GPU")
    parser.add_argument("--layout", default="", metavar="LAYOUT")
    parser.add_argument("--enable-mig-mode", action="store_true")
    parser.add_argument("--controller-pid", type=int, metavar="PID")
    parser.add_argument("--only-restore", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
