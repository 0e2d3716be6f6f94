"""Which frames of a real ring are shown to whom, with which results, and what is done for that."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.errors import NotFoundError
from edgeml.frames import FrameWriter
from edgeml.health import Health
from ipc_support import FakeIpc
from monitor import pictures as rules
from monitor.pictures import Picture, Pictures
from monitor.state import State
from support import eventually

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
FACE = {"label": "face", "score": 0.9, "box": [400, 200, 200, 200]}


class Configured(FakeIpc):
    """Answers with the pipelines that an Inferencer has; there is no other component."""

    def __init__(self, **pipelines: Any) -> None:
        super().__init__()
        self.pipelines = pipelines

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component != "edgeml.Inferencer":
            raise NotFoundError(component)
        return {"pipelines": self.pipelines}


class Rig:
    """A camera `door` with a real ring, and who watches it."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 720) -> None:
        self.folder, self.size = folder, (width, height)
        self.state = State("thing", "1", lambda: ())
        self.state.neighbours.place(folder)
        self.health = Health("edgeml.Monitor", "1")
        self.threads: list[threading.Thread] = []
        self.pictures = Pictures(self.state, self.health, self._spawn, fps=50)
        self.writer = self.wrote()
        self.shown: list[Picture] = []
        self.rng = np.random.default_rng(1)

    def wrote(self) -> FrameWriter:
        return FrameWriter("door", width=self.size[0], height=self.size[1], directory=self.folder)

    def configured(self, **pipelines: Any) -> None:
        self.state.neighbours.ask(Configured(**pipelines))

    def frame(self) -> tuple[int, float]:
        """Write noise; the frame's id and when it was captured."""
        wall_ns = time.time_ns()
        image = self.rng.integers(0, 256, (self.size[1], self.size[0], 3), np.uint8)
        return self.writer.write(image, wall_ns=wall_ns), wall_ns / 1e9

    def found(self, frame: tuple[int, float], pipeline: str = "p", **changes: Any) -> None:
        """Have a pipeline's result arrive, as it comes from the core."""
        result = {
            "pipeline": pipeline,
            "model": {"name": "Faces", "version": "1"},
            "source": {"camera": "door", "frame_id": frame[0], "captured_at": frame[1]},
            "task": "detection",
            "results": [FACE],
            "latency_ms": {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1},
            "device": "thing",
        }
        assert self.state.result(f"edgeml/inference/{pipeline}", json.dumps(result | changes).encode())

    def watch(self, width: int = 960, **options: Any) -> Callable[[], None]:
        unwatch = self.pictures.watch("door", width, self.shown.append, **options)
        assert unwatch is not None
        return unwatch

    def picture(self, frame_id: int) -> Picture:
        def there() -> list[Picture]:
            return [picture for picture in self.shown if picture.frame_id == frame_id]

        return eventually(there, 10, f"picture {frame_id} of {[each.frame_id for each in self.shown]}")[0]

    def attached(self) -> None:
        """Write until the camera is read; what came till then is forgotten."""
        while not self.shown:
            self.frame()
            time.sleep(0.005)
        self.quiet()

    def quiet(self) -> None:
        """Wait until nothing more comes, and forget what came."""
        count = -1
        while count != len(self.shown):
            count = len(self.shown)
            time.sleep(0.1)
        self.shown.clear()

    def close(self) -> None:
        self.pictures.close()
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()
        self.writer.close()

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=work, name=name, daemon=True))
        self.threads[-1].start()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_that_no_pipeline_reads_is_shown_at_once_as_wide_as_wanted(tmp_path: Path, size: str) -> None:
    rig = Rig(tmp_path, *SIZES[size])
    try:
        rig.configured()
        rig.watch(960)
        rig.watch(200)
        rig.attached()
        frame_id, at = rig.frame()
        eventually(lambda: len(rig.shown) == 2, 10, "a picture of each width")
        for picture in rig.shown:
            image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            assert image.shape[1::-1] == (picture.width, picture.height)
            assert (picture.frame_id, picture.captured_at, picture.results) == (frame_id, at, b"[]")
            assert (picture.source_width, picture.source_height) == SIZES[size]
        assert {picture.width for picture in rig.shown} == {960, 320}
    finally:
        rig.close()


def test_nothing_is_done_while_nobody_watches_and_once_for_all_who_do(rig: Rig) -> None:
    rig.configured()
    rig.frame()
    assert not rig.threads
    first, second = rig.watch(), rig.watch()
    rig.attached()
    before = rig.health.counter("pictures")
    rig.frame()
    eventually(lambda: len(rig.shown) == 2, 10, "both have it")
    assert rig.shown[0] is rig.shown[1]
    assert rig.health.counter("pictures") == before + 1
    assert len(rig.threads) == 1
    first()
    second()
    rig.threads[0].join(5)
    assert not rig.threads[0].is_alive()


def test_pictures_come_no_faster_than_configured(rig: Rig) -> None:
    rig.pictures.fps = 20
    rig.configured()
    rig.watch()
    rig.attached()
    began = time.monotonic()
    for _ in range(60):
        rig.frame()
        time.sleep(0.005)
    took = time.monotonic() - began
    assert 2 <= len(rig.shown) <= took * 20 + 2


def test_a_frame_is_shown_with_its_own_result_and_not_before(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())  # results come: from now on frames wait for them
    rig.quiet()
    frames = [rig.frame() for _ in range(3)]
    of_a_crop = {"camera": "door", "frame_id": frames[2][0], "captured_at": frames[2][1], "pipeline": "p"}
    rig.found(frames[2], "chain", source=of_a_crop)  # whose boxes lie elsewhere
    time.sleep(0.2)
    assert not rig.shown
    rig.found(frames[1])
    picture = rig.picture(frames[1][0])
    (told,) = json.loads(picture.results)
    assert told["pipeline"] == "p"
    assert told["result"]["results"] == [FACE]
    assert told["result"]["source"]["frame_id"] == frames[1][0]
    rig.found(frames[0])  # too late: a newer one was shown
    rig.found(frames[2])
    rig.picture(frames[2][0])
    assert [each.frame_id for each in rig.shown] == [frames[1][0], frames[2][0]]


def test_a_pipeline_that_says_nothing_any_more_hides_no_picture(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.results.COME_S", 0.3)
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    rig.attached()


def test_ids_that_begin_anew_get_no_results_of_former_frames(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    for _ in range(5):
        rig.found(rig.frame())
    rig.quiet()
    rig.writer.close()
    rig.writer = rig.wrote()
    while not rig.shown:
        frame = rig.frame()
        time.sleep(0.02)
        rig.found(frame)
    shown = rig.shown[0]
    (told,) = json.loads(shown.results)
    assert told["result"]["source"]["captured_at"] == shown.captured_at


PRIVATE = {"source": {"camera": "door"}, "privacy": {"labels": ["face"]}}
HIDDEN = {"method": "blur", "regions": [[400, 200, 200, 200]]}


def region(picture: Picture) -> Any:
    """The pixels of what is to be hidden."""
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    x, y, width, height = (round(value * picture.width / picture.source_width) for value in (400, 200, 200, 200))
    return image[y + 16 : y + height - 16, x + 16 : x + width - 16].astype(int)  # a JPEG mixes blocks of 16


def test_a_private_camera_is_shown_with_its_result_alone_and_what_is_hidden_is_gone(rig: Rig) -> None:
    rig.configured(p=PRIVATE, q={"source": {"camera": "door"}})
    rig.watch()
    time.sleep(0.3)
    frames = [rig.frame() for _ in range(3)]
    time.sleep(0.3)
    rig.found(frames[0], "q")  # another pipeline's, which hides nothing
    rig.found(frames[1])  # an answer that does not say what is hidden
    time.sleep(0.2)
    assert not rig.shown
    rig.found(frames[2], hidden=HIDDEN)
    hidden = region(rig.picture(frames[2][0]))
    rows = hidden.mean(axis=2).std(axis=1)
    assert rows.max() < 40  # noise has 42 a pixel and more, what is left are the colours of a few cells


def test_what_is_private_by_report_alone_is_private(rig: Rig) -> None:
    rig.configured()
    report = {"component": "x", "version": "1", "at": 1, "uptime_s": 1, "counters": {}, "rates": {}, "latency_ms": {}}
    report |= {"gauges": {}, "notes": {}, "last_error": None}
    report |= {"privacy": [{"pipeline": "p", "camera": "door", "method": "box", "labels": []}]}
    assert rig.state.heard("edgeml/health/Inferencer", json.dumps(report).encode())
    rig.watch()
    time.sleep(0.3)
    rig.frame()
    time.sleep(0.2)
    assert not rig.shown
    frame = rig.frame()
    time.sleep(0.1)
    rig.found(frame, hidden=HIDDEN | {"method": "box"})
    assert region(rig.picture(frame[0])).max() < 30


def test_before_it_is_known_what_is_private_nothing_is_shown(rig: Rig) -> None:
    rig.watch()
    time.sleep(0.3)
    for _ in range(5):
        rig.found(rig.frame())
        time.sleep(0.02)
    assert not rig.shown
    rig.configured()
    rig.attached()


def test_frames_that_wait_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "HELD_BYTES", 5 * 960 * 540 * 3)
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    frames = []
    for _ in range(10):
        frames.append(rig.frame())
        time.sleep(0.03)
    rig.found(frames[0])
    rig.found(frames[-1])
    rig.picture(frames[-1][0])
    assert len(rig.shown) == 1


def test_boxes_are_burnt_in_for_who_wants_that(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch(burnt=True)
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    frame = rig.frame()
    time.sleep(0.1)
    rig.found(
        frame, results=[FACE, {"box": ["x"] * 4}, {"box": [1e300] * 4}, 5, {"label": "<b>é", "box": [1, 2, 3, 4]}]
    )
    picture = rig.picture(frame[0])
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    left = image[200:280, 299:302].reshape(-1, 3).astype(int)  # x = 400 * 960 / 1280
    assert left.std(axis=0).max() < 60  # one colour beside noise of 74


def test_a_file_in_the_place_of_a_ring_is_a_problem_while_somebody_watches(rig: Rig) -> None:
    rig.configured()
    (rig.folder / "edgeml-odd").write_bytes(b"x" * 10_000)
    unwatch = rig.pictures.watch("odd", 960, rig.shown.append)
    eventually(lambda: [item.code for item in rig.health.problems.current()] == ["unreadable"], 10, "the problem")
    assert unwatch is not None
    unwatch()
    eventually(lambda: not rig.health.problems.current(), 10, "its end")


def test_watched_cameras_are_bounded_and_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_WATCHED", 2)
    watched = [rig.pictures.watch(name, 960, rig.shown.append) for name in ("a", "b", "c", "../x", "")]
    assert [each is not None for each in watched] == [True, True, False, False, False]
