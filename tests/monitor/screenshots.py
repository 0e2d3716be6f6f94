"""Makes the pictures of the page that READMEs show, in components/monitor/screenshots.

    .venv/bin/python tests/monitor/screenshots.py

A real browser looks at a real Monitor. The camera shows a picture that is in the public domain, and what
FaceDetectorFast finds in it; the health of the components is made up.
"""

import math
import tempfile
import threading
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np

from benchmarks.bundles import installed
from bundles.fetch import SCIKIT_IMAGE, member
from edgeml import models
from edgeml.frames import FrameWriter
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.tasks.runner import Runner
from inferencer_support import pipeline, sample
from localdev.browser import Page, browser
from monitor_scene import FPS, SIZE, result, told
from monitor_support import QUIET
from support import ROOT, Standalone, eventually

SIZES = {"wide": (1280, 800), "phone": (390, 800)}
PICTURE = "skimage/data/astronaut.png"  # Eileen Collins, by NASA
THING = {"AWS_IOT_THING_NAME": "press-7"}
VIEWS = {"overview": "#/", "camera": "#/camera/door"}
SHOTS = (
    ("overview", "wide", "light"), ("overview", "wide", "dark"), ("overview", "phone", "light"),
    ("camera", "wide", "light"), ("camera", "wide", "dark"), ("camera", "phone", "dark"),
)  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    with (
        installed("face_detector_fast") as root,
        tempfile.TemporaryDirectory() as work,
        tempfile.TemporaryDirectory() as rings,
        Standalone("monitor", {**QUIET, "auth": "off", "ring_directory": rings}, Path(work), env=THING) as running,
        FrameWriter("door", width=SIZE[0], height=SIZE[1], directory=Path(rings)) as writer,
    ):
        bundle = models.load(models.component_folder(root, "FaceDetectorFast"))
        backend = OnnxBackend(model="FaceDetectorFast")
        session = models.open_session(bundle, threads=1)
        runner = runner_of(bundle, session, pipeline(backend, CameraSource(camera="door")))
        camera = threading.Thread(target=play, args=(running, writer, runner, over))
        camera.start()
        try:
            eventually(lambda: "address=http://" in running.log, what="the page's address")
            base = running.log.partition("address=")[2].split()[0]
            with browser() as page:
                for view, size, scheme in SHOTS:
                    shot = taken(page, f"{base}{VIEWS[view]}", SIZES[size], scheme)
                    (folder / f"{view}-{size}-{scheme}.jpg").write_bytes(shot)
        finally:
            over.set()
            camera.join(10)


def play(running: Standalone, writer: FrameWriter, runner: Runner, over: threading.Event) -> None:
    """The picture, swaying, and what the model finds in each frame."""
    portrait = cv2.imdecode(np.frombuffer(member(SCIKIT_IMAGE, PICTURE), np.uint8), cv2.IMREAD_COLOR)
    wide = cv2.resize(np.asarray(portrait), (SIZE[0], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    number = 0
    while not over.wait(1 / FPS):
        sway = np.array([[1, 0, 12 * math.sin(number / 9)], [0, 1, -90 + 6 * math.cos(number / 7)]])
        image = cv2.warpAffine(wide, sway, SIZE, borderMode=cv2.BORDER_REFLECT)
        if number % (5 * FPS) == 0:
            told(running, "mqtt: no route to host")
        number += 1
        at_ns = time.time_ns()
        frame_id = writer.write(np.asarray(image, np.uint8), wall_ns=at_ns)
        outcome = runner.infer(sample(image))
        found = outcome.results if outcome else []
        message = result(frame_id, at_ns)
        message["results"] = [msgspec.to_builtins(one) for one in found]
        running.send("edgeml/inference/faces", message)


def taken(page: Page, address: str, size: tuple[int, int], scheme: str) -> bytes:
    page.look(*size, scheme)
    page.open("about:blank")
    page.open(address)
    page.wait("document.querySelector('[data-frame]')", "a picture")
    time.sleep(12)  # for the sparklines to have something to show
    return page.shot()


if __name__ == "__main__":
    main(ROOT / "components" / "monitor" / "screenshots")
