from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import pytest

from heteromig.core.errors import PreflightError, UsageError
from heteromig.slices import nvml
from heteromig.slices.mig import calls
from heteromig.slices.mig.journal import Progress
from heteromig.slices.mig.partition import partition_text
from heteromig.slices.nvml import NVMLError
from tests.slices.conftest import Spawn
from tests.slices.mig.bench import Bench, failing, tampered
from tests.slices.waiting import until

FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
MIXED = "1g.6gb@0,1g.6gb@1,2g.12gb@2"


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(PreflightError) as refusal:
        call()
    return str(refusal.value)


def raising(error: int) -> Callable[..., NoReturn]:
    def call(*_: object, **__: object) -> NoReturn:
        raise NVMLError(error)

    return call


def no_journal(bench: Bench) -> bool:
    return bench.file.read() is None


# There and back


def test_a_layout_is_applied_and_taken_back(a30: Bench) -> None:
    before = a30.uuids
    outcome = a30.change().apply(a30.uuid, "2g.12gb@2,2x1g.6gb")
    after = a30.uuids
    assert outcome.changed
    assert partition_text(outcome.cut) == a30.cut == MIXED
    assert {f"{one.profile}@{one.start}": (one.before, one.after) for one in outcome.replaced} == {
        "1g.6gb@0": (before["1g.6gb@0"], before["1g.6gb@0"]),
        "1g.6gb@1": (before["1g.6gb@1"], before["1g.6gb@1"]),
        "1g.6gb@2": (before["1g.6gb@2"], None),
        "1g.6gb@3": (before["1g.6gb@3"], None),
        "2g.12gb@2": (None, after["2g.12gb@2"]),
    }
    assert a30.journal.progress is Progress.APPLIED
    assert (partition_text(a30.journal.before), [*map(partition_text, a30.journal.asked)]) == (FOUR, [MIXED])
    assert a30.journal.gpu_uuid == a30.uuid
    assert a30.journal.devices_after is not None
    assert [device.uuid for device in a30.journal.devices_after] == list(after.values())

    restored = a30.change().restore()
    assert restored is not None
    assert restored.changed
    assert partition_text(restored.cut) == a30.cut == FOUR
    assert {f"{one.profile}@{one.start}": one.before for one in restored.replaced} == before
    assert {f"{one.profile}@{one.start}": one.after for one in restored.replaced} == a30.uuids
    assert set(a30.uuids.values()) & set(before.values()) == {before["1g.6gb@0"], before["1g.6gb@1"]}
    assert not a30.journal.is_open
    assert a30.change().restore() is None


def test_a_gpu_that_is_cut_so_already_is_not_touched(a30: Bench) -> None:
    before = a30.uuids
    outcome = a30.change().apply(a30.uuid, "4x1g.6gb")
    assert not outcome.changed
    assert [(one.before, one.after) for one in outcome.replaced] == [(uuid, uuid) for uuid in before.values()]
    assert a30.uuids == before
    assert no_journal(a30)
    assert a30.change().restore() is None


def test_the_way_back_from_several_layouts_leads_to_the_first_cut(a30: Bench) -> None:
    for layout in ("2x2g.12gb", "4g.24gb", "2x2g.12gb", "2x2g.12gb", "2g.12gb@0,1g.6gb@3"):
        a30.change().apply(a30.uuid, layout)
    assert a30.cut == "2g.12gb@0,1g.6gb@3"
    assert [*map(partition_text, a30.journal.asked)] == ["4g.24gb@0", "2g.12gb@0,2g.12gb@2", "2g.12gb@0,1g.6gb@3"]
    a30.change().restore()
    assert a30.cut == FOUR
    a30.change().apply(a30.uuid, "4g.24gb")
    assert [*map(partition_text, a30.journal.asked)] == ["4g.24gb@0"]


def test_parts_of_instances_come_back_where_they_were(h100: Bench) -> None:
    h100.clear()
    h100.make("3g.40gb", 4, (1, 2), (0, 1))
    h100.make("2g.20gb", 0)
    h100.make("1g.10gb", 2, (0, 1))
    cut = "2g.20gb@0(no compute instance),1g.10gb@2,3g.40gb@4(1c+2c)"
    assert h100.cut == cut
    h100.change().apply(h100.uuid, "7x1g.10gb")
    assert h100.look.cut != h100.journal.before
    h100.change().restore()
    assert h100.cut == cut
    assert h100.look.cut == h100.journal.before


def test_an_empty_gpu_is_emptied_again(a30: Bench) -> None:
    a30.clear()
    a30.change().apply(a30.uuid, "2x2g.12gb")
    restored = a30.change().restore()
    assert restored is not None
    assert (a30.cut, [one.after for one in restored.replaced]) == ("nothing", [])


def test_a_driver_that_places_parts_by_itself_is_let(h100: Bench) -> None:
    h100.clear()
    h100.make("3g.40gb", 4, (0, 1), (1, 2))
    h100.change().apply(h100.uuid, "7g.80gb")
    missing = raising(calls.ERROR_FUNCTION_NOT_FOUND)
    h100.change(tampered(h100.library, nvmlGpuInstanceCreateComputeInstanceWithPlacement=missing)).restore()
    assert h100.cut == "3g.40gb@4(1c+2c)"


def test_a_driver_that_tells_no_names_is_asked_by_ids(a30: Bench) -> None:
    library = a30.library
    real = library.nvmlDeviceGetGpuInstanceProfileInfo

    def old(device: Any, profile: int, version: int = 2) -> Any:
        if version == 2:
            raise NVMLError(calls.ERROR_FUNCTION_NOT_FOUND)
        info = real(device, profile, version)
        del info.name
        return info

    a30.change(tampered(library, nvmlDeviceGetGpuInstanceProfileInfo=old)).apply(a30.uuid, "2x5")
    assert a30.cut == "2g.12gb@0,2g.12gb@2"
    a30.change().restore()
    assert a30.cut == FOUR


# What NVML refuses

REMEDIES = {
    calls.ERROR_IN_USE: "stop what runs there",
    calls.ERROR_INSUFFICIENT_RESOURCES: "ask for less",
    nvml.ERROR_NO_PERMISSION: "run it as root",
    nvml.ERROR_NOT_SUPPORTED: "MIG must be on",
    nvml.ERROR_GPU_IS_LOST: "fell off the bus",
    nvml.ERROR_TIMEOUT: "see nvidia-smi and the kernel's log",
}

STEPS = [
    ("nvmlComputeInstanceDestroy", 1),
    ("nvmlComputeInstanceDestroy", 2),
    ("nvmlGpuInstanceDestroy", 1),
    ("nvmlGpuInstanceDestroy", 2),
    ("nvmlDeviceCreateGpuInstanceWithPlacement", 2),
    ("nvmlGpuInstanceCreateComputeInstance", 1),
]
"""Every call that takes four slices to a 2g.12gb in the place of two of them, and which of its uses: with the first
creation it is only asked whether there may be one."""


@pytest.mark.parametrize(("name", "number"), STEPS)
@pytest.mark.parametrize("error", REMEDIES)
def test_a_step_that_is_refused_leaves_the_gpu_as_it_was(a30: Bench, name: str, number: int, error: int) -> None:
    before = a30.uuids
    change = a30.change(failing(a30.library, name, error, number=number))
    sentence = refused(lambda: change.apply(a30.uuid, "2g.12gb@2,2x1g.6gb"))
    assert REMEDIES[error] in sentence
    assert "The GPU is cut as it was before." in sentence
    assert ("with new UUIDs" in sentence) == (a30.uuids != before)
    assert (a30.uuids != before) == ((name, number) != STEPS[0])
    assert a30.cut == FOUR
    assert not a30.journal.is_open


@pytest.mark.parametrize(("name", "number"), STEPS)
def test_a_gpu_that_cannot_be_cut_back_at_once_is_cut_back_later(a30: Bench, name: str, number: int) -> None:
    create = "nvmlDeviceCreateGpuInstanceWithPlacement"
    broken = failing(
        failing(a30.library, name, calls.ERROR_IN_USE, number=number, times=99), create, nvml.ERROR_TIMEOUT, times=99
    )
    sentence = refused(lambda: a30.change(broken).apply(a30.uuid, "2g.12gb@2,2x1g.6gb"))
    is_back = a30.cut == FOUR
    assert is_back == (name == "nvmlComputeInstanceDestroy" or (name, number) == ("nvmlGpuInstanceDestroy", 1))
    assert (f"heteromig mig restore goes on from {a30.file.path}" in sentence) == (not is_back)
    assert ("The GPU is cut as it was before." in sentence) == is_back
    assert a30.journal.is_open == (not is_back)
    a30.change().restore()
    assert a30.cut == FOUR
    assert not a30.journal.is_open


def test_a_second_layout_that_fails_leaves_the_first_and_its_way_back(a30: Bench) -> None:
    a30.change().apply(a30.uuid, "2x2g.12gb")
    first = a30.journal
    library = failing(a30.library, "nvmlGpuInstanceCreateComputeInstance", calls.ERROR_IN_USE)
    assert "The GPU is cut as it was before." in refused(lambda: a30.change(library).apply(a30.uuid, "4g.24gb"))
    assert a30.cut == "2g.12gb@0,2g.12gb@2"
    assert (a30.journal.progress, a30.journal.asked) == (Progress.APPLIED, first.asked)
    assert a30.journal.devices_after == a30.look.devices
    a30.change().restore()
    assert a30.cut == FOUR


@pytest.mark.parametrize(
    "name",
    [
        "nvmlDeviceGetGpuInstancePossiblePlacements",
        "nvmlDeviceGetGpuInstances",
        "nvmlGpuInstanceGetInfo",
        "nvmlGpuInstanceGetComputeInstances",
        "nvmlComputeInstanceGetInfo",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
    ],
)
def test_a_user_without_privileges_changes_nothing(a30: Bench, name: str) -> None:
    before = a30.uuids
    library = tampered(a30.library, **{name: raising(nvml.ERROR_NO_PERMISSION)})
    assert "run it as root" in refused(lambda: a30.change(library).apply(a30.uuid, "4g.24gb"))
    assert a30.uuids == before
    assert no_journal(a30)


def test_a_library_that_cannot_place_instances_changes_nothing(a30: Bench) -> None:
    before = a30.uuids
    missing = raising(calls.ERROR_FUNCTION_NOT_FOUND)
    library = tampered(a30.library, nvmlDeviceCreateGpuInstanceWithPlacement=missing)
    assert "install a newer one" in refused(lambda: a30.change(library).apply(a30.uuid, "4g.24gb"))
    assert a30.uuids == before
    assert no_journal(a30)


def test_a_gpu_that_is_not_cut_as_it_was_told_is_cut_back(a30: Bench) -> None:
    library = a30.library
    lying = tampered(library, nvmlGpuInstanceCreateComputeInstance=lambda *_: None)
    sentence = refused(lambda: a30.change(lying).apply(a30.uuid, "2g.12gb@2,2x1g.6gb"))
    assert "it is now without 2g.12gb@2 and with 2g.12gb@2(no compute instance)" in sentence
    assert "could not be cut back either" in sentence  # because the library lies on the way back as well
    assert a30.journal.is_open
    a30.change().restore()
    assert a30.cut == FOUR


def test_an_interrupt_takes_back_what_was_done(a30: Bench) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    library = a30.library
    count = 0
    real = library.nvmlGpuInstanceDestroy

    def once(handle: Any) -> Any:
        nonlocal count
        count += 1
        return real(handle) if count != 2 else interrupt()

    with pytest.raises(KeyboardInterrupt):
        a30.change(tampered(library, nvmlGpuInstanceDestroy=once)).apply(a30.uuid, "4g.24gb")
    assert a30.cut == FOUR
    assert not a30.journal.is_open


# What must be so before anything is done


def test_a_gpu_that_somebody_uses_is_not_cut(a30: Bench, spawn: Spawn) -> None:
    before = a30.uuids
    child = spawn(visible=before["1g.6gb@3"])

    def sentence() -> str:
        return refused(lambda: a30.change().apply(a30.uuid, "2g.12gb@0,2x1g.6gb"))

    until(lambda: f"is in use by pid {child.pid} (sleep 600)" in sentence(), "it is seen")
    assert a30.uuids == before
    assert no_journal(a30)
    child.kill()
    child.wait()
    a30.change().apply(a30.uuid, "2x2g.12gb")
    child = spawn(visible=a30.uuids["2g.12gb@2"])
    until(lambda: f"pid {child.pid}" in refused(a30.change().restore), "it is seen")
    assert a30.cut == "2g.12gb@0,2g.12gb@2"
    assert a30.journal.progress is Progress.APPLIED


def test_a_process_that_comes_in_between_keeps_its_slice(a30: Bench, spawn: Spawn) -> None:
    before = a30.uuids
    child = spawn(visible=before["1g.6gb@2"])
    until(lambda: "in use" in refused(lambda: a30.change().apply(a30.uuid, "4g.24gb")), "it is seen")
    late = tampered(a30.library, nvmlDeviceGetComputeRunningProcesses=lambda _: [])
    sentence = refused(lambda: a30.change(late).apply(a30.uuid, "4g.24gb"))
    assert "cannot destroy a compute instance of 1g.6gb@2" in sentence
    assert "stop what runs there" in sentence
    assert child.poll() is None
    assert a30.cut == FOUR
    assert a30.uuids["1g.6gb@2"] == before["1g.6gb@2"]


def test_a_gpu_of_which_nobody_can_say_who_uses_it_is_not_cut(a30: Bench, spawn: Spawn) -> None:
    blind = tampered(a30.library, nvmlDeviceGetComputeRunningProcesses=raising(nvml.ERROR_NO_PERMISSION))
    assert "may be in use is not cut" in refused(lambda: a30.change(blind).apply(a30.uuid, "4g.24gb"))
    library = a30.library
    real = library.nvmlDeviceGetComputeRunningProcesses
    library.nvmlInit()
    gpu = library.nvmlDeviceGetHandleByIndex(0)

    def devices_only(handle: Any) -> Any:
        if handle.uuid == gpu.uuid:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        return real(handle)

    change = a30.change(tampered(library, nvmlDeviceGetComputeRunningProcesses=devices_only))
    child = spawn(visible=a30.uuids["1g.6gb@0"])
    until(lambda: f"pid {child.pid}" in refused(lambda: a30.change().apply(a30.uuid, "4g.24gb")), "it is seen")
    assert f"is in use by pid {child.pid}" in refused(lambda: change.apply(a30.uuid, "4g.24gb"))
    child.kill()
    child.wait()
    change.apply(a30.uuid, "4g.24gb")
    assert a30.cut == "4g.24gb@0"


def test_a_gpu_without_mig_is_not_cut(a30: Bench) -> None:
    library = tampered(a30.library, nvmlDeviceGetMigMode=raising(nvml.ERROR_NOT_SUPPORTED))
    assert "No GPU of this machine has MIG" not in refused(lambda: a30.change(library).apply(a30.uuid, "4g.24gb"))
    assert a30.cut == FOUR
    assert no_journal(a30)


@pytest.mark.parametrize("layout", ["5x1g.6gb", "1g.10gb", "", "none.yaml:x"])
def test_a_layout_that_cannot_be_changes_nothing(a30: Bench, layout: str) -> None:
    before = a30.uuids
    with pytest.raises(UsageError):
        a30.change().apply(a30.uuid, layout)
    assert a30.uuids == before
    assert no_journal(a30)


def test_a_journal_that_cannot_be_written_changes_nothing(a30: Bench) -> None:
    before = a30.uuids
    (a30.runs_dir / "journal.json").mkdir()
    for call in (lambda: a30.change().apply(a30.uuid, "4g.24gb"), a30.change().restore):
        assert "cannot be read: Is a directory" in refused(call)
    (a30.runs_dir / "journal.json").rmdir()
    (a30.runs_dir / ".journal.json.new").mkdir()
    assert "cannot be written" in refused(lambda: a30.change().apply(a30.uuid, "4g.24gb"))
    assert a30.uuids == before


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda text: text[:-20], "it was altered"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2'), "another version of heteromig"),
        (lambda text: text.replace('"progress": "applied"', '"progress": "done"'), "it was altered"),
        (lambda text: text.replace('"gpu_name"', '"gpu_nickname"'), "it was altered"),
    ],
)
def test_a_journal_that_is_none_is_not_believed(a30: Bench, alter: Callable[[str], str], says: str) -> None:
    a30.change().apply(a30.uuid, "4g.24gb")
    text = a30.file.path.read_text()
    assert alter(text) != text
    a30.file.path.write_text(alter(text))
    assert says in refused(a30.change().restore)
    assert says in refused(lambda: a30.change().apply(a30.uuid, "2x2g.12gb"))
    assert a30.cut == "4g.24gb@0"
    a30.file.path.write_text(text)
    a30.change().restore()
    assert a30.cut == FOUR


def test_what_was_done_is_taken_back_though_its_journal_is_gone(a30: Bench) -> None:
    for spoil in (a30.file.path.unlink, lambda: a30.file.path.write_text("{")):
        change = a30.change()
        change.apply(a30.uuid, "4g.24gb")
        spoil()
        change.restore()
        assert a30.cut == FOUR
        assert a30.journal.progress is Progress.RESTORED


def test_a_journal_that_cannot_be_written_any_more_does_not_keep_a_gpu_cut(a30: Bench) -> None:
    change = a30.change()
    change.apply(a30.uuid, "4g.24gb")
    fresh = a30.runs_dir / ".journal.json.new"
    fresh.mkdir()
    assert "The GPU is cut as it was before, but that could not be written down" in refused(change.restore)
    assert a30.cut == FOUR
    fresh.rmdir()
    assert a30.journal_is_open
    a30.change().restore()
    assert not a30.journal_is_open


def test_what_somebody_left_who_was_killed_at_his_first_word_is_removed(a30: Bench) -> None:
    fresh = a30.runs_dir / ".journal.json.new"
    fresh.write_text("{")
    assert a30.change().restore() is None
    assert not fresh.exists()


def test_a_journal_of_another_gpu_is_not_overwritten(a30: Bench) -> None:
    a30.change().apply(a30.uuid, "4g.24gb")
    a30.file.write(msgspec.structs.replace(a30.journal, gpu_uuid="SIM-GPU-elsewhere"))
    assert "is of another GPU" in refused(lambda: a30.change().apply(a30.uuid, "2x2g.12gb"))
    assert "SIM-GPU-elsewhere), cannot be cut back" in refused(a30.change().restore)
    assert a30.cut == "4g.24gb@0"


def test_what_somebody_else_has_cut_since_is_left_to_them(a30: Bench) -> None:
    a30.change().apply(a30.uuid, "2x2g.12gb")
    a30.clear()
    a30.make("4g.24gb", 0, (0, 4))
    for call in (lambda: a30.change().apply(a30.uuid, "4x1g.6gb"), a30.change().restore):
        sentence = refused(call)
        assert (
            f"it is 4g.24gb@0 now, was {FOUR} before heteromig, and was then cut into 2g.12gb@0,2g.12gb@2" in sentence
        )
    assert a30.cut == "4g.24gb@0"
    assert a30.change().forget()
    assert not a30.change().forget()
    assert a30.change().restore() is None
    a30.change().apply(a30.uuid, "2x2g.12gb")
    a30.change().restore()
    assert a30.cut == "4g.24gb@0"


def test_after_a_reboot_which_no_instance_survives_it_is_cut_back_all_the_same(a30: Bench) -> None:
    a30.change().apply(a30.uuid, "2x2g.12gb")
    a30.clear()
    a30.change().restore()
    assert a30.cut == FOUR


# The MIG mode


@pytest.fixture
def off(h100: Bench) -> Bench:
    """An H100 with MIG off."""
    h100.clear()
    h100.set_mode(0)
    assert h100.mode == (False, False)
    return h100


def test_mig_is_turned_on_only_where_that_was_said_and_then_off_again(off: Bench) -> None:
    assert "--enable-mig-mode" in refused(lambda: off.change().apply(off.uuid, "7x1g.10gb"))
    assert (off.mode, no_journal(off)) == ((False, False), True)
    outcome = off.change(enable_mig_mode=True).apply(off.uuid, "3g.40gb@4,3g.40gb@0")
    assert outcome.gpu.mig_current
    assert (off.cut, off.mode) == ("3g.40gb@0,3g.40gb@4", (True, True))
    restored = off.change().restore()
    assert restored is not None
    assert restored.gpu.mig_current is False
    assert (off.cut, off.mode) == ("nothing", (False, False))
    assert off.change().restore() is None


def test_mig_is_not_turned_on_where_that_takes_a_reset(a30: Bench, h100: Bench) -> None:
    a30.clear()
    library = a30.library
    modes = [0, 0]
    off = tampered(library, nvmlDeviceGetMigMode=lambda _: modes)
    change = a30.change(off, enable_mig_mode=True)
    assert "takes a reset of the GPU, which heteromig never does" in refused(lambda: change.apply(a30.uuid, "4g.24gb"))
    assert a30.mode == (True, True)
    unknown = tampered(h100.library, nvmlDeviceGetFieldValues=raising(nvml.ERROR_NOT_SUPPORTED))
    h100.clear()
    h100.set_mode(0)
    change = h100.change(unknown, enable_mig_mode=True)
    assert "takes a reset" in refused(lambda: change.apply(h100.uuid, "7g.80gb"))
    assert h100.mode == (False, False)


def test_a_mode_that_waits_for_a_reset_is_said(a30: Bench) -> None:
    a30.clear()
    a30.set_mode(0)
    sentence = refused(lambda: a30.change(enable_mig_mode=True).apply(a30.uuid, "4g.24gb"))
    assert "is on and will be off after a reset" in sentence
    assert no_journal(a30)


@pytest.mark.parametrize("status", [calls.ERROR_IN_USE, calls.ERROR_RESET_REQUIRED])
def test_a_mode_that_does_not_come_into_force_is_taken_back(off: Bench, status: int) -> None:
    library = off.library
    real = library.nvmlDeviceSetMigMode
    modes: list[list[int]] = []

    def pending(device: Any, mode: int) -> int:
        modes.append([mode])
        if mode:
            return status
        return real(device, mode)

    def get(_: Any) -> list[int]:
        return [0, 1] if modes and modes[-1] == [1] else [0, 0]

    change = off.change(tampered(library, nvmlDeviceSetMigMode=pending, nvmlDeviceGetMigMode=get), enable_mig_mode=True)
    sentence = refused(lambda: change.apply(off.uuid, "7g.80gb"))
    assert "cannot turn MIG on" in sentence
    assert "The GPU is cut as it was before." in sentence
    assert modes == [[1], [0]]
    assert off.mode == (False, False)


def test_a_mode_that_somebody_turned_off_since_is_turned_on_only_where_that_is_said(h100: Bench) -> None:
    h100.change().apply(h100.uuid, "7g.80gb")
    h100.clear()
    h100.set_mode(0)
    assert "--enable-mig-mode" in refused(h100.change().restore)
    h100.change(enable_mig_mode=True).restore()
    assert h100.mode == (True, True)
    assert h100.cut == ",".join(f"1g.10gb@{start}" for start in range(7))
