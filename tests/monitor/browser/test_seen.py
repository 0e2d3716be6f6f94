"""The page in a real browser: what a person sees."""

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from edgeml.frames import FrameWriter
from localdev.browser import MISSING, PROGRAM, Page
from monitor_scene import BOX, MARKUP, SIZE, report, result
from monitor_support import QUIET, address_of
from pictures_support import JPEG
from support import Standalone, eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

COLOURED = (Path(__file__).parent / "coloured.js").read_text(encoding="utf-8")


def test_the_overview_says_what_needs_attention_and_what_there_is(page: Page) -> None:
    seen = page.js("document.querySelector('main').innerText")
    for words in ("iot_core: unreachable", "no route to host", "Look at the network", "door", "faces", "LogShipper"):
        assert words in seen
    assert not page.js("document.querySelector('.well:not([hidden])') !== null")
    page.wait("document.querySelector('[data-camera=door]').dataset.frame > 0", "a picture in the camera's tile")


def test_how_the_device_does_is_seen(page: Page) -> None:
    """All machines have memory; what is seen of it has a name, and a value with its unit."""
    row = page.wait(
        "document.querySelector('.vitals > div')?.checkVisibility() && document.querySelector('.vitals').innerText",
        "vitals",
    )
    assert re.search(r"memory.*\n+[0-9.]+ .?(B|%)", row, re.IGNORECASE), row


@pytest.mark.parametrize("view", ["#/", "#/camera/door"])
def test_motion_is_seen_with_its_beginning(page: Page, view: str) -> None:
    page.open(page.js("location.origin") + "/" + view)
    seen = page.wait("document.querySelector('.motion')?.innerText", "motion")
    assert re.fullmatch(r"Motion since \d\d:\d\d:\d\d", seen)


def test_an_anomalous_feature_is_named_with_value_and_threshold(page: Page, device: Standalone) -> None:
    found = {"anomalies": [False, True], "values": [0.1, 0.52], "thresholds": [1, 0.31]}
    anomaly = result(1, 1) | {"pipeline": "turbine", "task": "anomaly", "source": {"topic": "t"}}
    device.send("edgeml/inference/turbine", anomaly | {"results": found | {"features": ["yaw", "voltage"]}})
    words = "anomaly: voltage 0.52 (threshold 0.31)"
    page.wait(f"document.querySelector('main').innerText.includes({words!r})", "the pipeline's tile")
    page.open(page.js("location.origin") + "/#/pipeline/turbine")
    page.wait(f"document.querySelector('td + td')?.innerText === {words!r}", "the result in the pipeline's view")
    page.wait(
        "document.querySelector('figure:not(.asked)')?.innerText.includes('voltage limit')", "its line in the chart"
    )


def test_the_picture_of_a_request_is_shown_with_its_name(page: Page, device: Standalone, asked: Path) -> None:
    file = asked / MARKUP.replace("/", "")
    file.write_bytes(JPEG)
    source = {"topic": "local/inference", "file": str(file), "captured_at": time.time()}
    device.send("edgeml/inference/asked", result(1, 1) | {"pipeline": "asked", "source": source})
    page.wait("document.querySelector('main').innerText.includes('asked')", "the pipeline's tile")
    page.open(page.js("location.origin") + "/#/pipeline/asked")
    page.wait("document.querySelector('.asked:not([hidden]) img')?.naturalWidth === 80", "the picture")
    assert page.js("document.querySelector('.asked').innerText") == file.name
    assert page.js("document.title") != "1"
    assert page.faults == []


def test_markup_stays_text(page: Page) -> None:
    page.wait(f"document.querySelector('main').innerText.includes({MARKUP!r})", "the problem's text")
    page.open(page.js("location.origin") + "/#/camera/door")
    page.wait(f"document.querySelector('main').innerText.includes({MARKUP!r})", "the label")
    assert page.js("document.querySelectorAll('main img').length") == 0
    assert page.js("document.title") != "1"


# Of the camera's frame, where a view has one.
FRAME = "document.querySelector('[data-camera=odd], .camera-view')?.dataset.frame"
ODD: list[Any] = [
    None, 1, "x", [], {}, {"label": None, "score": "x", "box": [1, 2, 3, 4], "landmarks": [None, [1], "x", [1, None]]},
    {"label": {}, "score": 1e308, "box": [1e308, -1e308, 1e308, 1e308]}, {"box": [1, 2, 3]}, {"landmarks": 5, "box": 7},
]  # fmt: skip


def test_markup_in_any_string_stays_text(page: Page, device: Standalone) -> None:
    """Names, versions, words, units: all that components say of themselves and others."""
    name = MARKUP.replace("/", "")
    problem = {"code": MARKUP, "subject": MARKUP, "text": MARKUP, "since": 1.0, "advice": MARKUP}
    told = report(MARKUP, rates={MARKUP: 1.0}, notes={MARKUP: MARKUP}, problems=[problem], last_error=MARKUP)
    device.send(f"edgeml/health/{name}", told | {"version": MARKUP})
    status = {"model": MARKUP, "version": MARKUP, "status": "updating", "component": MARKUP, "step": MARKUP}
    device.send(f"edgeml/model/{name}/status", status | {"reason": MARKUP})
    device.send(
        f"edgeml/serial/{name}/record", {"port": MARKUP, "at": 1.0, "format": MARKUP, "record": {MARKUP: MARKUP}}
    )
    found = {"anomalies": [True], "values": [2], "thresholds": [1], "features": [MARKUP]}
    model = {"name": MARKUP, "version": MARKUP}
    odd = result(1, 1) | {"pipeline": MARKUP, "model": model, "task": MARKUP, "device": MARKUP, "error": ""}
    odd |= {"source": {"topic": MARKUP, "file": f"/{MARKUP}"}, "results": found}
    device.send(f"edgeml/inference/{name}", odd)
    event = {"event": MARKUP, "id": MARKUP, "pipeline": MARKUP, "device": MARKUP, "at": 1.0, "label": MARKUP}
    device.send(f"edgeml/event/{name}", event | {"zone": MARKUP, "line": MARKUP, "direction": MARKUP})
    for view in ("#/", "#/pipelines", "#/devices", f"#/pipeline/{quote(name)}"):
        page.open(page.js("location.origin") + "/" + view)
        page.wait(f"document.querySelector('main').innerText.includes({MARKUP!r})", f"the markup as text in {view}")
        assert page.js("document.querySelectorAll('main img:not(.asked img)').length") == 0, view
        assert page.js("document.title.startsWith('1')") is False, view
    assert page.faults == []


@pytest.mark.parametrize("view", ["#/", "#/camera/odd", "#/pipeline/odd"])
def test_results_of_any_shape_stop_no_picture(page: Page, device: Standalone, rings: Path, view: str) -> None:
    """Whoever may publish results says what he likes, of the very frames that are shown, too."""
    shapes: list[Any] = [ODD, None, 5, "x", {"anomalies": [None, True], "values": 3}, {"values": [None]}]
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    with FrameWriter("odd", width=SIZE[0], height=SIZE[1], directory=rings) as camera:

        def told(found: Any) -> None:
            at_ns = time.time_ns()
            frame_id = camera.write(picture, wall_ns=at_ns)
            odd = result(frame_id, at_ns) | {"pipeline": "odd", "results": found}
            odd["source"]["camera"] = "odd"
            device.send("edgeml/inference/odd", odd)

        told([])
        page.open(page.js("location.origin") + "/" + view)
        page.wait("document.querySelector('main')?.innerText.includes('odd')", "the view")
        for number, found in enumerate([*shapes, {"value": "x"}]):
            before, words = page.js(FRAME), f"number{number}"

            def goes_on(found: Any = found, before: Any = before, words: str = words) -> bool:
                told(found)
                told([{"label": words, "score": 0.5}])
                time.sleep(0.1)  # the page tells of states less often
                if not page.js(f"document.querySelector('main').innerText.includes({words!r})"):
                    return False
                return view.startswith("#/pipeline") or bool(page.js(FRAME) != before)

            eventually(goes_on, 10, f"what comes after {found!r}")
    assert page.faults == []


def test_the_box_is_drawn_on_its_frame(page: Page) -> None:
    """The picture is grey; what stands out in colour is the box, where the detector saw it."""
    page.open(page.js("location.origin") + "/#/camera/door")
    page.wait("document.querySelector('.found li')", "a picture with its result")
    found = page.js(COLOURED)
    left, right, bottom = found
    assert left == pytest.approx(BOX[0] / SIZE[0], abs=0.02)
    assert right >= (BOX[0] + BOX[2]) / SIZE[0] - 0.02
    assert bottom == pytest.approx((BOX[1] + BOX[3]) / SIZE[1], abs=0.02)
    assert "ms from capture to page" in page.js("document.querySelector('main').innerText")


def test_a_camera_can_be_paused_by_key(page: Page) -> None:
    page.open(page.js("location.origin") + "/#/camera/door")
    page.wait("document.querySelector('.camera-view')?.dataset.frame > 0", "a picture")
    page.js("dispatchEvent(new KeyboardEvent('keydown', {key: 'p'}))")
    assert page.wait("document.querySelector('[aria-pressed=true]')?.innerText", "the button") == "Go on"
    page.js("dispatchEvent(new KeyboardEvent('keydown', {key: 'p'}))")
    before = page.js("document.querySelector('.camera-view').dataset.frame")
    page.wait(f"document.querySelector('.camera-view').dataset.frame != {before}", "the next picture")


def test_who_has_no_session_signs_in(tab: Page, tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path) as running:
        base = address_of(running)
        tab.open(f"{base}/")
        tab.wait("document.readyState === 'complete' && document.querySelector('#password')", "the form")
        give = (
            "(p) => { document.querySelector('#password').value = p; document.querySelector('button.main').click(); }"
        )
        tab.js(f"({give})('wrong password')")
        assert "password" in tab.wait("document.querySelector('#refused').innerText", "the refusal").lower()
        tab.js(f"({give})({(tmp_path / 'password').read_text().strip()!r})")
        tab.wait("document.querySelector('main#main')", "the page")
        assert tab.js("document.cookie") == ""  # HttpOnly: no script reads it
        tab.js("document.querySelector('#out button').click()")
        tab.wait("document.querySelector('#password')", "the form again")
