"""A small driver of headless Chromium over the DevTools protocol: open, measure, listen to the console."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS, ANSWER_SECONDS = 60, 60
STILL = """async find => {
  const box = () => { const e = find(); return e && !e.disabled ? e.getBoundingClientRect() : null };
  find()?.scrollIntoView({block: 'center'});
  const before = box();
  await new Promise(done => setTimeout(done, 50));
  const after = box();
  if (!before || !after || before.x !== after.x || before.y !== after.y || !after.width) return null;
  const at = {x: after.x + after.width / 2, y: after.y + after.height / 2};
  const hit = document.elementFromPoint(at.x, at.y), wanted = find();
  return hit && (wanted.contains(hit) || hit.contains(wanted)) ? at : null;
}"""
"""Where to click on an element: its middle, unless it moves, is disabled, or lies under something else."""


def executable() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command (to a frame's session) and return its result; keep the events that arrive."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            message = self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of the given size and wait until it has loaded."""
        self.resize(width, height=height)
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            if time.monotonic() > deadline:
                raise TimeoutError(url)
            self._receive()

    def resize(self, width: int, *, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def dark(self, on: bool = True) -> None:
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}],
        )

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression (promises are awaited)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 30.0) -> Any:
        """Return the first true value of an expression."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(expression)
            time.sleep(0.1)
        return value

    def click(self, element: str, *, seconds: float = 30.0) -> None:
        """Click with the mouse on what a JavaScript expression finds, once it lies still, free and enabled."""
        place = self.wait_for(f"({STILL})(() => {element})", seconds=seconds)
        for kind, button in (("mouseMoved", "none"), ("mousePressed", "left"), ("mouseReleased", "left")):
            self.call("Input.dispatchMouseEvent", type=kind, button=button, clickCount=1, **place)

    def type(self, text: str) -> None:
        """Insert a text where the keyboard's focus is."""
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press and release the Enter key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13
            )

    def in_frame(self, expression: str, *, seconds: float = 30.0) -> Any:
        """Return the first true value of an expression in a sandboxed frame of the page, once loaded."""
        ready = f"document.readyState === 'complete' && ({expression})"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.evaluate("new Promise(r => setTimeout(r, 50))")
            for session in self._frames():
                answer = self.call("Runtime.evaluate", session=session, returnByValue=True, expression=ready)
                if answer.get("result", {}).get("value"):
                    return answer["result"]["value"]
        raise TimeoutError(expression)

    def _frames(self) -> list[str]:
        """Return the sessions of the frames that have a process of their own (sandboxed ones have)."""
        made = [e["params"] for e in self.events if e["method"] == "Target.attachedToTarget"]
        gone = {e["params"]["sessionId"] for e in self.events if e["method"] == "Target.detachedFromTarget"}
        return [p["sessionId"] for p in made if p["sessionId"] not in gone]

    def console(self) -> list[str]:
        """Return everything that the page made the browser say since it was opened."""
        for session in self._frames():
            for domain in ("Runtime", "Log"):  # both repeat what was said before they were asked
                self.call(f"{domain}.enable", session=session)
        said = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Log.entryAdded":
                said.append(f"{params['entry']['level']}: {params['entry']['text']}")
            elif event["method"] == "Runtime.consoleAPICalled":
                said.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            elif event["method"] == "Runtime.exceptionThrown":
                said.append(str(params["exceptionDetails"]))
        return said

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened, without data: ones."""
        sent = [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path: Path | None = None, *, whole: bool = True) -> bytes:
        """Return a PNG of the page (the whole of it, or the window)."""
        data = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole)
        )
        png = base64.b64decode(data["data"])
        if path is not None:
            path.write_bytes(png)
        return png

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self) -> bytes:
        """Return the page as it is printed on A4."""
        return base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Start a Chromium with an empty profile, give its page, and end it."""
    path = executable()
    if path is None:
        raise RuntimeError(f"none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory(prefix="browser_", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            socket = websocket.create_connection(_address(Path(profile), process), timeout=ANSWER_SECONDS)
            try:
                yield Page(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address of the first tab, once the browser has said where it listens."""
    listening = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended with {process.returncode}")
        if listening.exists() and len(lines := listening.read_text().split()) > 1:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{lines[0]}/json/list", timeout=ANSWER_SECONDS
            ) as answer:
                tabs = json.load(answer)
            found = [t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"]
            if found:
                return str(found[0])
        time.sleep(0.05)
    raise TimeoutError("the browser did not start")
