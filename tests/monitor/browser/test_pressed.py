"""The page in a real browser: what a person presses, and what goes on by itself."""

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.frames import FrameWriter
from localdev.browser import MISSING, PROGRAM, Page
from monitor_scene import MARKUP, SIZE, report, result
from monitor_support import QUIET, address_of
from support import Standalone, eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

FRAMES = (
    "Object.fromEntries("
    "[...document.querySelectorAll('[data-camera]')].map((one) => [one.dataset.camera, one.dataset.frame]))"
)


def opened(page: Page, view: str) -> None:
    page.js(f"location.hash = {view!r}")


def test_the_picture_fills_the_screen_and_goes_back(page: Page) -> None:
    opened(page, "#/camera/door")
    page.wait("document.querySelector('.camera-view')?.dataset.frame > 0", "a picture")
    page.click("Full screen")
    page.wait("document.fullscreenElement?.className.includes('frame')", "the picture as large as the screen")
    before = page.js("document.querySelector('.camera-view').dataset.frame")
    page.wait(f"document.querySelector('.camera-view').dataset.frame > {before}", "the next picture")
    page.gesture("dispatchEvent(new KeyboardEvent('keydown', {key: 'f'}))")
    page.wait("document.fullscreenElement === null", "the page again")


def test_a_snapshot_is_a_file_of_the_picture_with_its_boxes(page: Page, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened(page, "#/camera/door")
    page.wait("document.querySelector('.found li')", "a picture with its result")
    page.wait("document.querySelector('.camera-view canvas').width === 960", "one that is not a tile's")
    page.click("Snapshot")
    (file,) = eventually(lambda: list(tmp_path.glob("door-*.png")), what="the file")
    image = np.asarray(cv2.imread(str(file)))
    assert image.shape[:2] == (540, 960)
    assert np.ptp(image.astype(int), axis=2).max() > 50  # the camera's picture is grey, boxes are not


def test_another_threshold_is_tried_and_copied(page: Page) -> None:
    opened(page, "#/pipeline/faces")
    page.wait("document.querySelector('#threshold')?.checkVisibility()", "the slider")
    assert " of " in page.wait("document.querySelector('output')?.innerText", "what is found")
    page.js(
        "{ const slider = document.querySelector('#threshold'); slider.value = 0.95;"
        " slider.dispatchEvent(new Event('input')); }"
    )
    assert page.js("document.querySelector('output').innerText").startswith("At 0.95: 0 of ")
    page.click("Copy")
    page.wait("/Configuration (copied|selected)/.test(document.querySelector('#said').innerText)", "the answer")
    told = json.loads(page.js("document.querySelector('pre').innerText"))
    assert told == {"pipelines": {"faces": {"score_threshold": 0.95}}}


def test_an_update_is_seen_as_it_gets_on(page: Page, device: Standalone) -> None:
    status = {"model": "Wind", "version": "3.1.0", "component": "edgeml.ModelUpdater"}
    tile = "[...document.querySelectorAll('section[aria-label=Models] li')].find((li) => li.innerText.includes('Wind'))"
    for more, words, bar in (
        ({"status": "updating", "step": "download", "progress": 0.62}, "download · 62 %", 0.62),
        ({"status": "updating", "step": "probe"}, "probe", None),
        ({"status": "failed", "reason": MARKUP}, MARKUP, None),
    ):
        device.send("edgeml/model/Wind/status", status | more)
        page.wait(f"{tile}?.innerText.includes({words!r})", words)
        assert page.js(f"{tile}.querySelector('progress').getAttribute('value')") == (str(bar) if bar else None) or (
            more["status"] == "failed" and not page.js(f"{tile}.querySelector('progress').checkVisibility()")
        )


def test_why_no_picture_of_a_request_is_shown(page: Page, device: Standalone) -> None:
    source = {"topic": "local/inference", "file": "/nowhere/1.jpg", "captured_at": time.time()}
    device.send("edgeml/inference/hides", result(1, 1) | {"pipeline": "hides", "source": source})
    opened(page, "#/pipeline/hides")
    page.wait("document.querySelector('main').innerText.includes('not below request_dirs')", "that it is not there")
    privacy = [{"pipeline": "hides", "camera": "", "method": "blur"}]

    def told_why() -> bool:  # the component's reports, which go on meanwhile, say nothing of it
        device.send("edgeml/health/Inferencer", report("edgeml.Inferencer", privacy=privacy))
        return bool(page.js("document.querySelector('main').innerText.includes('this pipeline has privacy')"))

    eventually(told_why, what="why not")


def test_what_devices_say_are_told_and_answer(page: Page, device: Standalone) -> None:
    opened(page, "#/devices")
    record = {"port": "mcu", "at": time.time(), "format": "jsonl", "record": {"power": 231.5, "text": MARKUP}}
    device.send("edgeml/serial/mcu/record", record)
    line = page.wait("document.querySelector('[data-source=mcu] li')?.innerText", "the record")
    assert json.loads(line.split("\n", 1)[1]) == record["record"]
    said = page.js(
        "import('/static/devices.js').then(({ DevicesView }) => { const view = new DevicesView();"
        "for (const what of ['command', 'answer', 'said'])"
        " view.record({ kind: 'serial', source: 'mcu', what, record: { what } });"
        "const words = (li) => [...li.children].slice(1).map((one) => one.textContent);"
        "return [...view.node.querySelectorAll('li')].map(words); })"
    )
    assert said == [['{"what":"said"}'], ["Answer", '{"what":"answer"}'], ["Command", '{"what":"command"}']]


def test_eight_cameras_at_once_all_go_on(page: Page, rings: Path) -> None:
    """Browsers allow six connections to a host: what the page shows comes by one."""
    names = [f"side-{number}" for number in range(7)]
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    with ExitStack() as cameras:
        rest = [
            cameras.enter_context(FrameWriter(name, width=SIZE[0], height=SIZE[1], directory=rings)) for name in names
        ]
        seen: dict[str, set[str]] = {}

        def advanced() -> bool:
            for camera in rest:
                camera.write(picture)
            for name, frame in page.js(FRAMES).items():
                if frame:
                    seen.setdefault(name, set()).add(frame)
            return len(seen) == 8 and min(map(len, seen.values())) >= 4  # three more than the first

        eventually(advanced, 30, "three frames of each camera")
    assert page.faults == []


def test_a_monitor_that_begins_anew_is_seen_without_loading_the_page_again(tab: Page, tmp_path: Path) -> None:
    """And who has signed in stays so: a page on a wall goes on."""
    tab.faults.clear()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = {**QUIET, "port": free.getsockname()[1]}
    with Standalone("monitor", config, tmp_path) as running:
        tab.open(f"{address_of(running)}/")
        tab.wait("document.readyState === 'complete' && document.querySelector('#password')", "the form")
        signs_in(tab, (tmp_path / "password").read_text().strip())
        tab.wait("document.querySelector('#link')?.innerText === 'Live'", "the page")
        tab.js("window.same = true")
        running.process.kill()
    tab.wait("document.querySelector('#link').innerText === 'Reconnecting'", "that it is away")
    with Standalone("monitor", config, tmp_path) as running:
        tab.wait("document.querySelector('#link')?.innerText === 'Live'", "the page again")
        running.send("edgeml/health/LogShipper", report("edgeml.LogShipper"))
        tab.wait("document.querySelector('main').innerText.includes('LogShipper')", "what is new")
        assert tab.js("window.same") is True
    tab.open("about:blank")


def signs_in(page: Page, password: str) -> None:
    page.js(f"document.querySelector('#password').value = {password!r}")
    page.js("document.querySelector('button.main').click()")
