"""The page in a real browser: by every window, eye, keyboard and screen reader."""

from pathlib import Path

import pytest

from localdev.browser import MISSING, PROGRAM, Page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

VIEWS = ["#/", "#/cameras", "#/pipelines", "#/devices", "#/camera/door", "#/pipeline/faces"]
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


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


def test_the_keyboard_reaches_content_first_and_every_part(loaded: Page) -> None:
    loaded.press("Tab")
    assert loaded.js("document.activeElement.id") == "skip"
    loaded.press("Enter")
    loaded.wait("document.activeElement.id === 'main'", "the content in focus")
    reached = set()
    for _ in range(12):
        loaded.press("Tab")
        reached.add(loaded.js("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert {"#/camera/door", "#/pipeline/faces"} <= reached
    assert loaded.js("getComputedStyle(document.activeElement).outlineStyle !== 'none'")


def test_nothing_leaves_the_device_and_nothing_fails(page: Page, base: str) -> None:
    with page.overhear():
        page.open("about:blank")  # so that all is loaded anew
        for view in VIEWS:
            page.open(f"{base}/{view}")
            page.wait("document.querySelector('main')?.children.length > 0", view)
    host = base.removeprefix("http://")
    assert any(each.startswith(f"ws://{host}/") for each in page.requests)
    outside = [each for each in page.requests if host not in each and not each.startswith(("blob:", "data:", "about:"))]
    assert outside == []
    assert page.faults == []
