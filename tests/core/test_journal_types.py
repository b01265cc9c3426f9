"""What is journaled comes back as it was: events, effects, and the record of a run."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.device_guards import DeviceFinding
from heteromig.core.devices import GpuSample
from heteromig.core.guards import Status
from heteromig.core.machine import EVENTS
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.phases import EvidenceLevel, Phase
from heteromig.core.record import (
    SCHEMA_VERSION,
    HostRecord,
    ObserverPhase,
    ObserverRecord,
    OverlapRecord,
    PhaseRecord,
    RunRecord,
    Tool,
    VerdictRecord,
)
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import Reason
from tests.core.histories import KEEPING, SHARED, SPEC, inventory, occupant, sample
from tests.core.world import BACKGROUND, Cast, Incident, Place, World


def rich_history() -> World:
    """A run in which nearly everything is heard and asked for."""
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    return World(
        SHARED,
        cast=Cast(background=stubborn),
        place=Place(engines_cached=False),
        incidents=(Incident(Phase.MAIN_RUNNING, 1.0, ev.DeviceFaulted(0, "Xid 79")),),
    ).finish()


EXAMPLES: list[ev.AnyEvent] = [
    ev.RunStarted(1, 2, 3, 4),
    ev.ClocksRead(1, 2),
    ev.LookedAway(2, 1),
    ev.DevicesPrepared(1, "GPU-0", "cut", {"CUDA_MPS_PIPE_DIRECTORY": "/pipe"}, ((None, "MIG-1"), ("MIG-0", None))),
    ev.PreparationFailed(1, "in use", 7),
    ev.KeeperLost(1, "it died"),
    ev.DevicesRestored(1, "cut back", (("MIG-0", "MIG-2"),)),
    ev.RestorationFailed(1, "in use"),
    ev.SlicesDiscovered(1, inventory(), (0, 1)),
    ev.DiscoveryFailed(1, "no driver"),
    ev.GpusLocked(1, ("left cut by a run that was killed",)),
    ev.LockRefused(1, "pid 5"),
    ev.EnginesInspected(1, ()),
    ev.WorkerSpawned(1, 2, 3, 4),
    ev.SpawnFailed(1, 2, "no such file"),
    ev.StartAnnounced(1, 2),
    ev.TimedSectionBegan(1, 2),
    ev.ProgressMade(1, 2, 3, 4.5),
    ev.TimedSectionEnded(1, 2),
    ev.FinishAnnounced(1, 2),
    ev.ResultReported(1, 2, valid=False),
    ev.WorkerExited(1, 2, None, 9, "KILL"),
    ev.WorkerReleased(1, 2),
    ev.StillTimed(1, 2, 3),
    ev.FoundStopped(1, 2),
    ev.SampleTaken(1, replace(sample(1, None, (occupant(5, 6),)), gpus=(GpuSample("GPU-0", power_w=61.5),))),
    ev.DeviceFaulted(1, "Xid 79"),
    ev.SamplerLost(1, restarted=True, message="it died"),
    ev.DeadlinePassed(1, ev.Timer.MAIN_EXIT, 4),
    ev.SignalReceived(1, 15),
    ev.VerdictWritten(1),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event: ev.AnyEvent) -> None:
    text = msgspec.json.encode(event)
    assert json.loads(text)["event"] == type(event).__name__
    assert msgspec.json.decode(text, type=ev.AnyEvent) == event


def test_every_kind_of_event_is_among_the_examples_or_in_the_history() -> None:
    assert {type(event) for event in (*EXAMPLES, *rich_history().events)} == set(EVENTS)


def test_every_effect_comes_back_as_it_was() -> None:
    effects = (*rich_history().effects, *World(KEEPING).finish().effects)
    assert {type(effect) for effect in effects} == set(ef.AnyEffect.__args__)  # type: ignore[attr-defined]  # a Union has them
    decoder = msgspec.json.Decoder(ef.AnyEffect)
    for effect in effects:
        assert decoder.decode(msgspec.json.encode(effect)) == effect


def test_a_number_in_place_of_a_name_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="message"):
        msgspec.json.decode(b'{"event": "LockRefused", "at_ns": 1, "message": 5}', type=ev.AnyEvent)


def test_facts_cannot_be_changed() -> None:
    event = ev.GpusLocked(1)
    with pytest.raises(AttributeError):
        event.at_ns = 2  # type: ignore[misc]  # that is the point


def test_a_spec_is_written_in_the_words_of_the_configuration() -> None:
    text = msgspec.json.encode(SPEC)
    assert json.loads(text)["start-evidence"] == "timed"
    assert json.loads(text)["timing"]["start-time-buffer-ms"] == 3_000
    assert msgspec.json.decode(text, type=RunSpec) == SPEC


def test_the_record_of_a_run_keeps_what_is_unknown_as_null() -> None:
    neighbour = BackgroundOverlap(
        worker=1,
        benchmark="bert",
        evidence=EvidenceLevel.TIMED,
        begin_utc_ns=None,
        end_utc_ns=None,
        begin_source=None,
        end_source=None,
        slack_before_s=None,
        slack_after_s=None,
        uncertainty_s=None,
        coverage=None,
        covered=None,
    )
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        tool=Tool("heteromig", "0.1.0"),
        run_id="20250101T000000Z-resnet50-offline",
        started_at="2025-01-01T00:00:00Z",
        ended_at=None,
        heartbeat_at="2025-01-01T00:00:05Z",
        phase=Phase.BUFFERING.value,
        goal="run",
        harness="loadgen",
        simulated=True,
        isolation="simulated",
        lenient=False,
        host=HostRecord("here", "6.1", "3.11.7", cpu_model=None, cpus=(0, 1), memory_bytes=None),
        gpus=(),
        slices=(),
        workers=(),
        left_out=("rnnt",),
        overlap=OverlapRecord(
            proven=False, coverage=None, slack_before_s=None, slack_after_s=None, backgrounds=(neighbour,)
        ),
        observer=ObserverRecord(
            cpu_s=0.1, sampler_cpu_s=None, wakeups=12, by_phase=(ObserverPhase("discovering", 0.1, 12),)
        ),
        phases=(PhaseRecord("discovering", "2025-01-01T00:00:00Z", None),),
        notes=("Slice MIG-9 was used meanwhile.",),
        device_guards=(DeviceFinding("memory_returned", "MIG-9", Status.OK, "13 MiB", "14 MiB", "it came back"),),
        verdict=None,
    )
    text = msgspec.json.encode(record)
    assert json.loads(text)["host"]["memory_bytes"] is None
    assert json.loads(text)["overlap"]["backgrounds"][0]["covered"] is None
    assert msgspec.json.decode(text, type=RunRecord) == record
    decided = replace(record, verdict=VerdictRecord("failed", 7, (Reason(7, "Xid 79"),)))
    assert msgspec.json.decode(msgspec.json.encode(decided), type=RunRecord) == decided
