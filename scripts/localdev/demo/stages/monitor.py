"""The device's own page: what it shows of the camera while the others work, asked for as a browser does."""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

import cv2
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from localdev.browser import PROGRAM, browser
from localdev.demo.stage import Configuration, Evidence, Stage, Window
from localdev.demo.stages.faces import CAMERA

PIPELINE = "faces"
AGAIN_S = 1.0
WINDOW = 1280, 800
CLIP_PICTURES, CLIP_FPS = 30, 10
TIMEOUT_S = 10.0
WANTED = ("state", "pictures", "boxes", "stream", "metrics")


class Monitor(Stage):
    name = "monitor"
    title = "the device in a browser: pictures with their boxes"
    needs = ("inferencer",)

    def configuration(self) -> Configuration:
        return {"monitor": {"port": 0, "ring_directory": str(self.world.rings)}}

    def begin(self) -> None:
        self.address = ""
        self._published: dict[int, Any] = {}  # what the pipeline said of each frame, by its id
        self._latency = Window()
        self._seen = dict.fromkeys(WANTED, 0)
        self._unlike = 0
        self._components = 0
        self._picture: Path | None = None
        self._shot: Path | None = None
        self._over = threading.Event()
        self.world.hear(f"edgeml/inference/{PIPELINE}", self._result)
        self._page = threading.Thread(target=self._look, name="demo-page", daemon=True)
        self._page.start()

    @property
    def password_file(self) -> Path:
        return self.world.root / "work" / "edgeml.Monitor" / "password"

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        self._published[result["source"]["frame_id"]] = result["results"]

    def progress(self) -> str:
        return f"{self.address} {self._seen['pictures']} pictures, p50 {self._latency.percentile(50):.0f} ms"

    def finish(self) -> None:
        """Fetch what other people's tools would, and keep a picture and a clip."""
        self._over.set()
        self._page.join(TIMEOUT_S)
        with contextlib.suppress(OSError):
            self._seen["metrics"] = self._get("metrics").count(b"\nedgeml_")
        with contextlib.suppress(OSError):
            pictures = list(self._streamed())
            self._seen["stream"] = len(pictures)
            if pictures:
                self._picture = self.world.output / "monitor.jpg"
                self._picture.write_bytes(pictures[-1])
                clip(pictures, self.world.output / "monitor.avi")
        if PROGRAM is not None and self._seen["state"]:
            with contextlib.suppress(OSError, RuntimeError, AssertionError, WebSocketException):
                self._shot = self._shown_page()

    def evidence(self) -> Evidence:
        figures: dict[str, Any] = {"address": self.address, **self._seen, "components": self._components}
        figures |= {"latency_p50_ms": round(self._latency.percentile(50), 1), "boxes_unlike": self._unlike}
        if self._picture is not None:
            figures |= {"picture": str(self._picture), "clip": str(self._picture.with_suffix(".avi"))}
        figures["page"] = str(self._shot) if self._shot else "no browser to show it" if PROGRAM is None else "not shown"
        missing = [name for name, count in self._seen.items() if not count]
        if self._unlike:
            missing.append("boxes that equal the published results")
        return Evidence(not missing, figures, f"the page did not show: {', '.join(missing)}")

    def end(self) -> None:
        if hasattr(self, "_over"):
            self._over.set()

    def _look(self) -> None:
        """Be a page until the time is over; one whose connection ends comes back, as a browser's does."""
        while not self._over.wait(AGAIN_S):
            with contextlib.suppress(OSError, WebSocketException, ValueError):
                self.address = self._told()
                if self.address:
                    self._sign_in()
                    self._watch()

    def _told(self) -> str:
        """The page's address, as the component's log tells it."""
        found = re.findall(r"page address=(http://127\.0\.0\.1:\d+/)", self.world.core.log("edgeml.Monitor"))
        return found[-1] if found else ""

    def _sign_in(self) -> None:
        self._cookies = CookieJar()
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))
        form = urlencode({"password": self.password_file.read_text().strip()}).encode()
        self._opener.open(f"{self.address}sign-in", form, timeout=TIMEOUT_S).close()

    def _get(self, path: str) -> bytes:
        with self._opener.open(f"{self.address}{path}", timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read()
        return body

    def _watch(self) -> None:
        """Raises OSError and WebSocketException when the connection ends."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)
        url = f"ws://{urlsplit(self.address).netloc}/ws"
        with connect(url, additional_headers={"Cookie": cookies}, proxy=None, open_timeout=TIMEOUT_S) as page:
            page.send(json.dumps({"watch": {CAMERA: {"max_width": 960}}, "follow": [PIPELINE]}))
            while not self._over.is_set():
                try:
                    message = page.recv(AGAIN_S)
                except TimeoutError:
                    continue
                if isinstance(message, bytes):
                    header = self._shown(message)
                    page.send(json.dumps({"shown": {"camera": CAMERA, "frame_id": header["frame_id"]}}))
                elif (told := json.loads(message))["type"] == "state":
                    self._seen["state"] += 1
                    self._components = len(told["state"]["components"])

    def _shown(self, message: bytes) -> dict[str, Any]:
        """Count a picture, and compare what is drawn on it with what was published of that frame."""
        length = int.from_bytes(message[:4], "big")
        header: dict[str, Any] = json.loads(message[4 : 4 + length])
        self._seen["pictures"] += 1
        self._latency.add((time.time() - header["captured_at"]) * 1000)
        for each in header["results"]:
            if each["pipeline"] == PIPELINE and (published := self._published.get(header["frame_id"])) is not None:
                self._seen["boxes"] += bool(published)
                self._unlike += each["result"]["results"] != published
        return header

    def _shown_page(self) -> Path:
        """What a browser shows to who has signed in, once it has a picture. Raises what a browser can fail with."""
        with browser() as page:
            page.look(*WINDOW)
            page.open(f"{self.address}sign-in")
            page.wait("document.readyState === 'complete' && document.querySelector('#password')", "the form")
            page.js(f"document.querySelector('#password').value = {self.password_file.read_text().strip()!r}")
            page.js("document.querySelector('button.main').click()")
            first = page.wait("document.querySelector('[data-frame]')?.dataset.frame", "a picture")
            page.wait(f"document.querySelector('[data-frame]').dataset.frame !== {first!r}", "one with its boxes")
            shot = self.world.output / "monitor-page.jpg"
            shot.write_bytes(page.shot())
        return shot

    def _streamed(self) -> Iterator[bytes]:
        """Some pictures of the MJPEG stream, boxes and all."""
        with self._opener.open(f"{self.address}camera/{CAMERA}.mjpeg", timeout=TIMEOUT_S) as stream:
            for _ in range(CLIP_PICTURES):
                length = 0
                while line := stream.readline().strip().lower():
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                yield stream.read(length)
                stream.readline()


def clip(pictures: list[bytes], path: Path) -> None:
    """A film of JPEGs that are all of one size."""
    images = [np.asarray(cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)) for each in pictures]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), CLIP_FPS, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
