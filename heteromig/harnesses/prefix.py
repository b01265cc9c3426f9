"""`--main-benchmark-cmd-prefix`, whatever the harness is."""

from __future__ import annotations

import shutil
from pathlib import Path

from heteromig.core.errors import UsageError


def require_prefix(prefix: tuple[str, ...], cwd: Path | None) -> None:
    """Main starts long after the backgrounds, which is late to learn that its command cannot be run.

    `cwd` is where main runs; None where that is a directory of its own, which is empty.

    Raises:
        UsageError: there is no such program.
    """
    if not prefix:
        return
    name = prefix[0]
    if cwd is None and "/" in name and not Path(name).is_absolute():
        raise UsageError(
            f"--main-benchmark-cmd-prefix begins with {name!r}, and main runs in a directory of its own: say the whole "
            "path."
        )
    if shutil.which(str(cwd / name) if cwd is not None and "/" in name else name) is None:
        where = "on the PATH" if cwd is None else "on the PATH or in the tree"
        raise UsageError(
            f"--main-benchmark-cmd-prefix begins with {name!r}, which is no program {where}: install it, or leave the "
            "option out."
        )
