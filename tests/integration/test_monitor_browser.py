"""A page in a real browser, of a Monitor on a core whose components are stopped, started and killed."""

import os
import signal
import socket
from pathlib import Path

import pytest

from integration.conftest import Start
from integration.test_monitor import page as address_of
from localdev.browser import MISSING, PROGRAM, Page, browser
from localdev.core import LocalCore
from monitor_support import QUIET
from support import eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

NEIGHBOURS = ("edgeml.CameraCapture", "edgeml.ModelUpdater", "edgeml.SerialScraper")
MONITOR = "edgeml.Monitor"


def test_a_page_goes_on_whatever_is_killed_and_its_buttons_stop_and_start_a_camera(
    start: Start, tmp_path: Path
) -> None:
    (rings := tmp_path / "rings").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    components = {
        "camera_capture": {
            "ring_directory": str(rings),
            "cameras": {"door": {"type": "test_pattern", "width": 640, "height": 360, "fps": 10}},
        },
        "model_updater": {},
        "serial_scraper": {"ports": {"mcu": {"device": "/dev/ttyNowhere*"}}},
        "monitor": {**QUIET, "port": port, "ring_directory": str(rings), "report_s": 0},
    }
    with start(components) as core, browser() as page:
        signed_in(page, core)
        page.js("window.same = true")
        goes_on(page)
        page.click("Stop camera")
        page.wait("document.querySelector('.badge').innerText === 'The camera gives no picture'", "that it has stopped")
        page.click("Start camera")
        goes_on(page)
        own = core.pid(MONITOR)
        for name in NEIGHBOURS:
            killed(core, name)
            goes_on(page)
        assert core.pid(MONITOR) == own
        core.cut_connections()  # as a core does that begins anew: all components do, too
        eventually(lambda: core.pid(MONITOR) not in (None, own), 30, "another Monitor")
        page.wait("document.querySelector('#link')?.innerText === 'Live'", "the page again")
        goes_on(page)
        assert page.js("window.same") is True  # nobody has loaded it again, or signed in


def signed_in(page: Page, core: LocalCore) -> None:
    """At the view of the camera."""
    address = address_of(core)
    password = (core.root / "work" / MONITOR / "password").read_text().strip()
    page.open(f"{address}sign-in")
    page.wait("document.readyState === 'complete' && document.querySelector('#password')", "the form")
    page.js(f"document.querySelector('#password').value = {password!r}")
    page.click("Sign in")
    page.wait("document.querySelector('main#main')", "the page")
    page.js("location.hash = '#/camera/door'")


def goes_on(page: Page) -> None:
    """Whether another picture of the camera comes than the one that is there."""
    frame = "document.querySelector('.camera-view')?.dataset.frame"
    before = page.js(frame)
    page.wait(f"{frame} !== undefined && {frame} !== {before!r}".replace("None", "undefined"), "another picture")


def killed(core: LocalCore, name: str) -> None:
    pid = core.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: core.pid(name) not in (None, pid) and core.state(name) == "RUNNING", 30, name)
