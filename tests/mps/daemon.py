"""A stand-in for `nvidia-cuda-mps-control` and `nvidia-cuda-mps-server`, as those of driver 580.159.04 behave.

`install` puts it on PATH under NVIDIA's name. What it does and says was read off the real ones on an H100: the files in
its directory, its answers and exit codes, a server that is a child of the daemon and ends within a moment of its death,
`quit` that waits for clients, `terminate_client` that answers 0.

Clients are programs that connect to the daemon (`tests/mps/client.py`), which hands them to its server as the real one
does: they hold a connection to the server for as long as they live, and hear by it that they were terminated.

`HETEROMIG_TEST_MPS` names the habit of a bad one: `dies`, `mute`, `no-server`, `immortal`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
_COMM = "nvidia-cuda-mps"
"""What the kernel keeps of either name."""
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
HABIT = "HETEROMIG_TEST_MPS"

NOBODY = "Cannot find MPS control daemon process\n"
STARTING_S = 0.1
"""How long a server says that it is being initialised."""
DYING_S = 0.2
"""How long a server lives on without its daemon."""


def install(directory: Path) -> None:
    """Make the program in a directory, which belongs in front of PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / CONTROL
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} control "$@"\n')
    program.chmod(0o755)


def pipes() -> Path:
    return Path(os.environ.get(PIPES, "/tmp/nvidia-mps"))  # noqa: S108 - the real one's default


def say(text: str) -> None:
    print(f"[Control {os.getpid()}] {text}", flush=True)  # noqa: T201 - in the foreground this is its log


def listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(pipes() / name))
    listener.listen(64)
    return listener


def answer_to(connection: socket.socket) -> str:
    """The one line that a connection says."""
    text = b""
    while not text.endswith(b"\n") and (said := connection.recv(4096)):
        text += said
    return text.decode().strip()


def tell(name: str, line: str) -> str:
    """What somebody in our directory answers to a line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(pipes() / name))
        connection.sendall(f"{line}\n".encode())
        text = b""
        while said := connection.recv(4096):
            text += said
    return text.decode()


class Daemon:
    """The control daemon: a few commands, and at most one server."""

    def __init__(self) -> None:
        self.habit = os.environ.get(HABIT, "")
        self.server: subprocess.Popen[bytes] | None = None
        self.quitting: list[socket.socket] = []
        self.by_force_s = float("inf")
        self.held: list[socket.socket] = []
        """Connections that are never answered, and never closed."""

    def run(self) -> int:
        if self.habit == "immortal":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            listener = listen("control")
        except OSError as error:
            say(f"Cannot make its pipes: {error}")
            return 1
        (pipes() / f"{CONTROL}.pid").write_text(f"{os.getpid()}\n")
        say("Start")
        while not self.quitting or self.is_served():
            if self.quitting and (not self.clients() or time.monotonic() >= self.by_force_s):
                self.stop_server()
                continue
            if select.select([listener], [], [], 0.02)[0]:
                connection = listener.accept()[0]
                self.hear(connection, answer_to(connection))
        say("Exit with status 0")
        for name in ("log", f"{CONTROL}.pid"):
            (pipes() / name).unlink(missing_ok=True)
        return 0

    def is_served(self) -> bool:
        return self.server is not None and self.server.poll() is None

    def hear(self, connection: socket.socket, line: str) -> None:
        command, *words = line.split() or [""]
        if self.habit == "mute" or (self.habit == "immortal" and command == "quit"):
            self.held.append(connection)
            return
        if command == "quit":
            self.quitting.append(connection)
            self.by_force_s = time.monotonic() + (float(words[1]) if words else float("inf"))
            return
        known: dict[str, Callable[..., str]] = {
            "start_server": lambda *_: self.start_server(),
            "get_server_list": lambda: f"{self.server.pid}\n" if self.server and self.is_served() else "",
            "get_server_status": lambda pid: self.asked(pid, "status"),
            "get_client_list": lambda pid: self.asked(pid, "clients"),
            "terminate_client": lambda pid, client: self.asked(pid, f"terminate {client}"),
            "connect": self.connect,
        }
        said = known[command](*words) if command in known else f'Unknown command "{command}"\n'
        connection.sendall(said.encode())
        connection.close()

    def start_server(self) -> str:
        if self.habit != "no-server" and not self.is_served():
            self.server = subprocess.Popen((sys.executable, "-I", "-S", __file__, "server"))
            say(f"Starting new server {self.server.pid} for user {os.getuid()}")
        return ""

    def connect(self) -> str:
        self.start_server()
        while self.is_served() and not (pipes() / "server").exists():
            time.sleep(0.005)
        return "server\n"

    def asked(self, pid: str, line: str) -> str:
        if self.server is None or not self.is_served() or int(pid) != self.server.pid:
            return f"Server {pid} not found\n"
        try:
            return tell("server", line)
        except OSError:
            return "INITIALIZING\n" if line == "status" else ""

    def clients(self) -> list[str]:
        return self.asked(str(self.server.pid), "clients").split() if self.server and self.is_served() else []

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait()
            (pipes() / "server").unlink(missing_ok=True)


def serve() -> int:
    """The server: it knows its clients by their connections, and ends soon after its daemon."""
    daemon = os.getppid()
    time.sleep(STARTING_S)
    (pipes() / "server").unlink(missing_ok=True)
    listener = listen("server")
    clients: dict[int, socket.socket] = {}
    while os.getppid() == daemon:
        ready = select.select([listener, *clients.values()], [], [], 0.02)[0]
        for pid, connection in list(clients.items()):
            if connection in ready and not connection.recv(64):
                del clients[pid]
        if listener not in ready:
            continue
        connection = listener.accept()[0]
        command, _, word = answer_to(connection).partition(" ")
        if command == "client":
            clients[int(word)] = connection
            continue
        said = {"status": "ACTIVE\n", "clients": "".join(f"{pid}\n" for pid in clients)}.get(command, "")
        if command == "terminate":
            victim = clients.get(int(word))
            said = "0\n" if victim else f"Invalid process {word}!\n1\n"
            if victim:
                victim.sendall(b"terminated\n")
        connection.sendall(said.encode())
        connection.close()
    time.sleep(DYING_S)
    return 0


def ask() -> int:
    line = sys.stdin.readline().strip()
    try:
        said = tell("control", line)
    except OSError:
        sys.stderr.write(NOBODY)
        return 1
    sys.stdout.write(said)
    return 0


def main() -> int:
    role, *arguments = sys.argv[1:]
    Path("/proc/self/comm").write_text(_COMM)
    if role == "server":
        return serve()
    if not arguments:
        return ask()
    if os.environ.get(HABIT) == "dies":
        say("Cannot open the device")
        return 1
    if arguments == ["-d"] and os.fork():
        return 0
    return Daemon().run()


if __name__ == "__main__":
    sys.exit(main())
