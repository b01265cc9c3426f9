"""`python -m heteromig.benchmarks run|build|list`.

Stop signals are taken over first: whatever comes later can be slow to import. ONNX Runtime is told to report to nobody:
from 1.32 on, importing it leaves a file `.ses` in the directory for temporary files, and sends what it has observed.
"""

from __future__ import annotations

import os
import sys

from heteromig.benchmarks.signals import StopSignals


def _main() -> int:
    signals = StopSignals()
    signals.install()
    os.umask(os.umask(0o077) | 0o022)  # engines are programs, and logs are evidence: nobody else may write to them
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from heteromig.benchmarks.arguments import main  # noqa: PLC0415 - a stop during this import is a clean one

    return main(sys.argv[1:], signals)


if __name__ == "__main__":
    sys.exit(_main())
