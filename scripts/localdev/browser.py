"""A browser of the machine, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no chromium on this machine (.ci/run installs it)"
WAIT_S = 20.0
LOOK_S = 1.0  # that the page itself looks for what is waited for
LEFT = ("navigated", "context was destroyed", "Promise was collected")  # a page that is asked and is no more
MAX_MESSAGE = 64 << 20
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--disable-default-apps", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-port=0",
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",  # pages of its own, which nobody sees
)  # fmt: skip


class Page:
    """One tab. `requests` are the addresses it asked for since `overhear`, `faults` what went wrong in it."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._number = connection, 0
        self.requests: list[str] = []
        self.faults: list[str] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    @contextmanager
    def overhear(self) -> Iterator[None]:
        """Note what it asks for; all that comes by a WebSocket is then told here, too, as each picture."""
        self.requests.clear()
        self.call("Network.enable")
        try:
            yield
        finally:
            self.call("Network.disable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol and its result; events that come before it are taken note of."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps({**message, "sessionId": self._session} if self._session else message))
        deadline = time.monotonic() + WAIT_S
        while True:
            told = json.loads(self._connection.recv(max(0.0, deadline - time.monotonic())))
            if told.get("id") == self._number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                result: dict[str, Any] = told["result"]
                return result
            self._note(told.get("method", ""), told.get("params", {}))

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(told["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.faults.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.faults.append(str(told["args"]))

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def js(self, expression: str, **options: Any) -> Any:
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **options)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{expression}: {told['exceptionDetails']}")
        return told["result"].get("value")

    def gesture(self, expression: str) -> None:
        """Do it as a person does: some things are refused to scripts alone."""
        self.js(f"{{ {expression} }}", userGesture=True)

    def click(self, words: str) -> None:
        """The button that says so, once it is there."""
        button = f"[...document.querySelectorAll('button')].find((one) => one.innerText === {words!r})"
        self.wait(f"{button}?.checkVisibility()", words)
        self.gesture(f"{button}.click()")

    def wait(self, expression: str, what: str) -> Any:
        """The expression's value when it is something. Raises AssertionError after WAIT_S."""
        deadline = time.monotonic() + WAIT_S
        while not (value := self._soon(expression)) and value != {}:  # {} stands for a node
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {self.js('document.body.innerText')[:300]}; {self.faults}")
        return value

    def _soon(self, expression: str) -> Any:
        """Its value as soon as that is something, or after LOOK_S; None if another page has come."""
        try:
            return self.js(
                f"(async () => {{ const end = performance.now() + {LOOK_S * 1000}; let value;"
                f" while (!(value = await ({expression})) && performance.now() < end)"
                " await new Promise((go) => setTimeout(go, 50)); return value; })()"
            )
        except RuntimeError as error:
            if not any(words in str(error) for words in LEFT):
                raise
            time.sleep(0.05)
            return None

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window in pixels, and whether the person prefers dark or light."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **more)

    def shot(self) -> bytes:
        """What is seen, as JPEG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="jpeg", quality=85)["data"])


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a browser with a profile of its own, which are gone afterwards."""
    if PROGRAM is None:
        raise AssertionError(MISSING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", f"--crash-dumps-dir={profile}", "about:blank"]
        environment = {"HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile, "PATH": "/usr/bin:/bin"}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, start_new_session=True) as process:
            try:
                with connect(_address(Path(profile), process), proxy=None, max_size=MAX_MESSAGE) as connection:
                    yield Page(connection)
                    _close(connection)
            finally:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # of its own session: its helpers with it


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    file, deadline = profile / "DevToolsActivePort", time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and len(lines := file.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError("the browser does not start")


def _close(connection: Connection) -> None:
    connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
