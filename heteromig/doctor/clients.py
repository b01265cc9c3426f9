"""Findings about other programs: who holds GPUs open, who shares them, and whether their pids mean anything here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from heteromig.doctor.facts import GpuFacts
from heteromig.doctor.findings import Finding, ok, unknown, warning
from heteromig.slices.processes import Ancestry

_NODE = re.compile(r"/dev/nvidia(\d+)")
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""linux/proc_ns.h, PROC_PID_INIT_INO: the number of the namespace in which the kernel counts."""

_EXPECTED = "nvidia-persiste"  # nvidia-persistenced, as the kernel cuts it
_MPS = "nvidia-cuda-mps"
_SERVICES = {
    "nv-hostengine": "sudo systemctl stop nvidia-dcgm",
    "dcgm-exporter": "sudo systemctl stop dcgm-exporter",
    "nvsm": "sudo systemctl stop nvsm",
    _EXPECTED: "sudo systemctl stop nvidia-persistenced",
}
"""How services are stopped that are known to keep GPUs from being cut (MIG user guide), by the names of processes."""


class Client(Struct, frozen=True):
    """A process that has a GPU open. `name` is as the kernel knows it: 15 characters at most."""

    pid: int
    name: str
    minors: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Census(Struct, frozen=True):
    """Every process, as far as this user may look: `hidden` is the number of those whose files are not shown."""

    clients: tuple[Client, ...]
    hidden: int
    sharing: tuple[Client, ...]


def take_census(proc: Path = Path("/proc")) -> Census:
    """Who has a GPU open, and who shares one by CUDA MPS."""
    clients, sharing, hidden = [], [], 0
    for place in proc.iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            name = (place / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name.startswith(_MPS):
                sharing.append(Client(int(place.name), name, ()))
            minors = _minors(place / "fd")
        except PermissionError:
            hidden += 1
        except OSError:  # it has ended
            continue
        else:
            if minors:
                clients.append(Client(int(place.name), name, minors))
    return Census(_ordered(clients), hidden, _ordered(sharing))


def _minors(descriptors: Path) -> tuple[int, ...]:
    targets = []
    for descriptor in descriptors.iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except OSError:  # noqa: PERF203 - it was closed meanwhile
            continue
    return tuple(sorted({int(match[1]) for target in targets if (match := _NODE.fullmatch(target))}))


def _ordered(found: list[Client]) -> tuple[Client, ...]:
    return tuple(sorted(found, key=lambda one: one.pid))


def about_clients(census: Census, gpus: tuple[GpuFacts, ...]) -> Iterator[Finding]:
    """Who has a GPU open: they keep it from being cut, and from a new MIG mode."""
    family = set(Ancestry().of(os.getpid()))
    others = [one for one in census.clients if one.pid not in family]
    known = {one.health.minor.value for one in gpus if one.health is not None}
    others = [one for one in others if not known or known & set(one.minors)]
    unseen = f"; {census.hidden} processes of other users could not be looked into" if census.hidden else ""
    names = ", ".join(map(str, others))
    if any(one.name != _EXPECTED for one in others):
        commands = "; ".join(dict.fromkeys(_SERVICES[one.name] for one in others if one.name in _SERVICES))
        stop = f" ({commands})" if commands else ""
        yield warning(
            "clients",
            f"a GPU is held open by {names}{unseen}: it may refuse to be cut, or to change its MIG mode",
            f"Stop them before heteromig mig apply{stop}; a run on slices that there are can do without.",
        )
    elif others:
        yield ok("clients", f"nobody has a GPU open but {names}{unseen}")
    elif census.hidden:
        yield unknown("clients", f"nobody is seen to have a GPU open{unseen}", "As root (sudo) they can be.")
    else:
        yield ok("clients", "nobody has a GPU open")


def about_sharing(census: Census) -> Iterator[Finding]:
    """CUDA MPS of somebody: programs that find its pipe are on the GPU through it."""
    if not census.sharing:
        yield ok("mps", "no CUDA MPS daemon is running")
        return
    names = ", ".join(map(str, census.sharing))
    yield warning(
        "mps",
        f"CUDA MPS is running: {names}; programs that find it share its server, and die with it",
        "Have its owner end it (echo quit | nvidia-cuda-mps-control), unless it is that of a run.",
    )


def about_namespace(gpus: tuple[GpuFacts, ...], proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Whether NVML's pids, which are the host's, mean the same processes here."""
    try:
        nested = (proc / "self" / "ns" / "pid").stat().st_ino != _INITIAL_PID_NAMESPACE
    except OSError as error:
        yield unknown("pid-namespace", f"n/a: /proc/self/ns/pid: {error.strerror}")
        return
    if not (proc / "1").exists():
        yield warning(
            "pid-namespace",
            "/proc hides processes of other users (hidepid), so that who is on a slice has no name and no parents",
            "sudo mount -o remount,hidepid=0 /proc",
        )
    elif not nested:
        yield ok("pid-namespace", "that of the host: NVML's pids are those of /proc")
    if not nested:
        return
    pids = sorted({pid for one in gpus if one.health is not None for pid in one.health.whole_pids.value or ()})
    strange = [pid for pid in pids if not (proc / str(pid)).exists()]
    evidence = f" ({len(strange)} of the {len(pids)} pids that NVML lists are not here)" if pids else ""
    yield warning(
        "pid-namespace",
        f"this is a container: NVML may tell pids of the host, which mean nothing here{evidence}, so that guards on "
        "processes may not be observable",
        "Start the container with the host's pids (docker run --pid=host), if these guards matter.",
    )
