from __future__ import annotations

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.phases import EvidenceLevel, Phase
from heteromig.core.spec import Mode, Preparation
from heteromig.views import waiting
from tests.views.stories import Story, make_spec


def sentence(story: Story) -> str:
    return waiting.sentence(story.run, story.entered_ns, story.now_ns)


def started() -> Story:
    return Story().discover().build(engines=0, of=0).start()


def test_each_phase_says_what_it_waits_for() -> None:
    story = Story()
    assert sentence(story) == "looking for slices"
    story.discover()
    assert sentence(story) == "reading the engine cache"
    story.build(engines=2, of=7)
    assert sentence(story) == "engine 3 of 7: bert offline 99 for 1g.10gb"

    story = Story().discover().build(engines=0, of=1)
    story.tell(ev.WorkerExited(story.now_ns, 7, 0, None))
    assert sentence(story) == "1 built; checking the cache"

    story = Story().discover().build(engines=0, of=0)
    assert sentence(story).startswith("waiting for the backgrounds; gives up in")
    story.start(timed=4)
    story.entered_ns = story.now_ns - 2 * 10**9
    assert sentence(story) == "waiting for rnnt, dlrm; gives up in 58.0 s"


def test_buffering_counts_down_and_then_waits_for_a_sample() -> None:
    story = started()
    story.now_ns = story.entered_ns
    story.wait(0.9)
    assert sentence(story) == "buffering: 2.1 s left"
    story.wait(2.1)
    assert sentence(story) == "the buffer is over: waiting for a fresh sample of the devices"


def test_main_and_the_end_of_a_run() -> None:
    story = started().buffer()
    assert sentence(story) == "main resnet50 is starting"
    story.spawn(0)
    story.tell(ev.StartAnnounced(story.now_ns, 0))
    assert sentence(story) == "main resnet50 is loading its samples"
    story.tell(ev.TimedSectionBegan(story.now_ns, 0))
    assert sentence(story) == "measuring resnet50 beside 6 of 6 backgrounds"
    story.tell(ev.TimedSectionEnded(story.now_ns, 0))
    assert sentence(story) == "main resnet50 was measured; waiting for it to exit"
    story.tell(ev.WorkerExited(story.now_ns, 0, 0, None))
    assert sentence(story).startswith("stopping 6 (clean stop): 3d-unet, bert")
    story.wait(0.1)
    for worker in range(1, 7):
        story.tell(ev.WorkerExited(story.now_ns, worker, 0, None))
    assert sentence(story) == "no sample since the last worker was reaped"
    story.wait(0.1)
    story.sample()
    assert story.run.phase is Phase.VALIDATING
    assert sentence(story) == "reading the logs and judging the overlap"
    assert sentence(story.judge()) == "valid, exit 0"


def test_building_estimates_from_the_engines_before() -> None:
    story = Story().discover()
    assert waiting.building(story.run.view, story.now_ns).fraction == 0.0
    story.build(engines=0, of=4)
    first = waiting.building(story.run.view, story.now_ns)
    assert (first.fraction, first.note) == (0.0, "0/4 built")

    story = Story().discover().build(engines=2, of=4)
    third = waiting.building(story.run.view, story.now_ns)
    assert third.fraction == (2 + 0.5) / 4
    assert third.note == "2/4 built, about 3.0 s left"
    story.wait(60)
    assert waiting.building(story.run.view, story.now_ns).fraction < 0.75

    story = Story().discover().build(engines=4, of=4)
    assert waiting.building(story.run.view, story.now_ns) == waiting.Progress("build", 1.0, "4/4 built")
    cached = Story().discover().build(engines=0, of=0)
    assert waiting.building(cached.run.view, cached.now_ns) == waiting.Progress("build", 1.0, "all in the cache")


def test_buffer_bar_before_within_and_after() -> None:
    story = Story().discover().build(engines=0, of=0)
    assert waiting.buffering(story.run, story.entered_ns, story.now_ns) == waiting.Progress("buffer", 0.0, "3.0 s")
    story.start()
    halfway_ns = story.entered_ns + 1_500_000_000
    assert waiting.buffering(story.run, story.entered_ns, halfway_ns).fraction == 0.5
    story.buffer()
    assert waiting.buffering(story.run, story.entered_ns, story.now_ns).note == "3.0 s passed"


def test_main_bar_counts_from_the_timed_section() -> None:
    story = started().buffer()
    assert waiting.measuring(story.run.view, story.now_ns) == waiting.Progress("main", 0.0, "10.0 s")
    story.measure(4.0)
    bar = waiting.measuring(story.run.view, story.now_ns)
    assert (round(bar.fraction, 3), bar.note) == (0.4, "6.0 s left of 10.0 s")
    story.wait(7.5)
    assert waiting.measuring(story.run.view, story.now_ns) == waiting.Progress("main", 1.0, "1.5 s longer than 10.0 s")
    story.finish_main()
    assert waiting.measuring(story.run.view, story.now_ns) == waiting.Progress("main", 1.0, "11.5 s measured")


def test_main_that_was_stopped_is_not_full() -> None:
    story = started().buffer().measure(4.0)
    story.tell(ev.WorkerExited(story.now_ns, 0, None, 9, "KILL"))
    bar = waiting.measuring(story.run.view, story.now_ns)
    assert (round(bar.fraction, 3), bar.note) == (0.4, "stopped after 4.0 s")


def test_accuracy_mode_promises_no_time() -> None:
    story = Story(make_spec(mode=Mode.ACCURACY)).discover().build(engines=0, of=0).start().buffer()
    assert waiting.measuring(story.run.view, story.now_ns).note == "until every sample is seen"
    story.measure(4.0)
    assert waiting.measuring(story.run.view, story.now_ns).note == "4.0 s, until every sample is seen"


def _batching() -> Story:
    """A run in NVIDIA's tree as far as builds are concerned: dlrm is of another configuration version."""
    spec = make_spec()
    catalog = tuple(
        msgspec.structs.replace(info, config_vers=(("99", "high" if info.name == "dlrm" else "hetero"),))
        for info in spec.catalog
    )
    main = msgspec.structs.replace(spec.main, config_ver="hetero", scenario="server")
    return Story(msgspec.structs.replace(spec, catalog=catalog, main=main, batch_builds=True)).discover()


def test_builds_of_several_engines_are_counted_as_builds() -> None:
    story = _batching()
    engines = story.plan.engines
    story.tell(ev.EnginesInspected(story.now_ns, tuple((need, "absent") for need in engines)))
    build = len(story.plan.workers)
    story.spawn(build)
    names = ", ".join(need.benchmark for need in engines if need.benchmark != "dlrm")
    assert names.startswith("resnet50, ")
    assert sentence(story) == f"build 1 of 2: hetero for 1g.10gb: {names} x server, offline"
    assert waiting.building(story.run.view, story.now_ns).note == "0/2 built"
    story.wait(10)
    story.tell(ev.WorkerExited(story.now_ns, build, 0, None))
    story.tell(
        ev.EnginesInspected(story.now_ns, tuple((need, "absent") for need in engines if need.config_ver == "high"))
    )
    story.spawn(build + 1)
    assert sentence(story) == "build 2 of 2: high for 1g.10gb: dlrm x offline"
    story.wait(4)
    progress = waiting.building(story.run.view, story.now_ns)
    assert progress.fraction == (1 + 0.4) / 2
    assert progress.note == "1/2 built, about 6.0 s left"


def _preparing(kind: Preparation) -> Story:
    story = Story(msgspec.structs.replace(make_spec(), preparation=kind, layout="7x1g.10gb"))
    story.tell(ev.RunStarted(story.now_ns, 0, 1))
    return story


def test_what_is_done_to_the_gpu_is_said_while_it_is_done() -> None:
    for kind, doing, undoing in (
        (Preparation.LAYOUT, "cutting the GPU into 7x1g.10gb", "cutting the GPU back"),
        (Preparation.MPS, "sharing the GPU", "ending the sharing of the GPU"),
    ):
        story = _preparing(kind)
        assert sentence(story) == doing
        story.tell(ev.DevicesPrepared(story.now_ns, "GPU-0", "cut"))
        assert sentence(story) == "looking for slices"
        story.tell(ev.SignalReceived(story.now_ns, 2))
        story.tell(ev.DeadlinePassed(story.now_ns, ev.Timer.RECHECK, story.run.entry))
        assert sentence(story) == undoing


def test_a_program_that_announces_itself_is_measured_from_then_on() -> None:
    spec = msgspec.structs.replace(make_spec(), start_evidence=EvidenceLevel.ANNOUNCED)
    story = Story(spec).discover().build(engines=0, of=0).start().buffer()
    story.spawn(0)
    assert waiting.measuring(story.run.view, story.now_ns).fraction == 0
    story.tell(ev.StartAnnounced(story.now_ns, 0))
    assert sentence(story) == "measuring resnet50 beside 6 of 6 backgrounds"
    story.wait(spec.main.duration_ms / 2000)
    assert waiting.measuring(story.run.view, story.now_ns).fraction == pytest.approx(0.5)
