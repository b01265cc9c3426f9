"""Directories in which nobody else can change what a run writes, or what it loads.

Who can write to a run directory can forge its evidence, and who can write to an engine can make a worker run what he
likes: an engine for a GPU is a PyTorch program. So can who may rename one of the directories above. Sticky directories
such as /tmp let nobody remove what is another's, and a group that is a user's own lets nobody else in.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from heteromig.core.errors import UsageError
from heteromig.core.spec import RunSpec

_ROOT = 0
_LINKS_MAX = 40
"""As many as the kernel follows (path_resolution(7))."""
_WAY_OUT = "or, if all who can do that may, say --allow-shared-dirs"


def require_unshared(spec: RunSpec) -> None:
    """Check the directories of runs and engines, as far as they are there, unless the user allows that they are shared.

    Raises:
        UsageError: somebody else can change what is in one of them.
    """
    if spec.allow_shared_dirs:
        return
    for option, text in (("--runs-dir", spec.runs_dir), ("--engines-dir", spec.engines_dir)):
        exposure = exposed(Path(text))
        if exposure is not None:
            raise UsageError(f"{option} {text}: {exposure}, {_WAY_OUT}, or choose another place.")
    for exposure in _exposed_engines(Path(spec.engines_dir).absolute()):
        raise UsageError(f"The engine cache {spec.engines_dir}: {exposure}, {_WAY_OUT}.")


def exposed(path: Path) -> str | None:
    """Why somebody else could change what is at `path`, and a remedy: most of a sentence; None where nobody can.

    What is not there yet will be made by this user, so that only the directories above it count.
    """
    try:
        return next((why for directory in _way_to(path.absolute()) if (why := _why(directory)) is not None), None)
    except _ForeignLinkError as link:
        return f"{link} is a link of another user: remove it"
    except OSError:
        return None  # whoever makes or opens it says what is wrong


class _ForeignLinkError(Exception):
    """A link that its owner may replace at any time."""


def _way_to(path: Path) -> Iterator[Path]:
    """Every directory that has to be passed to get there, none of them a link."""
    here, links = Path("/"), 0
    to_come = list(path.parts[1:])
    yield here
    while to_come:
        name = to_come.pop(0)
        if name == "..":
            here = here.parent
            continue
        below = here / name
        try:
            status = below.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if status.st_uid not in _trusted() and here.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _ForeignLinkError(str(below))
            if links > _LINKS_MAX:
                return
            target = below.readlink()
            to_come = [*(target.parts[1:] if target.is_absolute() else target.parts), *to_come]
            here = Path("/") if target.is_absolute() else here
            continue
        here = below
        yield here


def _why(path: Path, *, sticky_is_fine: bool = True) -> str | None:
    """Why somebody else could change what is directly at `path`, which is no link."""
    status = path.lstat()
    if status.st_uid not in _trusted():
        return f"{path} belongs to another user (uid {status.st_uid}): make it yours"
    if sticky_is_fine and stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return None
    quoted = shlex.quote(str(path))
    if status.st_mode & stat.S_IWOTH:
        return f"everybody can write to {path}: chmod o-w {quoted}"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return f"the group {_group_name(status.st_gid)} can write to {path}: chmod g-w {quoted}"
    return None


def _exposed_engines(engines_dir: Path) -> Iterator[str]:
    """Entries of a cache that somebody else could have put there, or could change."""
    try:
        for entry in sorted(engines_dir.iterdir()):
            if entry.name.endswith(".lock"):  # nothing is read from it
                continue
            for path in (entry, *(sorted(entry.iterdir()) if entry.is_dir() and not entry.is_symlink() else ())):
                if path.is_symlink():
                    yield f"{path} is a link, and what it points at may be anybody's: remove it"
                elif (why := _why(path, sticky_is_fine=False)) is not None:
                    yield why
    except OSError:
        return


def _trusted() -> frozenset[int]:
    """Users who can do what they like here anyway: this one, root, and whoever became root by sudo."""
    this = os.geteuid()
    sudoer = os.environ.get("SUDO_UID", "") if this == _ROOT else ""
    return frozenset({this, _ROOT, *((int(sudoer),) if sudoer.isdecimal() else ())})


def _is_private(gid: int, uid: int) -> bool:
    """Whether it is the group that many systems make for each user, with nobody else in it."""
    try:
        group, owner = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and gid == owner.pw_gid and set(group.gr_mem) <= {owner.pw_name}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
