from __future__ import annotations

from heteromig.doctor.findings import ExaminedGpu, Finding, Latency, ok, problem, report_of, unknown, warning
from heteromig.views.doctor_view import examination

REFUSAL = "MIG is off on NVIDIA A30 (GPU-0): turn it on and cut the GPU into slices (sudo nvidia-smi -mig 1)."


def shown(gpus: int, *findings: Finding, width: int = 60, simulated: bool = False) -> str:
    examined = tuple(ExaminedGpu(index, f"GPU-{index}", "NVIDIA A30") for index in range(gpus))
    latencies = (Latency("sample", 50, 1.25, 10.5),)
    report = report_of("mig", examined, findings, latencies, simulated=simulated)
    return examination(report, width).plain


def test_a_line_a_finding_with_its_fix_below() -> None:
    text = shown(
        1,
        ok("driver", "580"),
        problem("slices", REFUSAL),
        warning("ecc", "off", "sudo nvidia-smi -e 1", gpu="GPU-0"),
        unknown("activity", "n/a: there is no GPM before Hopper", gpu="GPU-0"),
    )
    assert text == (
        "ok       driver    580\n"
        "problem  slices    MIG is off on NVIDIA A30 (GPU-0): turn it\n"
        "                   on and cut the GPU into slices (sudo\n"
        "                   nvidia-smi -mig 1).\n"
        "\n"
        "GPU 0  NVIDIA A30  GPU-0\n"
        "warning  ecc       off\n"
        "                   -> sudo nvidia-smi -e 1\n"
        "unknown  activity  n/a: there is no GPM before Hopper\n"
        "\n"
        "How long the calls of NVML take that a run makes while it watches\n"
        "CALL        N    P50 MS    P99 MS\n"
        "sample     50     1.250    10.500\n"
        "\n"
        "A run would be refused (exit 7): 1 problem (slices) and 1\n"
        "warning (ecc)."
    )


def test_of_many_gpus_what_is_in_order_has_one_line() -> None:
    findings = [ok(check, "fine", gpu=f"GPU-{gpu}") for gpu in range(3) for check in ("ecc", "power")]
    text = shown(3, *findings, warning("temperature", "hot", "Cool it.", gpu="GPU-2"))
    assert "GPU 1  NVIDIA A30  GPU-1\nok                    ecc, power\n" in text
    assert "warning  temperature  hot\n                      -> Cool it.\nok                    ecc, power\n" in text
    assert text.endswith("A run can begin: 1 warning (temperature).")


def test_a_simulated_machine_says_so_and_shows_no_times() -> None:
    text = shown(1, ok("driver", "none"), simulated=True)
    assert "P50" not in text
    assert text.endswith(
        "A run can begin: nothing is wrong.\nSIMULATED: no GPU was involved, and this is not a measurement of a GPU."
    )


def test_what_others_wrote_moves_no_cursor() -> None:
    text = shown(0, warning("clients", "held by \x1b[2Jevil (pid 1)", "Stop\x1b[0m it."))
    assert "held by evil (pid 1)\n" in text
    assert "-> Stop it." in text
    assert "\x1b" not in text
