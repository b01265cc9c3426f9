"""`python -m tests.bench [NAME...]`: measure what watching costs, and print it next to its budgets."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from tests.bench import (
    abort,
    certificates,
    chatter,
    commands,
    handover,
    leftovers,
    load,
    overhead,
    replaying,
    reports,
    tree,
    tuning,
    watching,
)
from tests.bench.launching import MeasuringFailedError
from tests.bench.table import MISSED, Row, render

PROGRAMS: dict[str, Callable[[], list[Row]]] = {
    module.__name__.rpartition(".")[2]: module.measure
    for module in (
        *(handover, chatter, tree, abort, watching, load, overhead, leftovers, commands, certificates, replaying),
        *(reports, tuning),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; everything if left out")
    parser.add_argument("--list", action="store_true", help="print the names")
    options = parser.parse_args()
    if options.list:
        for name, measure in PROGRAMS.items():
            sys.stdout.write(f"{name:<13} {sys.modules[measure.__module__].__doc__}\n")
        return
    unknown = [name for name in options.names if name not in PROGRAMS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; all are {', '.join(PROGRAMS)}")
    rows: list[Row] = []
    failed = False
    for name in options.names or PROGRAMS:
        start_s = time.monotonic()
        sys.stderr.write(f"{name} ...")
        sys.stderr.flush()
        try:
            rows += PROGRAMS[name]()
        except MeasuringFailedError as error:
            failed = True
            rows.append(Row(what=name, measured=f"not measured: {error}", budget="", verdict=MISSED))
        sys.stderr.write(f" {time.monotonic() - start_s:.0f} s\n")
    sys.stdout.write(f"{render(rows)}\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
