"""The page in a real browser: what a person sees, hears and presses."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import browser_support
from browser_support import Page, browser
from monitor_scene import BOX, MARKUP, SIZE, moving, result
from monitor_support import QUIET
from pictures_support import JPEG
from support import Standalone, eventually

pytestmark = pytest.mark.skipif(browser_support.PROGRAM is None, reason=browser_support.MISSING)

VIEWS = ["#/", "#/cameras", "#/pipelines", "#/devices", "#/camera/door", "#/pipeline/faces"]


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rings")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of requests."""
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, rings: Path, asked: Path) -> Iterator[Standalone]:
    seen = {"skip": [check for check in QUIET["vitals"]["skip"] if check != "memory"]}
    config = {**QUIET, "vitals": seen, "auth": "off", "ring_directory": str(rings), "request_dirs": [str(asked)]}
    with (
        Standalone("monitor", config, tmp_path_factory.mktemp("monitor")) as running,
        moving(running, rings, label=MARKUP),
    ):
        yield running


@pytest.fixture(scope="module")
def base(running: Standalone) -> str:
    return address(running)


def address(running: Standalone) -> str:
    eventually(lambda: "address=http://" in running.log, what="the page's address")
    return running.log.partition("address=")[2].split()[0].rstrip("/")


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(tab: Page, base: str) -> Page:
    """The overview of a device that has told of itself, on a laptop."""
    tab.requests.clear()
    tab.faults.clear()
    tab.look(1280, 800)
    tab.open("about:blank")
    tab.open(f"{base}/#/")
    tab.wait("document.querySelector('.problem') && document.querySelector('[data-camera=door]')", "the overview")
    return tab


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


def test_an_anomalous_feature_is_named_with_value_and_threshold(page: Page, running: Standalone) -> None:
    found = {"anomalies": [False, True], "values": [0.1, 0.52], "thresholds": [1, 0.31]}
    anomaly = result(1, 1) | {"pipeline": "turbine", "task": "anomaly", "source": {"topic": "t"}}
    running.send("edgeml/inference/turbine", anomaly | {"results": found | {"features": ["yaw", "voltage"]}})
    words = "anomaly: voltage 0.52 (threshold 0.31)"
    page.wait(f"document.querySelector('main').innerText.includes({words!r})", "the pipeline's tile")
    page.open(page.js("location.origin") + "/#/pipeline/turbine")
    page.wait(f"document.querySelector('td + td')?.innerText === {words!r}", "the result in the pipeline's view")
    page.wait(
        "document.querySelector('figure:not(.asked)')?.innerText.includes('voltage limit')", "its line in the chart"
    )


def test_the_picture_of_a_request_is_shown_with_its_name(page: Page, running: Standalone, asked: Path) -> None:
    file = asked / MARKUP.replace("/", "")
    file.write_bytes(JPEG)
    source = {"topic": "local/inference", "file": str(file), "captured_at": time.time()}
    running.send("edgeml/inference/asked", result(1, 1) | {"pipeline": "asked", "source": source})
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


@pytest.mark.parametrize("width", [360, 768, 1280, 3840])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.look(width, 800)
    for view in VIEWS:
        page.open(page.js("location.origin") + "/" + view)
        page.wait("document.querySelector('main').children.length > 0", view)
        assert page.js("document.scrollingElement.scrollWidth") <= width, view


def test_dark_and_light_are_the_persons_choice(page: Page) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page.look(1280, 800, scheme)
        shades[scheme] = page.js("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]")
    assert shades["light"] > 200
    assert shades["dark"] < 60


COLOURED = (Path(__file__).parent / "coloured.js").read_text(encoding="utf-8")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: text stands out from what is behind it by 4.5 to 1."""
    page.look(1280, 800, scheme)
    for view in VIEWS:
        page.open(page.js("location.origin") + "/" + view)
        page.wait("document.querySelector('main').children.length > 0", view)
        assert page.js(CONTRAST) == [], view


def test_a_screen_reader_gets_a_name_for_everything(page: Page) -> None:
    for view in VIEWS:
        page.open(page.js("location.origin") + "/" + view)
        page.wait("document.querySelector('main').children.length > 0", view)
        nameless = page.js(
            "[...document.querySelectorAll('a, button, input, canvas, [role=img], progress, section')]"
            ".filter((one) => one.checkVisibility() && one.getAttribute('aria-hidden') !== 'true' && !("
            "one.getAttribute('aria-label') || one.innerText?.trim() || one.labels?.length))"
            ".map((one) => one.outerHTML)"
        )
        assert nameless == [], view
        assert page.js("document.querySelectorAll('h1').length") == 1, view
        assert page.js("document.documentElement.lang") == "en"


def test_the_keyboard_reaches_content_first_and_every_part(page: Page) -> None:
    page.press("Tab")
    assert page.js("document.activeElement.id") == "skip"
    page.press("Enter")
    page.wait("document.activeElement.id === 'main'", "the content in focus")
    reached = set()
    for _ in range(12):
        page.press("Tab")
        reached.add(page.js("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert {"#/camera/door", "#/pipeline/faces"} <= reached
    assert page.js("getComputedStyle(document.activeElement).outlineStyle !== 'none'")


def test_nothing_leaves_the_device_and_nothing_fails(page: Page, base: str) -> None:
    for view in VIEWS:
        page.open(f"{base}/{view}")
        page.wait("document.querySelector('main').children.length > 0", view)
    host = base.removeprefix("http://")
    outside = [each for each in page.requests if host not in each and not each.startswith(("blob:", "data:", "about:"))]
    assert outside == []
    assert page.faults == []


def test_who_has_no_session_signs_in(tab: Page, tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path) as running:
        base = address(running)
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
