"""The Monitor's page as axe-core judges it: nothing that it finds wrong, however small.

Needs chromium, and axe.min.js: that of the package axe-playwright-python (pip install --no-deps), or the file that
EDGEML_AXE names. axe-core 4.12.1 was the last that looked.
"""

import importlib.util
import os
import time
from pathlib import Path

import pytest

from localdev.browser import MISSING, PROGRAM, Page, browser
from monitor_scene import moving, result
from monitor_support import QUIET, address_of
from support import Standalone

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
]

VIEWS = (
    "/#/", "/#/cameras", "/#/pipelines", "/#/devices", "/#/camera/door", "/#/camera/none", "/#/pipeline/faces",
    "/#/pipeline/turbine", "/sign-in",
)  # fmt: skip
RUN = """axe.run().then(({ violations }) => violations.map(({ impact, id, nodes }) =>
  `${impact} ${id} ${nodes.map((one) => one.html.slice(0, 200)).join(" ")}`))"""


def axe() -> str:
    package = importlib.util.find_spec("axe_playwright_python")
    found = os.environ.get("EDGEML_AXE", "")
    if not found and package is not None and package.submodule_search_locations:
        found = f"{package.submodule_search_locations[0]}/axe.min.js"
    if not found:
        pytest.skip("no axe.min.js: install axe-playwright-python without its dependencies, or set EDGEML_AXE")
    return Path(found).read_text(encoding="utf-8")


def test_it_finds_nothing_wrong(tmp_path: Path) -> None:
    program = axe()
    (rings := tmp_path / "rings").mkdir()
    seen = {"skip": [check for check in QUIET["vitals"]["skip"] if check != "memory"]}
    config = {**QUIET, "vitals": seen, "auth": "off", "ring_directory": str(rings)}
    with Standalone("monitor", config, tmp_path) as running, moving(running, rings), browser() as page:
        tell(running)
        base = address_of(running)
        for scheme in ("light", "dark"):
            for width in (360, 1280):
                page.look(width, 800, scheme)
                for view in VIEWS:
                    page.open("about:blank")
                    page.open(base + view)
                    page.wait("document.querySelector('main')?.children.length > 0", view)
                    time.sleep(0.5)  # for the state to be shown
                    assert judged(page, program) == [], (view, scheme, width)
        page.js("document.querySelector('main').append(document.createElement('button'))")
        assert "button-name" in judged(page, program)[0]  # it does look


def tell(running: Standalone) -> None:
    """What the scene has not got: an update, a port, an anomaly."""
    update = {"model": "Wind", "version": "3.1.0", "status": "updating", "component": "edgeml.ModelUpdater"}
    running.send("edgeml/model/Wind/status", update | {"step": "download", "progress": 0.6})
    running.send("edgeml/serial/mcu/record", {"port": "mcu", "at": time.time(), "format": "csv", "record": {"a": 1}})
    found = {"anomalies": [True], "values": [0.4], "thresholds": [0.3]}
    anomaly = result(1, 1) | {"pipeline": "turbine", "task": "anomaly", "source": {"topic": "t"}, "results": found}
    running.send("edgeml/inference/turbine", anomaly)


def judged(page: Page, program: str) -> list[str]:
    page.js(f"{program};0")
    found: list[str] = page.js(RUN)
    return found
