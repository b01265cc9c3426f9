"""A headless Chromium, asked by the DevTools protocol over a pipe: what a page shows, asks for, and measures."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
A4_PIXELS = 718
"""How wide a page of A4 is between margins of 1 cm."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

_OVERLAPPING = """
[...document.querySelectorAll('.plot')].filter(one => one.offsetParent).flatMap(plot => {
  const boxes = [...plot.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b, y]) =>
    x.left < y.right - 1 && y.left < x.right - 1 && x.top < y.bottom - 3 && y.top < x.bottom - 3
  ).map(([b, y]) => a + ' / ' + b));
})
"""


def find_browser() -> str | None:
    """The first one on PATH."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """Call a method, and note what happens meanwhile."""
        return self._browser.call(method, params, self._session, self._note)

    def open(self, url: str, width: int, height: int = 900, **media: str) -> None:
        """Load a page in a window of that size; `media` are CSS features, as `prefers_color_scheme`."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 640
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.requests.clear()
        self.complaints.clear()
        self.ask("Page.navigate", url=url)
        deadline_s = time.monotonic() + DEADLINE_S
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
            assert time.monotonic() < deadline_s, f"{url} was never loaded"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, *, height: int) -> None:
        """A picture of the first `height` pixels."""
        width = self.value("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def too_wide(self) -> list[str]:
        """What reaches beyond the window, and on a phone also what would have to be scrolled sideways."""
        # Opened in full, so that nothing wide hides in a closed part.
        self.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
        phone = "innerWidth === 400"
        found: list[str] = self.value(
            "(document.documentElement.scrollWidth > innerWidth ? ['the page'] : []).concat("
            "[...document.querySelectorAll('body *')].filter(one => one.scrollWidth > one.clientWidth + 1 && "
            f"{phone} && getComputedStyle(one).overflowX === 'auto').map(one => one.textContent.trim().slice(0, 60)))"
        )
        return found

    def too_wide_for_paper(self) -> list[str]:
        """Tables that reach beyond the window when what it shows is printed: paper cannot be scrolled."""
        self.ask("Emulation.setEmulatedMedia", media="print")
        found: list[str] = self.value(
            "[...document.querySelectorAll('table')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
            ".map(one => one.textContent.trim().slice(0, 60))"
        )
        return found

    def smallest_text_of_plots(self) -> float:
        """In pixels, of the plots that are shown."""
        smallest: float = self.value(
            "Math.min(...[...document.querySelectorAll('.plot text')].filter(one => one.closest('.plot').offsetParent)"
            ".map(one => parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.getScreenCTM().a))"
        )
        return smallest

    def tables_without_heads(self) -> list[str]:
        """Those that lack a caption, heads of their columns or of their rows."""
        found: list[str] = self.value(
            "[...document.querySelectorAll('table')].filter(one => !one.caption || one.tHead.rows[0].cells.length < 2"
            " || ![...one.tHead.rows[0].cells].every(({tagName, scope}) => tagName === 'TH' && scope === 'col')"
            " || ![...one.tBodies[0].rows].every(({cells: [{tagName, scope}]}) => tagName === 'TH' && scope === 'row')"
            ").map(one => one.textContent.trim().slice(0, 60))"
        )
        return found

    def overlapping_labels(self) -> list[str]:
        """Pairs of labels of a plot that lie on each other."""
        found: list[str] = self.value(_OVERLAPPING)
        return found

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Page.javascriptDialogOpening":
                self.complaints.append(json.dumps(params))
            case _:
                pass


class Browser:
    """The process, and the pipe to it: JSON objects, each followed by a NUL."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._rest = b""
        self._calls = 0

    def page(self) -> Page:
        """A new tab."""
        target = self.call("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, None)["sessionId"]
        return Page(self, session)

    def call(self, method: str, params: dict[str, Any], session: str | None, note: Any = None) -> Any:
        """Ask, and wait for the answer."""
        self._calls += 1
        asked = {"id": self._calls, "method": method, "params": params, **({"sessionId": session} if session else {})}
        data = json.dumps(asked).encode() + b"\0"
        while data:
            data = data[os.write(self._write_fd, data) :]
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            told = self._next(deadline_s)
            if told.get("id") == self._calls:
                assert "error" not in told, told
                return told["result"]
            if note is not None and told.get("sessionId") == session:
                note(told)

    def _next(self, deadline_s: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read_fd], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, "the browser did not answer"
            block = os.read(self._read_fd, 1 << 20)
            assert block, "the browser has ended"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def browsing(program: str, home: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `home`; it and all of its processes are gone afterwards."""
    to_read, to_write = os.pipe(), os.pipe()
    # The browser reads from descriptor 3 and writes to 4, whatever their numbers are here.
    script = f'exec "$@" 3<&{to_write[0]} 4>&{to_read[1]}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", program, *_OPTIONS, f"--user-data-dir={home / 'profile'}"],
        pass_fds=(to_write[0], to_read[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_write[0])
    os.close(to_read[1])
    browser = Browser(to_read[0], to_write[1])
    try:
        yield browser
        browser.call("Browser.close", {}, None)
        process.wait(DEADLINE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(to_read[0])
        os.close(to_write[1])
