"""Whole runs on shares of a GPU under a daemon of their own: how they end, and that nothing of it is left."""

from __future__ import annotations

from heteromig.runner.verification import verify_run
from tests.mps.conftest import Run, nothing_left
from tests.nvml_library.state import State

LONG = ("--main-benchmark-duration", "60s")


def test_a_run_on_shares_is_valid(run: Run, machine: State) -> None:
    command = run(slices="mps:3x14,8gib", backgrounds="all")
    record = command.expect(0)
    nothing_left(command)
    gpu = machine.gpu_uuid()
    assert record.isolation == "soft"
    assert [(one.uuid, one.kind, one.profile) for one in record.slices] == [
        (f"MPS-{gpu}/{number}", "mps", "mps-14") for number in range(3)
    ]
    for worker in record.workers:
        assert worker.env["CUDA_VISIBLE_DEVICES"] == gpu
        assert worker.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "14"
        assert worker.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M"
        said = (command.run_dir / worker.directory / "stdout.log").read_text()
        assert f"under MPS, 14 % of {gpu}\n" in said
    out = command.finish().stdout
    assert "ISOLATION: soft." in out
    verified = verify_run(command.run_dir)
    assert verified.verdict.exit_code == 0
    assert verified.isolation.value == "soft"
