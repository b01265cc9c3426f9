"""What samples say of main's GPU during main."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.comparing.devices import read_devices
from heteromig.core.devices import DeviceSample, GpuSample, Reading, Unavailable
from heteromig.core.units import NS_PER_S

SECTION = (10 * NS_PER_S, 20 * NS_PER_S)


def sample(at_s: float, **readings: float | None) -> tuple[int, DeviceSample]:
    ours = GpuSample("GPU-0", **readings)  # type: ignore[arg-type]  # whole numbers where these are asked for
    other = GpuSample("GPU-1", power_w=9999.0)
    return round(at_s * NS_PER_S), DeviceSample(taken_ns=0, slices=(), gpus=(other, ours))


def test_means_are_over_mains_timed_section() -> None:
    samples = [sample(5, power_w=1.0), sample(11, power_w=100.0), sample(19, power_w=200.0), sample(21, power_w=1.0)]
    figures, missing = read_devices(samples, "GPU-0", SECTION)
    assert figures == {"power": 150.0}
    assert missing["sm-clock"] == "it was never read"


def test_a_reading_that_is_missing_now_and_then_is_left_out() -> None:
    samples = [sample(11, sm_clock_mhz=1000), sample(12), sample(13, sm_clock_mhz=1200, temperature_c=50.0)]
    figures, _ = read_devices(samples, "GPU-0", SECTION)
    assert figures == {"sm-clock": 1100.0, "temperature": 50.0}


def test_slowdowns_are_shares_of_the_time_around_main() -> None:
    counters = {"hw_thermal_slowdown_ns": 0, "power_brake_ns": 7}
    before = sample(8, sw_thermal_slowdown_ns=5, power_cap_ns=0, **counters)
    after = sample(28, sw_thermal_slowdown_ns=5 + 2 * NS_PER_S, power_cap_ns=10 * NS_PER_S, **counters)
    late = sample(40, sw_thermal_slowdown_ns=10**15, power_cap_ns=10**15, **counters)
    figures, _ = read_devices([sample(1), before, sample(15), after, late], "GPU-0", SECTION)
    assert figures == pytest.approx({"heat-slowdown": 10.0, "brake-slowdown": 0.0, "power-capped": 50.0})


def test_why_something_is_missing_is_what_the_sampler_said() -> None:
    said = Unavailable(scopes=("GPU-0",), readings=(Reading.POWER, Reading.SW_THERMAL), reason="not permitted")
    at, one = sample(11)
    figures, missing = read_devices([(at, replace(one, unavailable=(said,))), sample(12)], "GPU-0", SECTION)
    assert figures == {}
    assert (missing["power"], missing["heat-slowdown"]) == ("not permitted", "not permitted")


@pytest.mark.parametrize(
    ("section", "words"),
    [(None, "main's timed section is not known"), (SECTION, "no device sample was taken in main's timed section")],
)
def test_without_samples_or_section_there_is_nothing(section: tuple[int, int] | None, words: str) -> None:
    figures, missing = read_devices([sample(5, power_w=1.0)], "GPU-0", section)
    assert figures == {}
    assert missing["power"] == words
