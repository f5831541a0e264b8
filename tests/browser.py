"""A browser that tests drive: Chromium without a window, spoken to over a pipe.

The protocol (Chrome DevTools) is JSON, each message ended by a NUL byte; no port is opened.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "Tab": 9}


class Browser:
    """One page of a browser, and what it complained of."""

    def __init__(self, program: str) -> None:
        self.profile = tempfile.mkdtemp()
        down, self.write = os.pipe()
        self.read, up = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
        command = f'exec "$0" {flags} --user-data-dir="$1" about:blank 3<&{down} 4>&{up}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, program, self.profile],
            pass_fds=(down, up),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down)
        os.close(up)
        self.buffer = b""
        self.number = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.events: list[str] = []
        targets = self.ask("Target.getTargets", session=None)["targetInfos"]
        (page,) = (target for target in targets if target["type"] == "page")
        attach = {"targetId": page["targetId"], "flatten": True}
        self.session = self.ask("Target.attachToTarget", attach, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, parameters: dict | None = None, session: str | None = "") -> Any:
        """The answer to one command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict:
        deadline = time.monotonic() + 60
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            piece = os.read(self.read, 1 << 16)
            assert piece, "the browser went away"
            self.buffer += piece
        first, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict) -> None:
        method, what = event.get("method", ""), event.get("params", {})
        self.events.append(method)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(what["exceptionDetails"])[:2000])
        if method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(what["args"])[:2000])
        if method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.complaints.append(what["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])

    def open(self, page: Path, width: int = 1200, height: int = 900) -> float:
        """Opens a file; returns the seconds until it is loaded and drawn."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        self.events.clear()
        start = time.monotonic()
        self.ask("Page.navigate", {"url": page.resolve().as_uri()})
        while "Page.loadEventFired" not in self.events:
            self._note(self._next())
        self.settle()
        return time.monotonic() - start

    def settle(self) -> None:
        """Waits until what was asked for is drawn."""
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.value(f"{frames}.then(() => 1)")

    def value(self, expression: str) -> Any:
        """The value of an expression on the page."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point(self, x: float, y: float, kind: str = "mouseMoved", button: str = "none") -> None:
        """Moves the pointer, or presses and releases it."""
        event = {
            "type": kind,
            "x": x,
            "y": y,
            "button": button,
            "clickCount": int(kind != "mouseMoved"),
        }
        self.ask("Input.dispatchMouseEvent", event)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses at one place, moves, and lets go at another."""
        self.point(*start)
        self.point(*start, kind="mousePressed", button="left")
        self.point(*end, button="left")
        self.point(*end, kind="mouseReleased", button="left")

    def key(self, name: str) -> None:
        """Presses a key."""
        code = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS.get(name, ord(name[0]))}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", {"type": kind, **code})
        self.settle()

    def media(self, scheme: str) -> None:
        """Light or dark, as the system would ask for."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", {"features": features})
        self.settle()

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A picture of what is seen, or of the whole page."""
        shot = self.ask("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF", {"preferCSSPageSize": True})["data"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)
        shutil.rmtree(self.profile, ignore_errors=True)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser; the test is skipped where none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    browser = Browser(program)
    yield browser
    browser.close()
