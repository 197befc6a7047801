"""Headless Chromium for tests, driven over its DevTools protocol: opens pages, types and clicks, and evaluates JavaScript."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MODIFIERS = {"": 0, "Alt": 1, "Control": 2, "Shift": 8}
CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, ".": 190, ",": 188}
NAMES = {".": "Period", ",": "Comma"}  # of keys, where they are called otherwise than what they write


@contextmanager
def browser(folder: Path) -> Iterator[int]:
    """Start a browser with an empty profile in ``folder``; yields the port of its DevTools."""
    announced = folder / "DevToolsActivePort"
    command = [*CHROMIUM, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not (announced.exists() and announced.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < deadline, "chromium does not start"
            time.sleep(0.1)
        yield int(announced.read_text().splitlines()[0])
    finally:
        process.terminate()
        process.wait(120)


class Page:
    """A tab. ``requests``: the addresses that it requested; ``complaints``: its exceptions and security errors."""

    def __init__(self, port: int, *, width: int = 1100, height: int = 800, scheme: str = "light"):
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT"), timeout=20) as answer:
            target = json.load(answer)
        self._socket: ClientConnection = connect(target["webSocketDebuggerUrl"], max_size=None)
        self._last_id = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol; its result. Events that arrive meanwhile are noted."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._last_id:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(event["params"]["exceptionDetails"]["exception"].get("description", "an exception"))
            case "Log.entryAdded" if event["params"]["entry"]["source"] == "security":
                self.complaints.append(event["params"]["entry"]["text"])

    def open(self, address: str) -> None:
        """Load a page and wait until it is complete."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Set the size in CSS pixels. A width of up to 600 is a phone, with overlay scroll bars."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width <= 600)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true; fail after ``seconds`` with the page's text."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never: {condition}\n{self.evaluate('document.body.innerText')}\n{self.complaints}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def focus(self, selector: str) -> None:
        """Give an element the keyboard's focus."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")

    def click(self, selector: str) -> None:
        """Click in the middle of an element, after scrolling to it."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> tuple[float, float]:
        box = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{box}.scrollIntoView({{block: 'nearest'}})")
        x, y = self.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box}.getClientRects()[0])")
        return x, y

    def type(self, text: str) -> None:
        """Insert text into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifier: str = "") -> None:
        """Press and release a letter, a digit or a key of ``CODES``, with a modifier of ``MODIFIERS``."""
        name = NAMES.get(key) or (f"{'Digit' if key.isdecimal() else 'Key'}{key.upper()}" if key.isalnum() and len(key) == 1 else key)
        common = {"key": key, "code": name, "windowsVirtualKeyCode": CODES.get(key) or ord(key.upper()), "modifiers": MODIFIERS[modifier]}
        text = "\r" if key == "Enter" else key if len(key) == 1 and modifier in ("", "Shift") else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def nameless(self) -> list[str]:
        """The roles of visible controls that have no name for a screen reader."""
        controls = {"button", "textbox", "slider", "checkbox", "radio", "combobox", "spinbutton", "dialog", "link"}
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        visible = [node for node in nodes if not node["ignored"] and node["role"]["value"] in controls]
        assert visible
        return [node["role"]["value"] for node in visible if not node.get("name", {}).get("value")]

    def picture(self, path: Path) -> None:
        """Write a screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
