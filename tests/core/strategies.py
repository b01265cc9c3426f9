"""Random specs, habits, incidents and facts, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.phases import MEASURING_PHASES, EvidenceLevel, Phase
from heteromig.core.plan import make_plan
from heteromig.core.spec import Action, Drain, Goal, Mode, Preparation, RunSpec
from heteromig.core.verdict import ABORT_SIGNALS, Reason
from tests.core import histories
from tests.core.world import (
    ANNOUNCING_BACKGROUND,
    ANNOUNCING_MAIN,
    BACKGROUND,
    BUILD,
    MAIN,
    Cast,
    Habit,
    Incident,
    Keeper,
    Place,
    Trouble,
)

_NEEDS = [
    (),
    *(
        tuple((need, "gone") for need in make_plan(spec, histories.inventory(), (0, 1)).engines[:count])
        for spec, count in ((histories.SPEC, 2), (histories.BATCHED, 3))
    ),
]
"""Lists of engines that may be said to be missing."""
_HABITS = (*Habit.__struct_fields__, *("begins_s", "ends_s", "dies_s") * 3)
"""Fields of a habit; those that decide how far a run comes are changed more often."""
_PHASES = (*Phase, *MEASURING_PHASES, *MEASURING_PHASES)
_WORKERS = st.integers(min_value=-1, max_value=5)
_SHORT_S = st.sampled_from([0.0, 0.05, 0.5, 2.0, 10.0, 45.0])
_EXITS = st.sampled_from([(0, None), (1, None), (None, 9), (None, 40), (None, None)])

SIGNALS = st.sampled_from([int(signum) for signum in ABORT_SIGNALS])


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    base = draw(
        st.sampled_from([histories.ALONE, *[histories.BATCHED] * 3, *[histories.ABRUPT] * 3, *[histories.SPEC] * 4])
    )
    action = draw(st.sampled_from([Action.RUN_HARNESS, Action.RUN_HARNESS, Action.TEST04]))
    preparation = draw(st.sampled_from([None, None, *Preparation]))
    goal = Goal.BUILD if draw(st.integers(0, 9)) == 0 else Goal.RUN
    if base is histories.ALONE:
        goal = Goal.BASELINE
    return replace(
        base,
        preparation=preparation,
        simulated=preparation is not Preparation.MPS,
        main=replace(base.main, action=action, mode=draw(st.sampled_from(Mode))),
        goal=goal,
        allow_busy=draw(st.booleans()),
        timing=replace(base.timing, start_time_buffer_ms=draw(st.sampled_from([0, 3_000, 10_000]))),
        start_evidence=draw(st.sampled_from(EvidenceLevel)),
        drain=draw(st.sampled_from(Drain)),
        keeps_backgrounds=draw(st.integers(0, 3)) == 0,
        lenient=draw(st.booleans()),
        rebuild=draw(st.booleans()),
    )


_DEVICE_FAULTS = st.sampled_from([None, 0, 1]).map(
    lambda gpu: ev.DeviceFaulted(0, f"Xid 79 on {gpu}", None if gpu is None else histories.gpu_uuid(gpu))
)


@st.composite
def _habits(draw: st.DrawFn, base: Habit) -> Habit:
    """The usual, with one to three things out of order."""
    exit_code, signal = draw(_EXITS)
    odd = Habit(
        spawn_failure=draw(st.sampled_from([None, "no such program"])),
        announces_s=draw(st.none() | _SHORT_S),
        begins_s=draw(st.none() | _SHORT_S),
        beats_s=draw(st.sampled_from([None, 0.5, 2.0])),
        ends_s=draw(st.none() | _SHORT_S),
        reports=draw(st.sampled_from([None, True, False])),
        more_runs=draw(st.integers(0, 2)),
        pause_s=draw(_SHORT_S),
        finishes_s=draw(st.none() | _SHORT_S),
        done_s=draw(st.none() | _SHORT_S),
        exits_s=draw(st.none() | _SHORT_S),
        dies_s=draw(st.none() | _SHORT_S),
        exit_code=exit_code,
        signal=signal,
        clean_stop_s=draw(st.none() | _SHORT_S),
        term_s=draw(st.none() | _SHORT_S),
        client_s=draw(st.none() | _SHORT_S),
        kill_s=draw(st.none() | _SHORT_S),
        seen_on=draw(st.sampled_from([None, histories.slice_uuid(0), histories.slice_uuid(2)])),
        seen=draw(st.booleans()),
        spoils=draw(st.integers(0, 2)),
    )
    changed = draw(st.sets(st.sampled_from(_HABITS), min_size=1, max_size=3))
    return replace(base, **{name: getattr(odd, name) for name in changed})


def habits(base: Habit) -> st.SearchStrategy[Habit]:
    return st.just(base) | _habits(base)


def casts() -> st.SearchStrategy[Cast]:
    usual = st.just(Cast())
    odd = st.builds(
        Cast,
        main=habits(MAIN) | habits(ANNOUNCING_MAIN),
        background=habits(BACKGROUND) | habits(ANNOUNCING_BACKGROUND),
        build=habits(BUILD),
        others=st.just(()) | st.tuples(st.tuples(st.just(1), _habits(BACKGROUND))),
    )
    return usual | odd


@st.composite
def places(draw: st.DrawFn) -> Place:
    """A machine that is ready, but for one in ten."""
    found = draw(st.sampled_from([(), (Reason(3, "not VALID"),), (Reason(4, "not covered"), Reason(9, "no log"))]))
    keeper = st.just(Keeper()) | st.builds(
        Keeper,
        prepares_s=st.sampled_from([0.5, 0.5, 20.0, 70.0, None]),
        refusal=st.sampled_from(
            [None, None, ev.PreparationFailed(0, "in use", 7), ev.PreparationFailed(0, "no fit", 2)]
        ),
        restores_s=st.sampled_from([0.5, 0.5, 20.0, 70.0, None]),
        failure=st.sampled_from([None, None, "in use"]),
    )
    ready = Place(
        keeper=draw(keeper),
        lock_notes=draw(st.sampled_from([(), ("left cut",)])),
        inventory=draw(st.sampled_from([histories.inventory(), histories.inventory(2, 4)])),
        engines_cached=draw(st.booleans()),
        shows_processes=draw(st.integers(0, 4)) > 0,
        certificate=histories.certificate(*found),
    )
    if draw(st.integers(0, 9)) < 9:
        return ready
    unready = (
        replace(ready, inventory=histories.inventory(1)),
        replace(ready, discovery_failure="no driver"),
        replace(ready, lock_refusal="pid 5 holds it"),
    )
    return draw(st.sampled_from(unready))


def incidents() -> st.SearchStrategy[tuple[Incident, ...]]:
    facts = st.one_of(
        SIGNALS.map(lambda signum: ev.SignalReceived(0, signum)),
        st.booleans().map(lambda restarted: ev.SamplerLost(0, restarted, "it died")),
        _DEVICE_FAULTS,
    )
    one = st.builds(
        Incident,
        phase=st.sampled_from(_PHASES),
        after_s=st.sampled_from([0.0, 0.1, 1.0, 5.0, 20.0]),
        what=facts | st.sampled_from(Trouble),
    )
    return st.lists(one, max_size=3).map(tuple)


def facts() -> st.SearchStrategy[ev.AnyEvent]:
    """Anything that the world could ever say, true or not; answers to effects of one phase are no facts."""
    who = st.sampled_from([histories.occupant(9, 1010, histories.CONTROLLER_PID), histories.occupant(4242, 1)])
    occupants = st.none() | st.lists(who, max_size=1).map(tuple)
    reading = st.builds(
        histories.sample,
        st.just(1_000 * 10**9),
        occupants,
        occupants,
        occupants,
        geometry=st.sampled_from([histories.GEOMETRY, histories.GEOMETRY, "another"]),
    )
    exits = st.builds(
        lambda worker, how, rung: ev.WorkerExited(0, worker, how[0], how[1], rung),
        _WORKERS,
        _EXITS,
        st.sampled_from([None, None, "clean stop", "TERM"]),
    )
    zero = st.just(0)
    return st.one_of(
        st.just(ev.RunStarted(0, 0, histories.CONTROLLER_PID)),
        st.builds(ev.ClocksRead, zero, st.integers(0, 10**18)),
        st.builds(ev.LookedAway, zero, st.integers(0, 10**12)),
        st.just(ev.DevicesPrepared(0, histories.gpu_uuid(0), "cut")),
        st.just(ev.PreparationFailed(0, "in use", 7)),
        st.just(ev.KeeperLost(0, "it died")),
        st.just(ev.DevicesRestored(0, "cut back")),
        st.just(ev.RestorationFailed(0, "in use")),
        st.builds(ev.SlicesDiscovered, zero, st.sampled_from([2, 3, 1]).map(histories.inventory), st.just((0, 1, 2))),
        st.just(ev.DiscoveryFailed(0, "no driver")),
        st.sampled_from([ev.GpusLocked(0), ev.GpusLocked(0, ("left cut",))]),
        st.just(ev.LockRefused(0, "pid 5 holds it")),
        st.builds(ev.EnginesInspected, zero, st.sampled_from(_NEEDS)),
        st.builds(ev.WorkerSpawned, zero, _WORKERS, st.integers(1000, 1050), st.integers(1000, 1050)),
        st.builds(ev.SpawnFailed, zero, _WORKERS, st.just("no such program")),
        st.builds(ev.StartAnnounced, zero, _WORKERS),
        st.builds(ev.TimedSectionBegan, zero, _WORKERS),
        st.builds(ev.ProgressMade, zero, _WORKERS, st.integers(0, 3), st.just(1.0)),
        st.builds(ev.TimedSectionEnded, zero, _WORKERS),
        st.builds(ev.FinishAnnounced, zero, _WORKERS),
        st.builds(ev.ResultReported, zero, _WORKERS, st.booleans()),
        st.builds(ev.StillTimed, zero, _WORKERS, st.just(5)),
        st.builds(ev.WorkerReleased, zero, _WORKERS),
        st.builds(ev.FoundStopped, zero, _WORKERS),
        exits,
        st.builds(ev.SampleTaken, zero, reading),
        _DEVICE_FAULTS,
        st.builds(ev.SamplerLost, zero, st.booleans(), st.just("it died")),
        st.builds(ev.DeadlinePassed, zero, st.sampled_from(ev.Timer), st.integers(0, 7)),
        SIGNALS.map(lambda signum: ev.SignalReceived(0, signum)),
    )
