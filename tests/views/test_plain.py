from __future__ import annotations

from pathlib import Path

import msgspec

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.devices import Inventory
from heteromig.core.guards import Finding, Status
from heteromig.core.spec import Preparation, RunSpec
from heteromig.views.outlet import Outlet
from heteromig.views.plain import PlainLines
from heteromig.views.reporter import tell
from tests.views.stories import Story, make_inventory, make_spec

NAMES_BY_SLICE = ("3d-unet", "bert", "ssd-mobilenet", "ssd-resnet34", "rnnt", "dlrm")


class Reported(Story):
    """A run whose transitions and rejections are reported as the loop does."""

    def __init__(self, log: Path, spec: RunSpec | None = None, inventory: Inventory | None = None) -> None:
        super().__init__(spec, inventory)
        self._log = log
        self._stream = log.open("w", encoding="utf-8")
        self.reporter = PlainLines(Outlet(self._stream))
        self.reporter.begin("runs/20260401T120000Z-resnet50", self.now_ns)

    def tell(self, event: ev.AnyEvent) -> None:
        before = self.run.view
        super().tell(event)
        tell(self.reporter, self.run, before, self.now_ns, self.effects)
        if any(isinstance(effect, ef.SetTick) for effect in self.effects):
            self.reporter.tick(self.run, self.now_ns, {0: "never shown"})

    def lines(self) -> list[str]:
        self.reporter.end(self.now_ns)
        self._stream.close()
        return self._log.read_text(encoding="utf-8").splitlines()


def test_a_good_run_in_plain_lines(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log")
    assert not story.reporter.wants_ticks
    story.discover().build(engines=1, of=1).start().buffer().measure(10.0).finish_main().drain().judge()
    waiting = ", ".join(f"background {index} ({name})" for index, name in enumerate(NAMES_BY_SLICE[1:], start=2))
    started = "all backgrounds timed (all 6 are timed); backgrounds on their slices (each is seen on its own slice)"
    settled = "buffer elapsed (elapsed); backgrounds still timed (all are timed); "
    settled += "geometry unchanged (a1b2c3d4 then, a1b2c3d4 now)"
    drained = "all reaped (every worker was reaped); slices empty (every slice is empty)"
    assert story.lines() == [
        "[   0.0 s] run directory runs/20260401T120000Z-resnet50",
        "[   0.3 s] discovering: no device sample yet",
        "[   0.4 s] discovering -> building: slices locked (locked); slices idle (every slice is empty)",
        "[   0.4 s] engine 1 of 1: resnet50 offline 99 for 1g.10gb",
        "[   2.4 s] building -> background-starting: every engine present (all engines are there)",
        f"[   3.9 s] background-starting: waiting for {', '.join(NAMES_BY_SLICE)}",
        f"[   4.0 s] background-starting -> buffering: {started}",
        f"[   7.0 s] buffering -> main-running: {settled}",
        "[  18.6 s] main-running -> draining: main exited (main was reaped)",
        f"[  18.7 s] draining: waiting for {waiting}",
        f"[  19.3 s] draining -> validating: {drained}",
        "[  19.3 s] validating -> finished: valid, exit 0",
    ]


def test_a_failure_is_told_with_its_reason_once(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log")
    story.discover().build(engines=0, of=0).start().buffer().measure(4.0)
    story.tell(ev.WorkerExited(story.now_ns, 3, None, 11))
    story.tell(ev.WorkerExited(story.now_ns, 0, 0, None, "clean stop"))
    story.drain().judge()
    lines = story.lines()
    died = "Background 3 (ssd-mobilenet) died of SIGSEGV during main-running; see workers/3-background-"
    assert any(f"main-running -> draining: {died}" in line for line in lines)
    assert lines[-1].split("] ")[1].startswith(f"validating -> finished: failed, exit 5: {died}")
    assert sum(died in line for line in lines) == 2


def test_what_a_lenient_run_went_on_without_is_noted(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log", make_spec(lenient=True))
    story.discover().build(engines=0, of=0).start().buffer().measure(4.0)
    story.tell(ev.WorkerExited(story.now_ns, 3, 1, None))
    story.finish_main().drain().judge()
    lines = story.lines()
    noted = [line for line in lines if "] noted: " in line]
    assert len(noted) == 1
    assert "Background 3 (ssd-mobilenet) exited with status 1" in noted[0]
    assert "finished: lenient, exit 0: Background 3" in lines[-1]


def test_waiting_lines_are_sparing_and_short(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log", inventory=make_inventory(slices=56))
    story.discover().build(engines=0, of=0).start(timed=50)
    waiting = [line for line in story.lines() if "waiting for" in line]
    assert len(waiting) == 1
    assert len(waiting[0]) < 200
    assert waiting[0].endswith("…")


def test_what_could_not_be_observed_is_said(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log")
    story.discover().build(engines=0, of=0).start()
    story.tell(ev.SamplerLost(story.now_ns, restarted=False, message="it does not answer."))
    story.wait(3.0)
    story.tell(ev.DeadlinePassed(story.now_ns, ev.Timer.BUFFER, story.run.entry))
    lines = story.lines()
    assert "noted: The devices could not be observed from buffering on: it does not answer." in lines[-2]
    assert "geometry unchanged (not observable: the sampler was lost)" in lines[-1]


def test_evidence_cannot_carry_escapes(tmp_path: Path) -> None:
    story = Reported(tmp_path / "log")
    finding = Finding("slices_idle", Status.VIOLATED, passed=False, evidence="busy: pid 1 (\x1b[31mevil\n)")
    story.reporter.rejection(story.run, finding, story.now_ns)
    assert story.lines()[-1] == "[   0.0 s] discovering: busy: pid 1 (evil )"


def test_what_is_done_to_the_gpu_is_told_as_it_comes(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(make_spec(), preparation=Preparation.LAYOUT, layout="7x1g.10gb")
    story = Reported(tmp_path / "log", spec)
    story.tell(ev.RunStarted(story.now_ns, 0, 1))
    story.wait(2.0)
    story.tell(ev.DevicesPrepared(story.now_ns, "GPU-0", "It was cut for this run: 7x1g.10gb."))
    story.tell(ev.SignalReceived(story.now_ns, 2))
    story.tell(ev.DeadlinePassed(story.now_ns, ev.Timer.RECHECK, story.run.entry))
    story.wait(1.0)
    story.tell(ev.DevicesRestored(story.now_ns, "It is cut as before the run: 4x1g.6gb."))
    assert story.lines()[1:] == [
        "[   0.0 s] discovering: cutting the GPU into 7x1g.10gb",
        "[   2.0 s] discovering: It was cut for this run: 7x1g.10gb.",
        "[   2.0 s] discovering -> draining: SIGINT was received during discovering.",
        "[   2.0 s] draining: cutting the GPU back",
        "[   3.0 s] draining -> validating: restore answered (It is cut as before the run: 4x1g.6gb.)",
    ]
