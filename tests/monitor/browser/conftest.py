"""A device with a camera, a pipeline and problems, and a browser that looks at its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from localdev.browser import Page, browser
from monitor_scene import MARKUP, moving
from monitor_support import QUIET, address_of
from support import Standalone


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of requests."""
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, rings: Path, asked: Path) -> Iterator[Standalone]:
    seen = {"skip": [check for check in QUIET["vitals"]["skip"] if check != "memory"]}
    config = {**QUIET, "vitals": seen, "auth": "off", "ring_directory": str(rings), "request_dirs": [str(asked)]}
    with (
        Standalone("monitor", config, tmp_path_factory.mktemp("monitor")) as running,
        moving(running, rings, label=MARKUP),
    ):
        yield running


@pytest.fixture(scope="session")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def base(device: Standalone, tab: Page) -> Iterator[str]:
    yield address_of(device)
    tab.open("about:blank")  # which asks nothing of a device that ends


@pytest.fixture
def page(tab: Page, base: str) -> Page:
    """The overview of a device that has told of itself, on a laptop; its page is loaded once for a module."""
    tab.faults.clear()
    tab.look(1280, 800)
    tab.open(f"{base}/#/devices")
    tab.wait("document.querySelector('main h1') && !document.querySelector('.problem')", "another view")
    return overview(tab, base)


@pytest.fixture
def loaded(page: Page, base: str) -> Page:
    """The same, of a page that has just been loaded."""
    page.open("about:blank")
    return overview(page, base)


def overview(tab: Page, base: str) -> Page:
    tab.open(f"{base}/#/")
    tab.wait("document.querySelector('.problem') && document.querySelector('[data-camera=door]')", "the overview")
    return tab
