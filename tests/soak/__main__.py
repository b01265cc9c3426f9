"""`python -m tests.soak --runs 200`: short runs in a row with random faults, judged by what was done to them.

Whether a run may be valid is settled by the fault plan and by the clocks of whoever did what it says, never by what
heteromig wrote. A run that may not be valid and says that it is, by its exit code or by `verify`, makes the soak fail,
as does anything that is left or leaks. The same --seed plans the same.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.injecting import strike_and_see
from tests.soak.judging import Judged, judge, judge_residents, leaks_of, render
from tests.soak.planning import make_plan


def main() -> None:
    """Soak, print the figures, and say by the exit code whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument(
        "--residents", type=int, default=None, help="runs in one process (default: a tenth, at least 4)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="also write the figures to this file")
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - the same faults for the same seed are the point
    judged: list[Judged] = []
    before = leaks_of()
    top = Path(tempfile.mkdtemp(prefix="heteromig-soak-"))
    try:
        for number in range(options.runs):
            plan = make_plan(rng)
            home = top / str(number)
            home.mkdir()
            one = judge(plan, strike_and_see(plan, home))
            judged.append(one)
            if options.verbose or one.is_wrong:
                sys.stderr.write(f"{number}: {one.sentence}\n")
            if not one.is_wrong:
                shutil.rmtree(home)
        own = leaks_of()
        resident = top / "resident"
        resident.mkdir()
        residents = judge_residents(options.residents or max(4, options.runs // 10), resident)
    finally:
        if not any(one.is_wrong for one in judged):
            shutil.rmtree(top, ignore_errors=True)
        else:
            sys.stderr.write(f"What went wrong is kept in {top}.\n")
    text, failed = render(judged, residents, seed=options.seed, own=(before, own))
    sys.stdout.write(text)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
