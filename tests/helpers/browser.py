"""Headless Chromium for tests, driven over its DevTools protocol: pages are opened, typed into, looked at and asked in JavaScript."""

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
MODIFIERS = {"": 0, "Control": 2}
CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}


@contextmanager
def browser(folder: Path) -> Iterator[int]:
    """A browser with an empty profile below ``folder``; the port of its DevTools."""
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
    """A tab. What it asked for stands in ``requests``, what went wrong in it in ``complaints`` (exceptions, blocked content)."""

    def __init__(self, port: int, *, width: int = 1100, height: int = 800, scheme: str = "light"):
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT"), timeout=20) as answer:
            target = json.load(answer)
        self._socket: ClientConnection = connect(target["webSocketDebuggerUrl"], max_size=None)
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._number:
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
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """``width`` in CSS pixels; up to 600 a phone, with touch and without room for scroll bars."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width <= 600)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, of its promise where it is one."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self.ask(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never: {condition}\n{self.ask('document.body.innerText')}\n{self.complaints}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return str(self.ask(f"document.querySelector({json.dumps(selector)}).innerText"))

    def focus(self, selector: str) -> None:
        self.ask(f"document.querySelector({json.dumps(selector)}).focus()")

    def click(self, selector: str) -> None:
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> None:
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> tuple[float, float]:
        box = f"document.querySelector({json.dumps(selector)})"
        self.ask(f"{box}.scrollIntoView({{block: 'nearest'}})")
        x, y = self.ask(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box}.getClientRects()[0])")
        return x, y

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifier: str = "") -> None:
        common = {"key": key, "code": key, "windowsVirtualKeyCode": CODES[key], "modifiers": MODIFIERS[modifier]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def nameless(self) -> list[str]:
        """The roles of controls that a screen reader would call nothing."""
        controls = {"button", "textbox", "slider", "checkbox", "radio", "combobox", "spinbutton", "dialog", "link"}
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        focusable = [node for node in nodes if not node["ignored"] and node["role"]["value"] in controls]
        assert focusable
        return [node["role"]["value"] for node in focusable if not node.get("name", {}).get("value")]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
