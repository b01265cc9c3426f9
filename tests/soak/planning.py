"""What is to go wrong in a run, settled before it begins, and what the run may come out as because of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from msgspec import Struct

MAIN_DURATION_S = 1.2
MARGIN_NS = 250_000_000
"""Between a stamp and the deed behind it a process may be kept waiting that long; what lies closer decides nothing."""
DEVICE_DELAY_NS = 1_000_000_000
"""How long ten samples take. What befalls a device later than that before main's end may remain unseen."""
BACKGROUNDS = 2
DIE = '{"die": true}'
"""The rehearsed failure that befalls the sampler and not the device."""


class Behaviour(Struct, frozen=True):
    """What a worker does of its own accord, so long after its timed section began."""

    what: str = "good"
    after_s: float = 0.0


class Stroke(Struct, frozen=True):
    """What is done to a process or a device from outside, so long after main's timed section began, or the run did.

    `target` is `controller`, `sampler`, `worker 1`, `guardian 1` or `device`; `deed` a signal, or a rehearsed failure.
    """

    target: str
    deed: str
    after_s: float
    since: str = "main"


class FaultPlan(Struct, frozen=True):
    """One run. `name` is what is planned, for the table; `behaviours` are by the number of the worker."""

    name: str
    behaviours: dict[int, Behaviour] = {}
    strokes: tuple[Stroke, ...] = ()
    flags: tuple[str, ...] = ()


_DURING = (0.05, MAIN_DURATION_S - 0.1)
_BREAKING = ("exits 0", "exits 1", "segfaults", "dies", "freezes", "ends early")
_HARMLESS = ("floods its output", "leaves a daemon", "ignores TERM")
_BY_NATURE = ("never starts", "crashes at once")


def make_plan(rng: random.Random) -> FaultPlan:
    """One in five runs has nothing planned."""
    kinds = (_nothing, _background, _background, _harmless, _evidence, _main, _controller, _helper, _device, _two)
    return rng.choice((_nothing, *kinds))(rng)


def _nothing(rng: random.Random) -> FaultPlan:
    del rng
    return FaultPlan("nothing")


def _background(rng: random.Random) -> FaultPlan:
    what = rng.choice((*_BREAKING, *_BREAKING, *_BY_NATURE))
    return FaultPlan(f"background {what}", {rng.randint(1, BACKGROUNDS): Behaviour(what, rng.uniform(0.0, 2.5))})


def _harmless(rng: random.Random) -> FaultPlan:
    what = rng.choice(_HARMLESS)
    return FaultPlan(f"background {what}", {rng.randint(1, BACKGROUNDS): Behaviour(what, rng.uniform(*_DURING))})


def _evidence(rng: random.Random) -> FaultPlan:
    worker = rng.randint(0, BACKGROUNDS)
    who = "background" if worker else "main"
    return FaultPlan(f"{who} truncates its log", {worker: Behaviour("truncates its log", rng.uniform(*_DURING))})


def _main(rng: random.Random) -> FaultPlan:
    what = rng.choice(
        ("exits 1", "dies", "is invalid", "hangs", "hangs after its result", "fails after its result", "never starts",
         "crashes at once", "floods its output")
    )  # fmt: skip
    return FaultPlan(f"main {what}", {0: Behaviour(what, rng.uniform(*_DURING))})


def _controller(rng: random.Random) -> FaultPlan:
    signum = rng.choice(("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIGSTOP"))
    since = rng.choice(("main", "run"))
    stroke = Stroke("controller", signum, rng.uniform(*_DURING) if since == "main" else rng.uniform(0.0, 2.0), since)
    return FaultPlan(f"controller gets {signum}", strokes=(stroke,))


def _helper(rng: random.Random) -> FaultPlan:
    target = rng.choice(("sampler", "sampler", *(f"guardian {number}" for number in range(BACKGROUNDS + 1))))
    name = target.split()[0] if target[-1] != "0" else "main's guardian"
    signum = rng.choice(("SIGKILL", "SIGTERM"))
    return FaultPlan(f"{name} gets {signum}", strokes=(Stroke(target, signum, rng.uniform(*_DURING)),))


def _device(rng: random.Random) -> FaultPlan:
    what = rng.choice(('{"xid": 79}', '{"gpu_lost": true}', '{"geometry_changed": true}', DIE))
    return FaultPlan(f"device {what}", strokes=(Stroke("device", what, rng.uniform(-0.2, 0.1)),))


def _two(rng: random.Random) -> FaultPlan:
    behaviours = {number: Behaviour(rng.choice(_BREAKING), rng.uniform(0.3, 2.5)) for number in (1, 2)}
    return FaultPlan("both backgrounds", behaviours)


# --- what the plan says of the verdict --------------------------------------------------------------------------------


class Truth(Struct, frozen=True):
    """Stamps that workers and the injector left, in ns since 1970: by worker and what, and of each stroke that fell."""

    stamps: Mapping[str, int]
    strokes: tuple[int | None, ...]

    @property
    def main_completing_ns(self) -> int | None:
        """Just before main's last sample was completed; None where that never was, or because somebody stopped it."""
        return self.stamps.get("0.completing")


def why_not_valid(plan: FaultPlan, truth: Truth) -> str | None:
    """Why a run under this plan cannot be valid, by what was done and when; None where it can."""
    end_ns = truth.main_completing_ns
    if end_ns is None:
        return "main did not run to its end"
    return next(_reasons(plan, truth, end_ns), None)


def _reasons(plan: FaultPlan, truth: Truth, end_ns: int) -> Iterator[str]:
    """`end_ns` is a little before the end of main's timed section."""
    for worker, behaviour in plan.behaviours.items():
        if worker == 0 and behaviour.what in {"is invalid", "hangs after its result", "fails after its result"}:
            yield f"main {behaviour.what}"
        if worker and behaviour.what in _BY_NATURE:
            yield f"background {worker} {behaviour.what}"
        if worker and behaviour.what in _BREAKING:
            at_ns = truth.stamps.get(f"{worker}.{'completing' if behaviour.what == 'ends early' else 'fault'}")
            if at_ns is not None and at_ns + MARGIN_NS < end_ns:
                yield f"background {worker} {behaviour.what} {(end_ns - at_ns) / 1e9:.2f} s before main's end"
    for worker in range(1, BACKGROUNDS + 1):
        if truth.stamps.get(f"{worker}.begun", end_ns) > truth.stamps["0.begun"] + MARGIN_NS:
            yield f"background {worker} began after main"
    for stroke, at_ns in zip(plan.strokes, truth.strokes, strict=True):
        if at_ns is not None and _is_fatal(stroke) and at_ns + _delay_ns(stroke) < end_ns:
            yield f"{stroke.target} got {stroke.deed} {(end_ns - at_ns) / 1e9:.2f} s before main's end"


def should_be_valid(plan: FaultPlan) -> bool:
    """Whether nothing that was planned is a reason for the run not to be valid."""
    harmless = all(behaviour.what in {*_HARMLESS, "good"} for behaviour in plan.behaviours.values())
    return harmless and not any(_is_fatal(stroke) or stroke.target == "controller" for stroke in plan.strokes)


def _is_fatal(stroke: Stroke) -> bool:
    # Another sampler takes over, and a stopped controller is woken up again.
    return stroke.target != "sampler" and stroke.deed not in {DIE, "SIGSTOP"}


def _delay_ns(stroke: Stroke) -> int:
    return DEVICE_DELAY_NS if stroke.target == "device" else 0
