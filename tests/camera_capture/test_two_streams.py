"""Two streams of one camera: frames of the small one; clips, stills, snapshots of the large one, of the same moment."""

import io
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from camera_support import configured
from edgeml.errors import ConfigError
from edgeml.frames import FrameReader
from hostile_http import RawServer, sends
from inferencer_support import Answer, Endpoint, endpoint
from stream_support import FPS, Made, camera, made
from support import Standalone, eventually

AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
COMMAND, REPLY = "edgeml/camera/c/command", "edgeml/camera/c/reply"
SMALL, LARGE = (64, 48), (322, 246)
MASK = [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]]  # below, on the right, where it is white


class Site:
    """A component with such a camera, its two servers, and S3."""

    def __init__(self, folder: Path, small: Made, large: Made, closing: ExitStack) -> None:
        began = time.monotonic()
        self.s3: Endpoint = closing.enter_context(endpoint())
        self.s3.behave = lambda body: Answer(body=b"")
        self.small: RawServer = closing.enter_context(camera(small, began))
        self.large: RawServer = closing.enter_context(camera(large, began))
        self.rings = folder
        settings = {
            "type": "http",
            "streams": {"detect": self.small.url, "record": self.large.url},
            "slots": 64,
            "privacy_masks": [MASK],
            "reconnect_min_s": 0.05,
            "reconnect_max_s": 0.1,
            "stills": {"s3_bucket": "a-bucket"},
            "clips": {"s3_bucket": "a-bucket", "fps": 10},
        }
        config = {"ring_directory": str(folder), "cameras": {"c": settings}}
        env = {"AWS_ENDPOINT_URL_S3": self.s3.url, **AWS}
        self.running: Standalone = closing.enter_context(Standalone("camera_capture", config, folder / "c", env=env))

    def ask(self, name: str, **command: Any) -> Any:
        self.running.send(COMMAND, {"request_id": name, **command})

        def answers() -> list[Any]:
            told = [line["payload"] for line in list(self.running.lines) if line["topic"] == REPLY]
            return [one for one in told if one.get("request_id") == name]

        return eventually(answers, 30, name)[0]

    def sent(self, name: str) -> bytes:
        def bodies() -> list[bytes]:
            return [body for path, _, body in self.s3.requests if name in path]

        return eventually(bodies, 30, name)[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as closing:
        yield Site(tmp_path_factory.mktemp("site"), made(90, size=SMALL), made(90, size=LARGE), closing)


def number(image: Any) -> float:
    """What the picture tells, where nothing is hidden."""
    height, width = image.shape[:2]
    return float(image[: height // 2 - 4, : width // 2 - 4].mean()) / 20


def check(image: Any, size: tuple[int, int]) -> None:
    """Of that size, and black where it is to be."""
    height, width = image.shape[:2]
    assert (width, height) == size
    assert image[height // 2 :, width // 2 :].max() < 24
    assert image[: height // 2 - 8, width // 2 + 8 :].min() > 225


def ringed(site: Site) -> Any:
    with FrameReader("c", directory=site.rings) as reader:
        return eventually(lambda: reader.read(1.0), 20, "a frame")


def recorded(site: Site) -> None:
    eventually(lambda: "edgeml/camera/c/frame" in {line["topic"] for line in list(site.running.lines)}, 30, "frames")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        reply = site.ask(f"s{time.monotonic()}", command="snapshot")
        if reply.get("path") and np.asarray(cv2.imread(reply["path"])).shape[1] == LARGE[0]:
            return
    raise AssertionError("no picture of the large stream")


def test_each_stream_is_there_for_what_it_is_good_for(site: Site) -> None:
    recorded(site)
    eventually(lambda: ringed(site).frame_id > FPS, 20, "a second of both")
    check(ringed(site).image, SMALL)

    attempts = itertools.count()

    def snapshot() -> bool:
        """One of the large stream, and whether it is of the same moment as the frame of its time in the small one.

        On a busy machine one of two streams comes late now and then.
        """
        reply = site.ask(f"snapshot-{next(attempts)}", command="snapshot")
        picture = cv2.imread(reply["path"])
        check(picture, LARGE)
        with FrameReader("c", directory=site.rings) as reader:
            there = reader.at(reply["captured_at"])
        return there is not None and apart(number(picture), number(there.image)) <= 2.2

    eventually(snapshot, 20, "a snapshot of the same moment")

    def still() -> Any:
        """The same of a part of a frame: what was answered, and the frame, where the pictures are of one moment."""
        frame, count = ringed(site), next(attempts)
        asked = {"command": "still", "captured_at": frame.wall_ns / 1e9, "box": [0.25, 0.0, 0.5, 0.5]}
        reply = site.ask(f"still-{count}", **asked, key=f"faces/unknown-thing/{count}.jpg")
        assert reply.get("ok", True), reply
        assert abs(reply["captured_at"] - frame.wall_ns / 1e9) < 0.15
        body = site.sent(f"faces/unknown-thing/{count}.jpg")
        part = cv2.imdecode(np.frombuffer(body[body.index(b"\xff\xd8") :], np.uint8), cv2.IMREAD_COLOR)
        assert part is not None
        assert part.shape == (123, 162, 3)
        assert part[:110, 90:].min() > 225
        return asked if apart(float(part[:110, :70].mean()) / 20, number(frame.image)) <= 2.2 else None

    asked = eventually(still, 20, "a still of the same moment")
    moment = asked["captured_at"]
    assert "below faces/unknown-thing/" in site.ask("key", **asked, key="clips/unknown-thing/a.jpg")["error"]
    key = "faces/unknown-thing/a.jpg"
    assert "(any more)" in site.ask("old", **{**asked, "captured_at": moment - 60}, key=key)["error"]
    assert "is there" in site.ask("never", **{**asked, "captured_at": 1e300}, key=key)["error"]

    reply = site.ask("clip", command="clip", before_s=1, after_s=0.2, key="clips/unknown-thing/a.mp4")
    assert reply.get("ok", True), reply
    body = site.sent("clips")
    with av.open(io.BytesIO(body[body.index(b"ftyp") - 4 :]), "r") as clip:
        shown = [one.to_ndarray(format="bgr24") for one in clip.decode(video=0)]
    assert len(shown) > 5
    for image in shown:
        check(image, LARGE)


def apart(one: float, other: float) -> float:
    """Numbers of frames begin anew after 11."""
    return min((one - other) % 12, (other - one) % 12)


def test_one_stream_fails_and_the_other_goes_on(site: Site) -> None:
    recorded(site)
    good, connections = site.large.behave, site.large.connections
    site.large.behave = sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    first = ringed(site).frame_id

    eventually(lambda: site.large.connections > connections + 2, 30, "attempts")
    assert ringed(site).frame_id > first
    assert site.small.connections == 2  # one to see what it is, one to play it
    health = eventually(lambda: troubled(site), 30, "the trouble")
    assert "HTTP 404" in health or "not found" in health
    site.large.behave = good
    recorded(site)


def troubled(site: Site) -> str:
    """What the health says of the large stream."""
    told = [line["payload"] for line in list(site.running.lines) if line["topic"] == "edgeml/health/CameraCapture"]
    problems = [one for health in told for one in health.get("problems", [])]
    return next((one["text"] for one in problems if one["subject"] == "cameras.c.record"), "")


@pytest.mark.parametrize("kind", ["rtsp", "http"])
def test_what_cannot_be_configured_is_told(kind: str) -> None:
    streams = {"detect": f"{kind}://a/1", "record": f"{kind}://a/2"}
    configured(type=kind, streams=streams).check("cameras.c")
    both = configured(type=kind, location=f"{kind}://a/1", streams=streams)
    with pytest.raises(ConfigError, match=r"cameras\.c\.streams: expected either location or streams"):
        both.check("cameras.c")
    with pytest.raises(ConfigError, match="record"):
        configured(type=kind, streams={"detect": f"{kind}://a/1"})
    secret = {"password": {"secret": "s"}}
    named = {"detect": f"{kind}://u@a/1", "record": f"{kind}://a/2"}
    with pytest.raises(ConfigError, match=r"cameras\.c\.streams\.record: expected rtsp://user@host"):
        configured(type=kind, streams=named, **secret).check("cameras.c")
    named["record"] = f"{kind}://u@a/2"
    made_up: Any = configured(type=kind, streams=named, **secret)
    large = made_up.large()
    assert large.unlocked(lambda reference: "p/w").where == f"{kind}://u:p%2Fw@a/2"
    assert made_up.unlocked(lambda reference: "p/w").where == f"{kind}://u:p%2Fw@a/1"
    assert configured(type=kind, location=f"{kind}://a/1").large() is None  # type: ignore[attr-defined]
