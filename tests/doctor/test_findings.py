from __future__ import annotations

import pytest

from heteromig.doctor.findings import remedy
from heteromig.doctor.watching import latency


@pytest.mark.parametrize(
    ("sentence", "fix"),
    [
        (
            "NVML (libnvidia-ml.so.1) is not on this machine: install NVIDIA's driver, or use --slices sim:a30.",
            "Install NVIDIA's driver, or use --slices sim:a30.",
        ),
        (
            "NVIDIA's driver does not answer (NVML says: Driver Not Loaded): check that it is loaded with nvidia-smi.",
            "Check that it is loaded with nvidia-smi.",
        ),
        (
            "Slice MIG-1 is used by a process that is not part of this run: pid 7 (sleep 600). End it, or use others.",
            "End it, or use others.",
        ),
        (
            "NVML cannot enumerate the GPUs: it says 'GPU is lost'; check nvidia-smi and the kernel's log.",
            "Check nvidia-smi and the kernel's log.",
        ),
        (
            "No run directory can be made in /r: Not a directory. Choose another place with --runs-dir.",
            "Choose another place with --runs-dir.",
        ),
        ("It is so.", "It is so."),
    ],
)
def test_the_end_of_a_refusal_says_what_to_do(sentence: str, fix: str) -> None:
    assert remedy(sentence) == fix


@pytest.mark.parametrize(
    ("times_ns", "p50_ms", "p99_ms"),
    [([3_000_000], 3, 3), ([1_000_000, 9_000_000], 1, 9), ([n * 1_000_000 for n in range(200, 0, -1)], 100, 198)],
)
def test_percentiles_are_times_that_were_measured(times_ns: list[int], p50_ms: float, p99_ms: float) -> None:
    found = latency("call", times_ns)
    assert (found.call, found.count, found.p50_ms, found.p99_ms) == ("call", len(times_ns), p50_ms, p99_ms)
