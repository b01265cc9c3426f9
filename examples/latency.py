"""An ordinary program, which knows nothing of heteromig: how long does a small piece of work take beside neighbours?

`latency.py SECONDS` sorts the same ten thousand numbers again and again, and prints percentiles at the end.
"""

import random
import sys
import time


def main(duration_s: float) -> None:
    """Measure for that long."""
    numbers = random.Random(0).sample(range(1_000_000), 10_000)  # noqa: S311 - nothing is kept secret by it
    sorted(numbers)
    print("measuring", flush=True)
    began_s, took_ms = time.perf_counter(), []
    while time.perf_counter() - began_s < duration_s:
        before_s = time.perf_counter()
        sorted(numbers)
        took_ms.append(1000 * (time.perf_counter() - before_s))
    print("measured", flush=True)
    took_ms.sort()
    p50_ms, p99_ms = took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100]
    print(f"rounds={len(took_ms)} p50_ms={p50_ms:.3f} p99_ms={p99_ms:.3f}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
