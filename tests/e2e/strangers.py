"""Processes of somebody else on simulated slices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tests.e2e.conftest import Say
from tests.e2e.product import BOARD


def slices_of(say: Say, source: str = BOARD) -> list[str]:
    """UUIDs of the slices, in their order."""
    listed = say("slices", "--slices", source, "--runs-dir", "runs", "--json").finish()
    return [place["uuid"] for place in msgspec.json.decode(listed.stdout)["inventory"]["slices"]]


@contextmanager
def stranger(slice_uuid: str) -> Iterator[int]:
    """A process of somebody else that has this slice as its device."""
    process = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"),
        env={"CUDA_VISIBLE_DEVICES": slice_uuid},
        stdin=subprocess.PIPE,
    )
    try:
        yield process.pid
    finally:
        process.communicate()
