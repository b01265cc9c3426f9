from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from rich.cells import cell_len

from heteromig.core import events as ev
from heteromig.core.devices import Activity, GpuSample, Reading, Shared, Unavailable
from heteromig.core.phases import Phase, WorkerState
from heteromig.views.rows import STATE_STYLES
from tests.views.pictures import lines_of, picture, row_of
from tests.views.stories import GIB, Story, make_inventory, make_spec

HOSTILE = "\x1b[2J\x1b[31m[red]日本語[/red]\x07 " + "x" * 300
HOSTILE_LINES = dict.fromkeys(range(80), HOSTILE)


def measuring(*, gpus: int = 1, slices: int = 7) -> Story:
    story = Story(inventory=make_inventory(gpus=gpus, slices=slices)).discover().build(engines=0, of=0)
    return story.start().buffer().measure(4.0)


def failing() -> Story:
    story = measuring()
    story.tell(ev.WorkerExited(story.now_ns, 3, None, 11))
    story.tell(ev.WorkerExited(story.now_ns, 2, 1, None))
    return story


def keeping() -> Story:
    """A run of a campaign, whose backgrounds go on after it."""
    story = Story(spec=msgspec.structs.replace(make_spec(), keeps_backgrounds=True))
    story.discover().build(engines=0, of=0).start().buffer().measure(4.0).finish_main()
    story.tell(ev.DeadlinePassed(story.now_ns, ev.Timer.LAST_LOOK, story.run.entry))
    story.tell(ev.WorkerReleased(story.now_ns, 1))
    return story


CHAPTERS: dict[str, Callable[[], Story]] = {
    "nothing known": Story,
    "building": lambda: Story().discover().build(engines=2, of=7),
    "starting": lambda: Story().discover().build(engines=0, of=0).start(timed=4),
    "measuring": measuring,
    "measuring on one of 8 GPUs": lambda: measuring(gpus=8),
    "measuring on 56 slices": lambda: measuring(slices=56),
    "failing": failing,
    "keeping": keeping,
    "finished": lambda: measuring().finish_main().drain().judge(),
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_picture_fits_every_terminal(chapter: str) -> None:
    story = CHAPTERS[chapter]()
    for width in (20, 40, 80, 100, 131, 132, 160, 250):
        for height in (1, 3, 6, 9, 12, 23, 40, 100):
            lines = picture(story, HOSTILE_LINES, width=width, height=height).lines
            assert len(lines) <= height
            for line in lines:
                text = "".join(text for text, _ in line)
                assert cell_len(text) <= width
                assert text.isprintable()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_row_has_everything_that_is_known_of_a_slice(width: int) -> None:
    story = measuring()
    story.tell(ev.ProgressMade(story.now_ns, 2, 999, 246.8))
    lines = lines_of(story, {2: "INFO all is well"}, width=width, height=40)
    row = row_of(lines, "0002beef:9")
    role = "bg" if width == 80 else "background"
    memory = "512M" if width == 80 else "512M/9.5G"
    for word in ("1g.10gb", role, "bert", "offline", "busy", "246.8", memory):
        assert f" {word}" in row
    assert any("INFO all is well" in line and "0-2" in line for line in lines)
    main = row_of(lines, "0000beef:7")
    assert " main" in main
    assert " 1234" in main


def test_the_head_says_where_the_run_is() -> None:
    lines = lines_of(measuring(), width=120)
    assert "20260401T120000Z-resnet50" in lines[0]
    assert " SIMULATED " in lines[0]
    assert (
        lines[1]
        == "discovering › building › background-starting › buffering › [main-running 5.2 s] › draining › validating"  # noqa: RUF001 - the breadcrumb as it is
    )
    assert lines[2] == "measuring resnet50 beside 6 of 6 backgrounds"
    assert lines[5].startswith("main   ━━━")
    assert lines[5].endswith("6.0 s left of 10.0 s")


def test_a_real_run_has_no_badge() -> None:
    story = measuring()
    story.run.view = msgspec.structs.replace(
        story.run.view,
        spec=msgspec.structs.replace(story.run.view.spec, simulated=False),
        inventory=make_inventory(simulated=False),
    )
    lines = lines_of(story)
    assert "SIMULATED" not in "\n".join(lines)
    assert "GPU 00c0ffee A100-SXM4-80GB  n/a: power, temperature, clocks" in lines


def test_the_short_breadcrumb_is_for_narrow_terminals() -> None:
    assert lines_of(measuring(), width=80)[1] == "discover › build › start › buffer › [main 5.2 s] › drain › validate"  # noqa: RUF001 - as above


def test_the_gpu_is_above_its_slices_with_what_only_it_knows() -> None:
    story = measuring(gpus=2)
    story.sample(
        gpus=(
            GpuSample(
                gpu_uuid=story.inventory.gpus[0].uuid,
                power_w=312.4,
                temperature_c=54.0,
                sm_clock_mhz=1410,
                memory_clock_mhz=1593,
                throttle_reasons=0x4 | 0x1,
            ),
            GpuSample(gpu_uuid=story.inventory.gpus[1].uuid, power_w=80.0),
        )
    )
    lines = lines_of(story, width=140, height=60)
    first = next(number for number, line in enumerate(lines) if line.startswith("GPU 00c0ffee"))
    assert (
        lines[first] == "GPU 00c0ffee A100-SXM4-80GB  312 W  54 C  throttled: power cap  SM 1410 MHz  memory 1593 MHz"
    )
    assert lines[first + 1].strip().startswith("0000beef:7")
    second = lines.index("GPU 01c0ffee A100-SXM4-80GB  80 W  n/a (simulated): temperature, clocks")
    assert "0006beef:13" in lines[second - 2]  # and its second line
    assert lines[second + 1].strip().startswith("0100beef:7")


def test_an_old_sample_shows_its_age() -> None:
    story = measuring()
    story.wait(12.0)
    assert "read 12.0 s ago" in row_of(lines_of(story), "GPU")


def test_a_slice_without_reading_shows_no_number() -> None:
    story = measuring()
    sample = story.run.view.sample
    assert sample is not None
    blind = msgspec.structs.replace(sample.slices[1], memory_used_bytes=None)
    partial = msgspec.structs.replace(sample, slices=(blind,), gpus=())
    story.run.view = msgspec.structs.replace(story.run.view, sample=partial)
    lines = lines_of(story)
    assert row_of(lines, "GPU").endswith("no sample yet")
    assert row_of(lines, "0001beef:8").endswith(" n/a   -")  # no memory, no activity yet
    assert row_of(lines, "0002beef:9").endswith(" -   -")


def test_a_build_is_shown_on_the_slice_it_builds_on() -> None:
    story = Story().discover().build(engines=1, of=3)
    lines = lines_of(story, width=100)
    assert " build      3d-unet " in row_of(lines, "0000beef:7")
    assert " background 3d-unet       offline  planned" in row_of(lines, "0001beef:8")
    done = Story().discover().build(engines=3, of=3)
    assert " main       resnet50 " in row_of(lines_of(done, width=100), "0000beef:7")


def test_a_build_that_failed_stays_in_sight() -> None:
    story = Story().discover().build(engines=0, of=3)
    story.tell(ev.WorkerExited(story.now_ns, 7, 2, None))
    lines = lines_of(story, width=100)
    assert " build      resnet50      offline  exit 2" in row_of(lines, "0000beef:7")
    assert any("exited with status 2" in line for line in lines)


def test_what_went_wrong_is_said_in_the_head() -> None:
    lines = lines_of(failing(), width=140)
    assert lines[1].endswith("[draining 0.0 s] › validating")  # noqa: RUF001 - as above
    assert lines[3].startswith("Background 3 (ssd-mobilenet) died of SIGSEGV during main-running; see workers/3-")
    assert "signal 11" in row_of(lines, "0003beef:10")


def test_evidence_stays_after_the_timed_section() -> None:
    story = measuring().finish_main()
    assert "stopping/busy" in row_of(lines_of(story, width=80), "0001beef:8")
    assert "stopping  busy" in row_of(lines_of(story, width=100), "0001beef:8")
    story.tell(ev.WorkerExited(story.now_ns, 1, None, None))
    assert " gone " in row_of(lines_of(story, width=100), "0001beef:8")


@pytest.mark.parametrize(
    ("exit_code", "signal", "how"), [(2, None, "stopped"), (None, 15, "stopped"), (0, None, "exit 0")]
)
def test_workers_that_were_stopped_are_not_shown_as_failed(exit_code: int | None, signal: int | None, how: str) -> None:
    story = measuring().finish_main()
    story.tell(ev.WorkerExited(story.now_ns, 1, exit_code, signal, "TERM"))
    assert f" {how} " in row_of(lines_of(story, width=100), "0001beef:8")


def test_a_background_that_goes_on_after_the_run_is_shown() -> None:
    assert " released " in row_of(lines_of(keeping(), width=100), "0001beef:8")
    assert set(STATE_STYLES) == set(WorkerState)


def test_unused_slices_are_shown() -> None:
    inventory = make_inventory(slices=3)
    story = Story(inventory=inventory).discover().build(engines=0, of=0).start().buffer()
    view = story.run.view
    story.run.view = msgspec.structs.replace(view, workers=view.workers[:2])
    assert " unused " in row_of(lines_of(story, width=100), "0002beef:9")


def test_more_rows_than_lines_are_counted() -> None:
    lines = lines_of(measuring(slices=56), width=80, height=23)
    assert len(lines) == 23
    shown = sum("beef:" in line for line in lines)
    assert lines[-1] == f" ... {56 - shown} more slices: {56 - shown} busy"
    assert " main " in row_of(lines, "0000beef:7")


def test_slices_of_other_gpus_are_counted_as_unused() -> None:
    lines = lines_of(measuring(gpus=8), width=80, height=23)
    assert len(lines) == 23
    shown = sum("beef:" in line for line in lines)
    assert lines[-1] == f" ... {56 - shown} more slices: {56 - shown} unused"
    assert [" main " in row_of(lines, "0000beef:7"), " busy " in row_of(lines, "0006beef:13")] == [True, True]
    assert " busy " not in row_of(lines, "0100beef:7")


def test_a_low_terminal_keeps_the_bar_of_the_moment_only() -> None:
    lines = lines_of(measuring(), width=100, height=14)
    assert [line[:7].strip() for line in lines[3:5]] == ["main", "SLICE"]


def test_finished_says_the_verdict() -> None:
    story = measuring().finish_main().drain().judge()
    assert story.run.phase is Phase.FINISHED
    lines = lines_of(story)
    assert lines[1].endswith("[finished]")
    assert lines[2] == "valid, exit 0"


def test_many_reasons_are_counted() -> None:
    story = measuring()
    for worker in range(1, 5):
        story.tell(ev.WorkerExited(story.now_ns, worker, 1, None))
    story.tell(ev.DeviceFaulted(story.now_ns, "GPU 0: Xid 79."))
    story.tell(ev.DeviceFaulted(story.now_ns, "GPU 0: Xid 80."))
    assert "... and 1 more reasons" in lines_of(story)


def test_memory_is_binary() -> None:
    story = measuring()
    story.replace_slices(memory_used_bytes=int(9.5 * GIB), memory_total_bytes=80 * GIB)
    assert "9.5G/80.0G" in row_of(lines_of(story), "0001beef:8")
    story.replace_slices(memory_used_bytes=141 * GIB)
    assert " 141G" in row_of(lines_of(story, width=80), "0001beef:8")


def test_activity_is_shown_as_far_as_there_is_room() -> None:
    story = measuring()
    story.replace_slices(activity=Activity(sm_percent=47.4, tensor_percent=12.6, dram_percent=100.0))
    for width, ends in ((80, " 512M  47"), (100, " 512M/9.5G  47"), (110, " 512M/9.5G  47   13  100")):
        assert row_of(lines_of(story, width=width), "0001beef:8").endswith(ends)
    wide = lines_of(story, {1: "all is well"}, width=160)
    assert " 512M/9.5G  47   13  100 0-2    all is well" in row_of(wide, "0001beef:8")
    assert any("SM% TENS DRAM CPUS" in line for line in wide)


def test_activity_that_is_not_there_yet_is_not_the_same_as_none_for_ever() -> None:
    story = measuring()
    assert row_of(lines_of(story, width=110), "0001beef:8").endswith("  -    -    -")
    places = tuple(place.uuid for place in story.inventory.slices)
    story.miss(Unavailable(places, (Reading.ACTIVITY,), "it is too old"))
    lines = lines_of(story, width=110)
    assert row_of(lines, "0001beef:8").endswith(" n/a")
    assert lines[-1] == " n/a: SM, tensor, DRAM: it is too old"
    assert not any("TENS" in line for line in lines)


def test_counters_of_some_slices_only_are_shown_and_the_others_explained() -> None:
    story = measuring()
    story.replace_slices(activity=Activity(sm_percent=47.4, dram_percent=3.0))
    places = tuple(place.uuid for place in story.inventory.slices)
    story.miss(
        Unavailable(places, (Reading.TENSOR, Reading.PCIE_TX), "there is none"),
        Unavailable(places[:2], (Reading.DRAM,), "nobody knows"),
        Unavailable((story.inventory.gpus[0].uuid,), (Reading.POWER,), "the simulator measures none"),
        Unavailable(places, (Reading.PCIE_RX,), "it is nowhere shown"),
        shared=(Shared(places[:2], (Reading.ACTIVITY,), f"GPU instance 2 of GPU {story.inventory.gpus[0].uuid}"),),
    )
    lines = lines_of(story, width=110)
    assert row_of(lines, "0001beef:8").endswith("  47  n/a    3")
    assert lines[-3:] == [
        " n/a: tensor: there is none",
        " n/a: DRAM on 2 of 7 slices: nobody knows",
        " 0000beef, 0001beef share GPU instance 2 of GPU 00c0ffee: what is shown of activity is that of all of it",
    ]
    assert lines_of(story, width=110, height=23)[-1] == " n/a: tensor: there is none"
    assert "beef:" in lines_of(story, width=110, height=13)[-1]  # slices come first


def test_many_slices_that_share_a_gpu_are_counted() -> None:
    story = measuring()
    uuids = tuple(place.uuid for place in story.inventory.slices)
    story.miss(shared=(Shared(uuids, (Reading.MEMORY, Reading.ACTIVITY), f"GPU {story.inventory.gpus[0].uuid}"),))
    assert lines_of(story, width=110)[-1] == (
        " 7 slices share GPU 00c0ffee: what is shown of memory and activity is that of all of it"
    )


def test_readings_that_a_real_gpu_lacks_are_explained() -> None:
    story = measuring()
    uuid = story.inventory.gpus[0].uuid
    story.run.view = msgspec.structs.replace(story.run.view, inventory=make_inventory(simulated=False))
    story.miss(Unavailable((uuid,), (Reading.POWER, Reading.ENERGY), "ask \x1b[31mroot"))
    assert lines_of(story)[-1] == " n/a: power: ask root"


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x1 | 0x2, ""),
        (0x20, "throttled: thermal"),
        (0x8 | 0x40 | 0x80, "throttled: hardware slowdown, thermal (hardware), power brake"),
    ],
)
def test_throttle_reasons_are_words(bits: int, words: str) -> None:
    story = measuring()
    sample = GpuSample(story.inventory.gpus[0].uuid, 300.0, 1.0, 60.0, 1400, 1500, bits)
    story.sample(gpus=(sample,))
    line = row_of(lines_of(story, width=140), "GPU")
    assert (
        line == f"GPU 00c0ffee A100-SXM4-80GB  300 W  60 C  {words + '  ' if words else ''}SM 1400 MHz  memory 1500 MHz"
    )


def test_an_old_sample_shows_its_age_on_the_narrowest_terminal() -> None:
    story = measuring()
    story.sample(gpus=(GpuSample(story.inventory.gpus[0].uuid, 300.0, 1.0, 60.0, 1400, 1500, 0x4),))
    story.wait(12.0)
    assert "read 12.0 s ago" in row_of(lines_of(story, width=80), "GPU")


def test_a_clock_that_is_missing_is_named() -> None:
    story = measuring()
    story.sample(gpus=(GpuSample(story.inventory.gpus[0].uuid, 300.0, 1.0, 60.0, None, 1500, None),))
    line = row_of(lines_of(story, width=140), "GPU")
    assert line.endswith("memory 1500 MHz  n/a (simulated): SM clock, throttle reasons")


def test_unused_slices_take_one_line() -> None:
    story = measuring()
    view = story.run.view
    story.run.view = msgspec.structs.replace(view, workers=view.workers[:2])
    lines = lines_of(story, {0: "first", 1: "second"}, width=100)
    first = next(number for number, line in enumerate(lines) if "0000beef" in line)
    assert [line.split()[-1] for line in lines[first : first + 5 : 2]] == ["-", "-", "-"]
    assert [line.split()[-1] for line in lines[first + 1 : first + 4 : 2]] == ["first", "second"]
    assert "0003beef" in lines[first + 5]
