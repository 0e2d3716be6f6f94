"""The command `clip`: the seconds around it, as a video that lasts as long as they did."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import browser_support
from camera_capture.camera import Clips
from camera_capture.clip_file import Kept, steps, write
from camera_capture.clips import ClipKeeper
from edgeml.component import Context
from edgeml.errors import RefusedError, SourceError
from edgeml.frames import FrameWriter
from edgeml.health import Health
from edgeml.messages import ClipCommand
from inferencer_support import Answer, Endpoint, endpoint, picture
from ipc_support import FakeIpc
from support import Standalone, eventually

AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
COMMAND, REPLY = "edgeml/camera/c/command", "edgeml/camera/c/reply"
KEY = "clips/unknown-thing/2000/01/01/a.webm"
MASK = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]


def camera(tmp_path: Path, s3: Endpoint) -> Standalone:
    s3.behave = lambda body: Answer(body=b"")
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.png"), picture(255, 255, 255, size=(64, 64)))
    clips = {"s3_bucket": "a-bucket", "fps": 10, "max_side": 64, "before_s": 2}
    common = {"type": "images", "location": str(folder), "fps": 20, "privacy_masks": MASK}
    cameras = {"c": {**common, "clips": clips}, "none": {"type": "test_pattern", "fps": 1}}
    config = {"ring_directory": str(tmp_path), "cameras": cameras}
    return Standalone("camera_capture", config, tmp_path / "c", env={"AWS_ENDPOINT_URL_S3": s3.url, **AWS})


def frames_of(path: Path) -> list[Any]:
    video, found = cv2.VideoCapture(str(path)), []
    while video.grab():
        found.append(video.retrieve()[1])
    video.release()
    return found


def replies(running: Standalone, topic: str) -> list[Any]:
    return [line["payload"] for line in list(running.lines) if line["topic"] == topic]


def ask(running: Standalone, name: str, topic: str = COMMAND, **fields: Any) -> None:
    running.send(topic, {"command": "clip", "before_s": 1, "after_s": 0.5, "key": KEY, "request_id": name, **fields})


def reply(running: Standalone, name: str, topic: str = REPLY) -> Any:
    return eventually(lambda: [one for one in replies(running, topic) if one.get("request_id") == name], 30, name)[0]


def test_the_seconds_around_a_command_go_to_s3(tmp_path: Path) -> None:
    left = tmp_path / "c" / "clips" / "c" / "7.webm"  # by a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    with endpoint() as s3, camera(tmp_path, s3) as running:
        running.message("edgeml/camera/c/frame", count=30)
        asked_at = time.time()
        ask(running, "good")
        good = reply(running, "good")
        assert good.get("ok", True), good
        assert good["captured_at"] == pytest.approx(asked_at - 1, abs=0.5)
        assert 0.5 < good["seconds"] < 1.8
        refused: dict[str, tuple[str, dict[str, Any]]] = {
            "suffix": (".webm at the end", {"key": KEY.replace("webm", "mp4")}),
            "prefix": ("below clips/unknown-thing/", {"key": "faces/unknown-thing/a.webm"}),
            "long": ("after_s: expected 0 to 60", {"after_s": 60.5}),
            "negative": ("before_s: expected 0 to 60", {"before_s": -1}),
            "text": ("not a camera command", {"before_s": "x"}),
        }
        for name, (text, fields) in refused.items():
            ask(running, name, **fields)
            assert text in reply(running, name)["error"]
        ask(running, "none", "edgeml/camera/none/command")
        assert "keeps no clips" in reply(running, "none", "edgeml/camera/none/reply")["error"]

        for name in ("lost 1", "lost 2", "third"):
            ask(running, name, after_s=60)
        assert "2 clips are being made already" in reply(running, "third")["error"]
        eventually(lambda: s3.requests, what="the clip")
        assert running.stop() == 0
        for name in ("lost 1", "lost 2"):
            assert "the clip is lost" in reply(running, name)["error"]
    assert list((tmp_path / "c" / "clips").rglob("*.webm")) == []
    ((path, headers, body),) = s3.requests
    assert (path.partition("?")[0], headers["Content-Type"]) == (f"/a-bucket/{KEY}", "video/webm")
    video = tmp_path / "video.webm"
    video.write_bytes(body[body.index(b"\x1a\x45\xdf\xa3") :])  # the SDK sends sums around it
    shown = frames_of(video)
    assert len(shown) == round(good["seconds"] * 10)
    assert max(image[:, :28].max() for image in shown) < 20  # masked
    assert min(image[:, 36:].min() for image in shown) > 235


@pytest.mark.parametrize(
    ("times", "fps", "shown"),
    [
        ([5.0], 5, [0]),
        ([0.0, 0.2, 0.4], 5, [0, 1, 2]),
        ([0.0, 0.23, 0.38], 5, [0, 1, 2]),
        ([0.0, 0.2, 1.0], 5, [0, 1, 1, 1, 1, 2]),
        ([0.0, 0.01, 0.02, 0.2], 5, [2, 3]),
    ],
    ids=["one", "even", "jitter", "a gap", "a burst"],
)
def test_a_video_lasts_as_long_as_it_did(times: list[float], fps: float, shown: list[int]) -> None:
    assert steps(times, fps) == shown


def kept(times: list[float], size: tuple[int, int] = (48, 64)) -> list[Kept]:
    """Ever brighter pictures."""
    made = []
    for number, at in enumerate(times):
        data = cv2.imencode(".jpg", picture(60 * number, 60 * number, 60 * number, size))[1].tobytes()
        made.append(Kept(int(at * 1e9), int(at * 1e9), data))
    return made


def running_on() -> bool:
    return False


def test_each_picture_is_shown_when_it_was_taken(tmp_path: Path) -> None:
    frames = [*kept([10.0, 10.5, 12.0]), *kept([0.0] * 3 + [12.5], (31, 33))[3:]]  # of another size in the end
    path = tmp_path / "a.webm"
    assert write(path, frames, 4, max_bytes=2**21, is_over=running_on) == 11 / 4
    grey = [round(float(image.mean()) / 60) for image in frames_of(path)]
    assert grey == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3]


def test_a_video_that_grows_too_large_ends_early(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    frames = [Kept(n * 10**8, 0, cv2.imencode(".jpg", np.roll(noise, 7 * n, 1))[1].tobytes()) for n in range(100)]
    seconds = write(tmp_path / "a.webm", frames, 10, max_bytes=2**20 + 2**17, is_over=running_on)
    assert 0 < seconds < 10
    assert (tmp_path / "a.webm").stat().st_size < 2**20 + 2**17


@pytest.mark.skipif(browser_support.PROGRAM is None, reason=browser_support.MISSING)
def test_a_browser_plays_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    seconds = write(path, kept([0.0, 0.5, 1.0]), 8, max_bytes=2**21, is_over=running_on)
    with browser_support.browser() as page:
        page.js(
            "window.video = document.createElement('video'); video.muted = true;"
            f"video.src = 'data:video/webm;base64,{base64.b64encode(path.read_bytes()).decode()}'; video.play(); 0"
        )
        page.wait("video.ended", "the end of the video")
        assert (page.js("video.videoWidth"), page.js("video.videoHeight")) == (64, 48)
        assert page.js("video.duration") == pytest.approx(seconds, abs=0.13)


@pytest.mark.parametrize("fault", ["full", "nowhere", "no picture", "over"])
def test_a_video_that_cannot_be_written_whole_is_an_error(tmp_path: Path, fault: str) -> None:
    path, frames = tmp_path / "a.webm", kept([0.0, 1.0])
    if fault == "full":
        path.symlink_to("/dev/full")
    elif fault == "nowhere":
        path = tmp_path / "no" / "a.webm"
    elif fault == "no picture":
        frames = [*frames, Kept(2 * 10**9, 0, b"x")]
    with pytest.raises(SourceError, match="lost" if fault == "over" else "clip cannot be written|decoded"):
        write(path, frames, 5, max_bytes=2**21, is_over=lambda: fault == "over")


class Watched:
    """A keeper, and what it has answered and sent."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        context = Context(ipc=FakeIpc(), health=Health("x", "1"), work=tmp_path, root=tmp_path, thing_name="t")
        self.answers: list[Any] = []
        self.sent: list[tuple[Any, ...]] = []
        store: Any = self
        clips = Clips(s3_bucket="bucket", **settings)
        self.keeper = ClipKeeper("c", clips, context, tmp_path, lambda: store, self.answer)

    def put(self, *arguments: Any) -> None:
        self.sent.append(arguments)

    def answer(self, command: ClipCommand, work: Callable[[], dict[str, Any]]) -> None:
        try:
            self.answers.append(work())
        except SourceError as error:
            self.answers.append(str(error))


def test_a_clip_for_which_there_is_no_memory_ends_early(tmp_path: Path) -> None:
    watched = Watched(tmp_path, fps=30, max_bytes=2**21, quality=100, before_s=60)
    watched.keeper.start()
    watched.keeper.ask(ClipCommand(before_s=60, after_s=60, key="clips/t/a.webm"))
    large = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with FrameWriter("c", directory=tmp_path, width=640, height=480) as writer:

        def written() -> bool:
            writer.write(large)
            return bool(watched.answers)

        eventually(written, 30, "the clip")
    watched.keeper.stop()
    (answer,) = watched.answers
    assert 0 < answer["seconds"] < 20
    assert [arguments[:2] for arguments in watched.sent] == [("bucket", "clips/t/a.webm")]


def test_where_nothing_was_kept_there_is_no_clip(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.keeper.ask(ClipCommand(before_s=1, after_s=0, key="clips/t/a.webm"))
    assert eventually(lambda: watched.answers, 5, "the answer") == ["camera c: no frame of that time was kept"]
    with pytest.raises(RefusedError):
        watched.keeper.ask(ClipCommand(before_s=float("nan"), after_s=0, key="clips/t/a.webm"))
    watched.keeper.stop()
    assert watched.sent == []
