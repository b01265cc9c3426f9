"""The process that keeps a GPU prepared for one run, and takes that back when the run is over, however it ends.

`python -m heteromig.slices.keeper --preparation KIND --slices SOURCE --runs-dir DIR --run-dir DIR [--gpu GPU]
[--layout LAYOUT] [--enable-mig-mode] [--only-restore]`

It locks the GPU, prepares it, and writes one line, `Prepared` or `Refused`; after the latter it exits with 0. `Lost`
follows if what it keeps ends by itself. Its standard input is its lifeline: the end of it, which comes with the
controller's death as well, makes it take back what it did, say so by `Restored` or `NotRestored`, and exit. Lines that
come before the end are orders for what it keeps. `--only-restore` is for the successor of a keeper that was killed: it
prepares nothing.

The keyboard's signals do not end it, and TERM makes it take back what it did, as the end of its input does.
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
from contextlib import closing
from pathlib import Path
from types import FrameType

from heteromig.core.errors import HeteromigError
from heteromig.core.spec import Preparation
from heteromig.slices.keeping import Kept, Lost, Message, NotRestored, Refused, Restored, encode_line
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


class _Ended(Exception):  # noqa: N818 - no error
    """TERM has come."""


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the GPU until the controller is gone."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    options = _options(argv)
    try:
        source = parse_slices(options.slices)
        kept = _kept(options)
        locks = lock_gpus([kept.gpu_uuid], lock_directory(source, options.runs_dir))
    except HeteromigError as error:
        _say(NotRestored(str(error)) if options.only_restore else Refused(str(error), error.exit_code))
        return 0
    with closing(locks):
        if options.only_restore or _keep(kept):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _restore(kept)
    return 0


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


def _keep(kept: Kept) -> bool:
    """Prepare and wait; whether there is something to take back."""
    try:
        with _term_raises():
            try:
                prepared = kept.prepare()
            except HeteromigError as error:
                _say(Refused(str(error), error.exit_code))
                return False
            _say(prepared)
            for order in _orders(kept):
                kept.obey(order)
    except _Ended:
        pass
    return True


@contextlib.contextmanager
def _term_raises() -> Iterator[None]:
    def leave(_signum: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Ended

    signal.signal(signal.SIGTERM, leave)
    yield


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


def _restore(kept: Kept) -> None:
    deadline_s = time.monotonic() + RESTORE_PATIENCE_S
    while True:
        try:
            what = kept.restore()
        except HeteromigError as error:  # noqa: PERF203 - each try may be the last
            if time.monotonic() >= deadline_s:
                _say(NotRestored(str(error)))
                return
            time.sleep(_RETRY_S)
        else:
            _say(Restored(what))
            return


def _say(message: Message) -> None:
    line = encode_line(message)
    os.write(_STDERR, line)  # keeper.log tells it when nobody listens any more
    with contextlib.suppress(OSError):  # the controller is gone
        os.write(_STDOUT, line)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m heteromig.slices.keeper", allow_abbrev=False)
    parser.add_argument("--preparation", required=True, type=Preparation, metavar="KIND")
    parser.add_argument("--slices", required=True, metavar="SOURCE")
    parser.add_argument("--runs-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--gpu", metavar="GPU")
    parser.add_argument("--layout", default="", metavar="LAYOUT")
    parser.add_argument("--enable-mig-mode", action="store_true")
    parser.add_argument("--only-restore", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
