"""Pictures that requests named, of the real process: none but those below the folders, and none as it was."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.pictures import decoded
from monitor import requested
from monitor.config import Config
from monitor.requested import Requested
from monitor.state import State
from monitor_scene import report, result
from monitor_support import QUIET, client_of
from pictures_support import JPEG, PNG, sized
from support import Standalone, eventually

SECRET = b"where it was taken"
MARKUP = "<img src=x onerror=alert(1)>.jpg"
WIDE = cv2.imencode(".jpg", np.full((500, 1500, 3), 90, np.uint8))[1].tobytes()
TALL = cv2.imencode(".png", np.full((2000, 300, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shown` is a link to the folder that is configured, `other` is another one."""
    root = tmp_path_factory.mktemp("pictures")
    real = root / "real"
    for each in (real / "deeper", root / "other"):
        each.mkdir(parents=True)
    (root / "shown").symlink_to(real)
    marked = WIDE[:2] + b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET + WIDE[2:]
    files = {"wide.jpg": marked, "deeper/tall.png": TALL, MARKUP: JPEG, "huge.png": sized(PNG, 30_000, 30_000)}
    files |= {"line.png": cv2.imencode(".png", np.zeros((2000, 1, 3), np.uint8))[1].tobytes()}
    files |= {"large.png": cv2.imencode(".png", np.zeros((5001, 5000), np.uint8))[1].tobytes()}  # whole
    files |= {"text.jpg": b"root:x:0:0", "cut.jpg": JPEG[: len(JPEG) // 2], "empty.jpg": b""}
    for name, data in files.items():
        (real / name).write_bytes(data)
    (root / "other" / "secret.jpg").write_bytes(JPEG)
    (real / "link.jpg").symlink_to(root / "other" / "secret.jpg")
    (real / "inside.jpg").symlink_to("wide.jpg")
    (real / "loop.jpg").symlink_to("loop.jpg")
    (real / "away").symlink_to(root / "other")
    os.mkfifo(real / "pipe.jpg")
    with (real / "sparse.jpg").open("wb") as file:
        file.write(JPEG)
        file.truncate(requested.MAX_BYTES + 1)
    return root


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    work = tmp_path_factory.mktemp("monitor")
    config = {**QUIET, "request_dirs": [str(folder / "shown"), "/nowhere"], "max_width": 640}
    with Standalone("monitor", config, work) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running


@pytest.fixture(scope="module")
def page(running: Standalone) -> Iterator[httpx.Client]:
    """Somebody who has signed in."""
    with client_of(running.log.partition("address=")[2].split()[0].rstrip("/")) as client:
        client.post("/sign-in", data={"password": (running.config_file.parent / "password").read_text().strip()})
        yield client


def asked(running: Standalone, page: httpx.Client, name: str, at: float, pipeline: str = "asked") -> httpx.Response:
    """The answer for a result, made `at`, of a request that named a file."""
    source = {"topic": "local/inference", "file": name, "captured_at": at}
    running.send(f"edgeml/inference/{pipeline}", result(0, 0) | {"pipeline": pipeline, "source": source})

    def is_heard() -> bool:
        told = page.get("/api/state").json()["pipelines"]
        return any(one["name"] == pipeline for one in told)

    eventually(is_heard, what="the result")
    return page.get(f"/result/{pipeline}.jpg", params={"at": at})


SHOWN = {"wide.jpg": (640, 213), "inside.jpg": (640, 213), "deeper/tall.png": (96, 640), MARKUP: (80, 48)}


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_made_anew_and_fits(running: Standalone, page: httpx.Client, folder: Path, name: str) -> None:
    number = float([*SHOWN].index(name))
    answer = asked(running, page, str(folder / "shown" / name), 1000.25, f"shown{number:g}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert SECRET not in answer.content
    height, width = decoded(answer.content, name).shape[:2]
    assert (width, height) == SHOWN[name]


REFUSED = [
    "{root}/other/secret.jpg",
    "{root}/shown/../other/secret.jpg",
    "{root}/shown/link.jpg",
    "{root}/shown/away/secret.jpg",
    "{root}/shown/loop.jpg",
    "{root}/shown/pipe.jpg",
    "{root}/shown/sparse.jpg",
    "{root}/shown/huge.png",
    "{root}/shown/large.png",
    "{root}/shown/line.png",
    "{root}/shown/text.jpg",
    "{root}/shown/cut.jpg",
    "{root}/shown/empty.jpg",
    "{root}/shown/deeper",
    "{root}/shown/nothing.jpg",
    "{root}/shown",
    "{root}/real2/wide.jpg",
    "wide.jpg",
    "shown/wide.jpg",
    "/proc/self/environ",
    "/dev/zero",
    "\0",
    "/" + "x" * 5000,
]


@pytest.mark.parametrize("name", REFUSED, ids=map(str, range(len(REFUSED))))
def test_nothing_else_is_shown(running: Standalone, page: httpx.Client, folder: Path, name: str) -> None:
    pipeline = f"refused{REFUSED.index(name)}"
    answer = asked(running, page, name.format(root=folder), 1.0, pipeline)
    assert (answer.status_code, answer.text) == (404, "there is no such picture\n")


@pytest.mark.parametrize("query", ["", "?at=", "?at=nan", "?at=1e999", "?at=2", "?at=../wide.jpg", "?file=/x&at=x"])
def test_only_what_a_result_names_is_shown(running: Standalone, page: httpx.Client, folder: Path, query: str) -> None:
    asked(running, page, str(folder / "shown" / "wide.jpg"), 1.0, "named")
    asked(running, page, str(folder / "shown" / "wide.jpg"), float("nan"), "named")  # it is null to a page
    assert page.get(f"/result/named.jpg{query}").status_code == 404
    assert page.get("/result/named.jpg?at=1").status_code == 200
    assert page.get("/result/nobody.jpg?at=1").status_code == 404


def test_who_has_no_session_sees_none(running: Standalone, page: httpx.Client, folder: Path) -> None:
    assert asked(running, page, str(folder / "shown" / "wide.jpg"), 1.0, "own").status_code == 200
    with client_of(str(page.base_url)) as stranger:
        assert stranger.get("/result/own.jpg?at=1").status_code == 401
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert page.get("/result/own.jpg?at=1", headers=foreign).status_code == 403


def test_what_hides_something_shows_no_request(running: Standalone, page: httpx.Client, folder: Path) -> None:
    file = str(folder / "shown" / "wide.jpg")
    assert asked(running, page, file, 1.0, "private").status_code == 200
    hides = {"pipeline": "private", "camera": "", "method": "blur"}
    running.send("edgeml/health/Inferencer", report("edgeml.Inferencer", privacy=[hides]))
    eventually(lambda: page.get("/result/private.jpg?at=1").status_code == 404, what="the report")
    (told,) = [one for one in page.get("/api/state").json()["pipelines"] if one["name"] == "private"]
    assert told["pictures"] is False


def test_without_folders_nothing_is_shown(folder: Path) -> None:
    state = State("thing", "1", lambda: ())
    assert not state.shows_requested("p")
    state.has_request_dirs = True
    assert not state.shows_requested("p")  # who hides something is not yet known


def test_a_folder_has_a_whole_name() -> None:
    with pytest.raises(ConfigError, match="request_dirs"):
        load(Config, {"request_dirs": ["pictures"]})


def test_who_waits_for_a_slow_folder_is_answered_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose folder hangs takes one thread, however many ask; then it goes on."""
    monkeypatch.setattr(requested, "ANSWER_S", 0.2)
    go, begun = threading.Event(), []

    def hangs(*_: object) -> bool:
        begun.append(1)
        return not go.wait(10)

    monkeypatch.setattr(State, "shows_requested", hangs)
    route = Requested(State("thing", "1", lambda: ()), [str(folder)], 640).route(None)

    async def ask() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(Starlette(routes=[route])), base_url="http://127.0.0.1"
        ) as client:
            many = [client.get("/result/p.jpg?at=1") for _ in range(requested.MAX_WAITING + 4)]
            assert {answer.status_code for answer in await asyncio.gather(*many)} == {503}
            assert len(begun) == 1
            go.set()
            assert (await client.get("/result/p.jpg?at=1")).status_code == 404
            assert len(begun) == 2

    asyncio.run(ask())
