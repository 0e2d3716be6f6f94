"""What goes wrong in one camera stays there: an unexpected exception at each border, beside a camera that goes on."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from camera_capture import attempt, capture
from camera_capture.config import Config
from camera_capture.kinds.test_pattern import Pattern, PatternCamera
from camera_capture.source import Source
from camera_faults_support import ERRORS, GOOD, NAMES, Running
from camera_support import configured
from edgeml import messages
from edgeml.backoff import Backoff
from edgeml.frames import FrameReader, FrameWriter
from support import eventually


class Faulty(Pattern):
    """Raises at one of its borders while `fault` is set."""

    fault: Exception | None = None
    border = ""

    def __init__(self, camera: PatternCamera) -> None:
        super().__init__(camera)
        self._is_bad = camera.width == 33
        self._fail("constructor")

    def _fail(self, border: str) -> None:
        if self._is_bad and Faulty.fault is not None and Faulty.border == border:
            raise Faulty.fault

    def open(self) -> None:
        self._fail("open")

    def grab(self) -> bool:
        self._fail("grab")
        return super().grab()

    def retrieve(self) -> Any:
        self._fail("retrieve")
        return super().retrieve()

    def close(self) -> None:
        self._fail("close")


def faulty_source(camera: PatternCamera) -> Faulty:
    """As a method of the settings."""
    return Faulty(camera)


@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
@pytest.mark.parametrize("border", ["constructor", "open", "grab", "retrieve"])
def test_a_source_that_raises_anything_is_opened_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, border: str, error: Callable[[], Exception]
) -> None:
    monkeypatch.setattr(PatternCamera, "open", faulty_source)
    monkeypatch.setattr(Faulty, "border", border)
    monkeypatch.setattr(Faulty, "fault", error())
    running.start()
    eventually(lambda: running.count("cameras.bad.reconnects") > 2, what="reconnects")
    assert ("source_failed", "cameras.bad") in running.codes()
    running.delivers("good")
    monkeypatch.setattr(Faulty, "fault", None)
    running.delivers("bad")
    eventually(lambda: ("source_failed", "cameras.bad") not in running.codes(), what="the end of the problem")
    assert running.is_alive()


def test_an_unexpected_fault_has_its_traceback_in_the_log_once(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PatternCamera, "open", faulty_source)
    monkeypatch.setattr(Faulty, "border", "grab")
    monkeypatch.setattr(Faulty, "fault", KeyError("surprise"))
    with caplog.at_level(logging.ERROR):
        running.start()
        eventually(lambda: running.count("cameras.bad.reconnects") > 3, what="reconnects")
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 1
    assert "surprise" in told[0].getMessage()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (FrameWriter, "write"),
        (FrameWriter, "__init__"),
        (FrameWriter, "resize"),
        (attempt, "shaped"),
        (capture, "Attempt"),
        (attempt.Attempt, "start"),
        (Backoff, "next"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("error", ERRORS[3:6], ids=NAMES[3:6])
def test_what_fails_around_a_source_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: Callable[[], Exception]
) -> None:
    whole = getattr(place, name)
    failed: list[str] = []

    def faulty(*args: Any, **options: Any) -> Any:
        mine = any(getattr(a, "name", "") in ("bad", "read-bad") for a in args)
        mine = mine or any(isinstance(a, str) and a == "bad" for a in args)
        mine = mine or any(getattr(getattr(a, "path", None), "name", "") == "edgeml-bad" for a in args)
        mine = mine or any(getattr(a, "width", 0) == 33 for a in args)
        mine = mine or any(getattr(a, "ceiling_s", 0) == 0.02 for a in args)
        if mine and len(failed) < 3:
            failed.append(name)
            raise error()
        return whole(*args, **options)

    monkeypatch.setattr(place, name, faulty)
    if name == "next":
        monkeypatch.setattr(PatternCamera, "open", faulty_source)
        monkeypatch.setattr(Faulty, "border", "grab")
        monkeypatch.setattr(Faulty, "fault", ValueError("x"))
        running.start()
        eventually(lambda: len(failed) == 3, what="failures")
        monkeypatch.setattr(Faulty, "fault", None)
    elif name == "resize":
        running.start()
        running.delivers("bad")
        monkeypatch.setattr(attempt, "shaped", lambda image, camera: image[:8])
        eventually(lambda: failed, what="failures")
    else:
        running.start()
        eventually(lambda: len(failed) == 3, what="failures")
    running.delivers("bad")
    running.delivers("good")
    assert running.is_alive()


def test_a_system_without_threads_has_its_cameras_later(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = running.context.spawn
    failed: list[str] = []

    def spawn(name: str, work: Any, **options: Any) -> Any:
        if name == "camera-bad" and len(failed) < 3:
            failed.append(name)
            raise RuntimeError("can't start new thread")
        return whole(name, work, **options)

    monkeypatch.setattr(running.context, "spawn", spawn)
    running.start()
    assert ("worker_failed", "cameras.bad") in running.codes()
    running.delivers("good")
    running.delivers("bad")
    assert ("worker_failed", "cameras.bad") not in running.codes()


def test_a_ring_directory_that_cannot_be_written_is_one_problem_until_it_can(running: Running) -> None:
    """A folder in which a file has the ring's name: as root nothing else is refused."""
    (running.rings / "edgeml-bad").write_bytes(b"somebody's notes" * 400)
    running.start()
    eventually(lambda: running.count("cameras.bad.reconnects") > 2, what="reconnects")
    running.delivers("good")
    (running.rings / "edgeml-bad").unlink()
    running.delivers("bad")
    assert running.is_alive()


def test_a_missing_ring_directory_ends_nothing(running: Running) -> None:
    running.rings.rename(running.rings.with_name("away"))
    running.start()
    eventually(lambda: running.count("cameras.good.reconnects") > 1, what="reconnects")
    running.rings.with_name("away").rename(running.rings)
    running.delivers("bad")
    running.delivers("good")


@pytest.mark.parametrize("cut", [False, True], ids=["removed", "cut"])
def test_a_ring_that_somebody_takes_away_is_made_anew(
    running: Running, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    monkeypatch.setattr(capture, "LOOK_S", 0.02)
    running.start()
    with FrameReader("bad", directory=running.rings) as reader:
        assert reader.read(5) is not None
        path = running.rings / "edgeml-bad"
        if cut:
            with path.open("r+b") as file:
                file.truncate(0)
            eventually(lambda: path.exists() and path.stat().st_size > 0, what="another ring")
        else:
            path.unlink()
        eventually(lambda: reader.read(0.2), what="a frame of the new ring")
    running.delivers("good")
    assert running.is_alive()


def test_a_topic_that_is_refused_costs_its_commands_and_no_frame(running: Running) -> None:
    running.refused = {messages.camera_command("bad")}
    running.start()
    assert ("unauthorized", "cameras.bad.command") in running.codes()
    running.delivers("bad")


def test_announcements_that_fail_in_any_way_cost_nothing_else(running: Running) -> None:
    running.fault = KeyError("surprise")
    running.start()
    eventually(lambda: running.count("cameras.bad.reconnects") > 1, what="failures")
    running.delivers("good")
    running.fault = None
    running.delivers("bad")
    assert running.is_alive()


class Hanging(Source):
    """A driver that never comes back, until `released`."""

    live = True
    released = threading.Event()

    def __init__(self, camera: PatternCamera) -> None:
        self._hangs = camera.width == 33

    def grab(self) -> bool:
        if self._hangs:
            Hanging.released.wait(30)
        return True

    def retrieve(self) -> Any:
        return np.zeros((16, 32, 3), np.uint8)


@pytest.mark.parametrize("alone", [False, True])
def test_reads_that_hang_end_the_process_only_where_no_other_camera_suffers(
    running: Running, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    Hanging.released.clear()
    hanging = configured(type="test_pattern", width=33, height=17, stall_timeout_s=0.02, reconnect_min_s=0.01)

    def source(settings: PatternCamera) -> Source:
        return Hanging(settings) if settings.width == 33 else Pattern(settings)

    monkeypatch.setattr(PatternCamera, "open", source)
    try:
        if alone:
            config = Config(cameras={"bad": hanging}, ring_directory=str(running.rings))
            running.component.start(config)
            error = running.context.events.get(timeout=10)
            assert "3 reads hang in the driver" in str(error)
        else:
            config = Config(cameras={"good": GOOD}, ring_directory=str(running.rings))
            running.component.start(config)
            running.delivers("good")
            running.component.reconfigure(
                Config(cameras={"good": GOOD, "bad": hanging}, ring_directory=str(running.rings))
            )

            def told() -> bool:
                current = running.context.health.problems.current()
                return any("3 reads hang" in problem.text for problem in current)

            eventually(told, what="a problem")
            running.delivers("good")
            assert running.is_alive()
    finally:
        Hanging.released.set()
    if not alone:
        running.delivers("bad")
