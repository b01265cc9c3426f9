"""What `make run_harness` prints last: the summaries in LOG_DIR. Without one it fails, as the original does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def summary(name: str) -> Any:
    """One of the summaries that the driver wrote, which may be of an earlier run; None without any."""
    path = Path(os.environ.get("LOG_DIR", "build/logs/default"), name)
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    """Print both summaries."""
    for title, name in (("Perf harness", "perf_harness_summary.json"), ("Accuracy", "accuracy_summary.json")):
        sys.stdout.write(f"\n======================= {title} results: =======================\n\n")
        results = summary(name)
        for config in results:
            sys.stdout.write(f"{config}:\n")
            for benchmark, text in results[config].items():
                sys.stdout.write(f"    {benchmark}: {text}\n")
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
