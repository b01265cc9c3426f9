"""A GPU that fell off the bus keeps nobody from cutting the others, nor from cutting them back."""

from __future__ import annotations

import json
import signal

import pytest

from heteromig.core.phases import Phase
from tests.nvml_library.fixtures import MakeState
from tests.nvml_library.layout_runs import CUT, FOUR, LAYOUT, LONG, Run, Say, programs, run, say
from tests.nvml_library.state import State

__all__ = ["programs", "run", "say"]


@pytest.fixture
def machine(make_state: MakeState) -> State:
    return make_state("a30/4x1g.6gb", "a30/4x1g.6gb")


def cut_of_second(machine: State) -> list[tuple[str, int, int]]:
    return sorted((profile, start, computes) for profile, _, start, computes in machine.geometry(1))


def test_the_other_gpu_is_shown_cut_and_cut_back(machine: State, say: Say) -> None:
    machine.lose()
    shown = say("mig", "show", "--json")
    assert shown.exit_code == 0
    told = json.loads(shown.stdout)
    assert [one["index"] for one in told["gpus"]] == [1]
    assert [one["index"] for one in told["unusable"]] == [0]
    assert "GPU 0  not usable: NVML cannot read GPU 0" in say("mig", "show").stdout
    assert say("mig", "apply", LAYOUT, "--gpu", "1", "--journal", "here.json").exit_code == 0
    assert cut_of_second(machine) == CUT
    assert say("mig", "restore", "here.json").exit_code == 0
    assert cut_of_second(machine) == FOUR


def test_which_is_wanted_is_not_guessed(machine: State, say: Say) -> None:
    lost, other = machine.gpu_uuid(0), machine.gpu_uuid(1)
    machine.lose()
    unnamed = say("mig", "apply", LAYOUT, "--journal", "here.json")
    assert (unnamed.exit_code, cut_of_second(machine)) == (7, FOUR)
    assert f"name it with --gpu, of 1 (NVIDIA A30, {other})" in unnamed.stderr
    for named in ("0", lost):
        refused = say("mig", "plan", LAYOUT, "--gpu", named)
        assert refused.exit_code == 7
        assert "NVML cannot read GPU 0" in refused.stderr
    assert say("mig", "plan", LAYOUT, "--gpu", "7").exit_code == 2


def test_a_run_goes_on_and_cuts_its_gpu_back(machine: State, run: Run) -> None:
    command = run("--gpu", "1", *LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    assert cut_of_second(machine) == CUT
    machine.lose()
    command.send(signal.SIGTERM)
    command.expect(143)
    assert cut_of_second(machine) == FOUR
