"""The controller's end of the keeper: its messages as events, and its lifeline. It may go on from run to run."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from pathlib import Path

import msgspec

from heteromig.core import events as ev
from heteromig.core.errors import HeteromigError
from heteromig.core.spec import RunSpec
from heteromig.core.units import MonotonicNs
from heteromig.core.view import MAX_SUCCESSORS
from heteromig.runner.rundir import KEEPER_LOG
from heteromig.slices import keeping
from heteromig.slices.keeper import RESTORE_PATIENCE_S
from heteromig.slices.lines import LINE_BYTES_MAX
from heteromig.workers.guardian import note_process
from heteromig.workers.spawn import Helper, spawn_helper

LEAVING_LIMIT_S = RESTORE_PATIENCE_S + 30.0
"""How long a controller that ends without draining, by an error of its own, waits for the GPU to be taken back."""

_LOOK_LIMIT_S = 10.0


class KeeperLink:
    """At most one keeper at a time; one that was lost has a successor, which only takes back what was done."""

    def __init__(self, spec: RunSpec, home: Path) -> None:
        """`home` is where it writes: the run directory, or a directory like one that outlasts it."""
        assert spec.preparation is not None  # noqa: S101 - there is something to keep
        self._argv = (
            sys.executable, "-m", "heteromig.slices.keeper",
            "--preparation", spec.preparation.value,
            "--slices", spec.slices,
            "--runs-dir", str(Path(spec.runs_dir).absolute()),
            "--run-dir", str(home.absolute()),
            "--controller-pid", str(os.getpid()),
            *(("--gpu", spec.gpu) if spec.gpu is not None else ()),
            *(("--layout", spec.layout) if spec.layout else ()),
            *(("--enable-mig-mode",) if spec.enable_mig_mode else ()),
        )  # fmt: skip
        self.home = home
        self._helper: Helper | None = None
        self._prepared: ev.DevicesPrepared | None = None
        """What it keeps, by all that was heard of it; None from its loss on, and once that is to be taken back."""
        self._text = b""
        self._asked = False
        """Whether it was started, so that there may be something to take back."""
        self._leave_by_s: float | None = None
        """When whoever was told to take it back will have had its time; None while nobody was."""

    @property
    def fd(self) -> int | None:
        """To wait for; None while there is no keeper."""
        return None if self._helper is None else self._helper.stdout.fileno()

    @property
    def pid(self) -> int | None:
        """The keeper's pid."""
        return None if self._helper is None else self._helper.pid

    @property
    def is_needed(self) -> bool:
        """Whether there may be something to take back."""
        return self._asked

    def still_keeps(self) -> bool:
        """Whether all is as it was prepared, as the keeper says when it looks again; not while a run has it."""
        if self._prepared is None:
            return False
        self._prepared = None  # until it says so again
        self.order(keeping.LOOK_AGAIN)
        until_s = time.monotonic() + _LOOK_LIMIT_S
        answers: list[ev.AnyEvent] = []
        while not answers and self._helper is not None and (left_s := until_s - time.monotonic()) > 0:
            select.select([self._helper.stdout.fileno()], [], [], left_s)
            answers = self.read(0)
        return any(isinstance(event, ev.DevicesPrepared) for event in answers) and self._prepared is not None

    def prepare(self, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        """Start the keeper; one of the run before has done already what there is to do."""
        if self._prepared is not None:
            what = f"Taken over from the run before: {self._prepared.what}"
            return [msgspec.structs.replace(self._prepared, at_ns=at_ns, what=what, replaced=())]
        try:
            self._start(self._argv)
        except HeteromigError as error:
            return [ev.PreparationFailed(at_ns=at_ns, message=str(error), exit_code=error.exit_code)]
        self._asked = True
        return []

    def order(self, line: str) -> None:
        """Have the keeper do something with what it keeps."""
        if self._helper is not None and self._leave_by_s is None:
            with contextlib.suppress(OSError):  # a dead keeper is noticed by the end of its output
                os.write(self._helper.stdin.fileno(), line.encode() + b"\n")

    def restore(self, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        """Have it taken back what was done, by a successor where there is no keeper; the answer comes as an event."""
        self._prepared = None
        if self._leave_by_s is None:
            self._leave_by_s = time.monotonic() + LEAVING_LIMIT_S
        if self._helper is None:
            try:
                self._start((*self._argv, "--only-restore"))
            except HeteromigError as error:
                return [ev.RestorationFailed(at_ns=at_ns, message=str(error))]
        assert self._helper is not None  # noqa: S101 - it was just started
        self._helper.stdin.close()
        return []

    def read(self, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        """Everything it said since the last call; the end of its output means that it ended."""
        found: list[ev.AnyEvent] = []
        while (helper := self._helper) is not None:
            try:
                chunk = os.read(helper.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                self._helper = None
                helper.close()
                found.append(self._lost(at_ns, "ended"))
                break
            *lines, self._text = (self._text + chunk).split(b"\n")
            for line in lines:
                found.extend(self._event(line, at_ns))
            if len(self._text) > LINE_BYTES_MAX:
                found.append(self._unreadable(at_ns, "a line without an end"))
        return found

    def close(self) -> str | None:
        """Nothing is left behind, if need be by waiting. The answer is why something may be, None where nothing is."""
        heard: list[ev.AnyEvent] = []
        for _ in range(1 + MAX_SUCCESSORS if self._leave_by_s is None else 0):  # else it has had its successors
            if self._asked:
                heard += [*self.restore(0), *self._wait()]
        heard += self._wait()
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        answers = [event for event in heard if isinstance(event, ev.DevicesRestored | ev.RestorationFailed)]
        if answers and isinstance(answers[-1], ev.RestorationFailed):
            return answers[-1].message
        if not self._asked:
            return None
        return (
            "What was done to the GPU for these runs may not be taken back: heteromig clean does that, with their "
            f"--runs-dir; see {self.home / KEEPER_LOG}."
        )

    def _wait(self) -> list[ev.AnyEvent]:
        """What whoever was told to take it back says until its end, or until it has had its time."""
        heard: list[ev.AnyEvent] = []
        until_s = self._leave_by_s or 0.0
        while self._helper is not None and (left_s := until_s - time.monotonic()) > 0:
            select.select([self._helper.stdout.fileno()], [], [], left_s)
            heard += self.read(0)
        return heard

    def _start(self, argv: tuple[str, ...]) -> None:
        self._text = b""
        # In a directory of our own, as the sampler is.
        self._helper = spawn_helper(argv, stderr=self.home / KEEPER_LOG, cwd=self.home)
        with contextlib.suppress(OSError):  # as for the sampler
            note_process(str(self.home), "keeper", self._helper.pid)
        os.set_blocking(self._helper.stdout.fileno(), False)

    def _event(self, line: bytes, at_ns: MonotonicNs) -> list[ev.AnyEvent]:
        try:
            message = keeping.decode_line(line)
        except msgspec.DecodeError as error:
            return [self._unreadable(at_ns, str(error))]
        match message:
            case keeping.Prepared():
                prepared = ev.DevicesPrepared(
                    at_ns=at_ns,
                    gpu_uuid=message.gpu_uuid,
                    what=message.what,
                    environment=message.environment,
                    replaced=message.replaced,
                )
                self._prepared = prepared if self._leave_by_s is None else None
                return [prepared]
            case keeping.Refused():
                self._end()
                return [ev.PreparationFailed(at_ns=at_ns, message=message.message, exit_code=message.exit_code)]
            case keeping.Lost():
                self._prepared = None
                return [ev.KeeperLost(at_ns=at_ns, message=message.message)]
            case keeping.Restored():
                self._end()
                return [ev.DevicesRestored(at_ns=at_ns, what=message.what, replaced=message.replaced)]
            case keeping.NotRestored():
                self._end()
                return [ev.RestorationFailed(at_ns=at_ns, message=message.message)]

    def _end(self) -> None:
        """It has said its last word."""
        self._asked = False
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _unreadable(self, at_ns: MonotonicNs, why: str) -> ev.AnyEvent:
        self._end()
        self._asked = True  # there may be something to take back yet
        self._text = b""
        return self._lost(at_ns, f"said something unreadable ({why})")

    def _lost(self, at_ns: MonotonicNs, how: str) -> ev.AnyEvent:
        self._prepared = None
        return ev.KeeperLost(at_ns=at_ns, message=f"The process that kept the GPU prepared {how}; see {KEEPER_LOG}.")
