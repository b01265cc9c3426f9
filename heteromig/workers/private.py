"""Files that nobody but their owner may read: command lines, variables, output, journals."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_MODE = 0o600


def create_private(path: Path, more_flags: int = 0) -> int:
    """A descriptor of a new file, to write to; its mode is right whatever the umask is.

    Raises:
        FileExistsError: there is something of that name, be it a link.
        OSError: the file system does not let it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags | more_flags, PRIVATE_MODE)
    os.fchmod(fd, PRIVATE_MODE)
    return fd
