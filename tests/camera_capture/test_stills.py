"""The command `still`: from the ring to S3, asked for by anybody, and by the Inferencer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from camera_capture import stills
from camera_capture.asked import WITHIN_S, check_key, take
from edgeml import pace
from edgeml.errors import RefusedError
from edgeml.pace import Ration
from inferencer_support import Answer, Endpoint, detects, endpoint, picture
from support import Standalone, eventually

AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
COMMAND, REPLY, FRAME = (f"edgeml/camera/c/{topic}" for topic in ("command", "reply", "frame"))
KEY = "faces/unknown-thing/2000/01/01/a.jpg"
WHOLE = [0.0, 0.0, 1.0, 1.0]


def camera(tmp_path: Path, s3: Endpoint, **settings: Any) -> Standalone:
    """A camera whose picture is noise on the left and black on the right, ten times a second."""
    s3.behave = lambda body: Answer(body=b"")
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = picture(size=(64, 64))
    noise[::2] = 255
    noise[:, 32:] = 0
    cv2.imwrite(str(folder / "one.png"), noise)
    cameras = {
        "c": {"type": "images", "location": str(folder), "fps": 10, "slots": 64, "stills": {"s3_bucket": "a-bucket"}},
        "none": {"type": "test_pattern", "width": 64, "height": 64, "fps": 1},
    }
    cameras["c"] |= settings
    config = {"ring_directory": str(tmp_path), "cameras": cameras}
    return Standalone("camera_capture", config, tmp_path / "c", env={"AWS_ENDPOINT_URL_S3": s3.url, **AWS})


def stored(s3: Endpoint) -> dict[str, Any]:
    """Pictures in the bucket, by key."""
    return {path.partition("?")[0].partition("/a-bucket/")[2]: decoded(body) for path, _, body in s3.requests}


def decoded(body: bytes) -> Any:
    """The SDK sends a body in chunks with sums around them."""
    return cv2.imdecode(np.frombuffer(body[body.index(b"\xff\xd8") :], np.uint8), cv2.IMREAD_COLOR)


def answered(running: Standalone, topic: str, command: dict[str, Any]) -> Any:
    reply = topic.replace("command", "reply")
    before = len([line for line in list(running.lines) if line["topic"] == reply])
    running.send(topic, command)
    return running.message(reply, count=before + 1)


def still(running: Standalone, *, topic: str = COMMAND, **fields: Any) -> Any:
    return answered(running, topic, {"command": "still", "box": WHOLE, "key": KEY, "request_id": "r", **fields})


def test_what_is_in_the_ring_is_sent_and_what_may_not_be_asked_for_is_not(tmp_path: Path) -> None:
    with endpoint() as s3, camera(tmp_path, s3) as running:
        first = running.message(FRAME, count=2)
        moment = first["captured_at"]
        answer = still(running, captured_at=moment, box=[0.5, 0.25, 0.25, 0.5])
        assert (answer.get("ok", True), answer["request_id"], answer["frame_id"]) == (True, "r", first["frame_id"])
        assert still(running, captured_at=moment + 0.03)["frame_id"] == first["frame_id"]

        refused = {
            "not in the ring": {"captured_at": moment - 5},
            "in the ring (any": {"captured_at": moment + 1e9},
            "below faces/unknown-thing/": {"key": "snapshots/unknown-thing/a.jpg"},
            "below faces/unknown-thing/, found": {"key": "faces/another/a.jpg"},
            "found 'faces/unknown-thing'": {"key": "faces/unknown-thing"},
            "names of letters": {"key": "faces/unknown-thing/../another/a.jpg"},
            "letters, digits": {"key": "faces/unknown-thing/a.jpg\n"},
            ".jpg at the end": {"key": "faces/unknown-thing/a.html"},
            "at most 1024 bytes": {"key": f"faces/unknown-thing/{'a' * 1024}.jpg"},
            "box: expected": {"box": [0.5, 0, 0.6, 1]},
            "fractions of the picture": {"box": [0, 0, 0, 1]},
            "box: expected [x, y": {"box": [-0.1, 0, 0.5, 1]},
            "not a camera command": {"box": [0, 0]},
            "sends no stills": {"topic": "edgeml/camera/none/command"},
        }
        for text, fields in refused.items():
            answer = still(running, **{"captured_at": moment, **fields})
            assert (answer["ok"], answer["request_id"]) == (False, "r"), text
            assert text.replace("not in the ring", "is in the ring") in answer["error"]
        clip = {"command": "clip", "before_s": 1, "after_s": 1, "key": "clips/x"}
        assert "keeps no clips" in answered(running, COMMAND, clip)["error"]
        eventually(lambda: len(s3.requests) >= 2, what="the pictures")
    assert list(stored(s3)) == [KEY]
    assert sorted(decoded(body).shape for _, _, body in s3.requests) == [(32, 16, 3), (64, 64, 3)]


def test_the_inferencer_asks_the_camera_sends_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    crops = {"bucket": "a-bucket", "when": "best", "best_after_s": 0.3, "still": True, "min_pixels": 1}
    pipeline = {
        "source": {"type": "camera", "camera": "c", "policy": "every"},
        "backend": {"type": "onnx", "model": "Tiny", "path": str(detects(tmp_path / "b"))},
        "tracking": {"lost_s": 1},
        "crops": crops,
    }
    config = {"ring_directory": str(tmp_path), "pipelines": {"p": pipeline}}
    env = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", **AWS}  # what it sent itself would go nowhere
    mask = [[[0.0, 0.0], [0.3, 0.0], [0.3, 1.0], [0.0, 1.0]]]
    with (
        endpoint() as s3,
        camera(tmp_path, s3, privacy_masks=mask) as running,
        Standalone("inferencer", config, tmp_path / "i", env=env) as asking,
    ):
        command = asking.message(COMMAND)
        running.send(COMMAND, command)
        reply = running.message(REPLY)
        assert reply.get("ok", True), reply
        asking.send(REPLY, reply)
        eventually(lambda: s3.requests, what="the picture")
        assert asking.stop() == 0
        assert asking.lines[-1]["payload"]["counters"].get("pipelines.p.crops", 0) == 0
    ((key, image),) = stored(s3).items()
    assert key == command["key"]
    x, _, w, h = command["box"]
    assert image.shape[:2] == (round(h * 64), round(w * 64))
    hidden = image[:, : max(0, round((0.3 - x) * 64) - 8)]
    assert hidden.max(initial=0) < 8  # what is masked is black here, too


def test_so_many_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ration = Ration(stills.MOST, WITHIN_S)
    for _ in range(stills.MOST):
        take(ration, "stills")
    with pytest.raises(RefusedError, match="60 stills within 60 s"):
        take(ration, "stills")
    now[0] += 60
    take(ration, "stills")


@pytest.mark.parametrize("thing", ["a", "ü:1"])
def test_a_key_below_the_own_folder(thing: str) -> None:
    check_key(f"x/y/{thing}/2000/01/01/120000-p_1-2.jpg", "x/y", thing, ".jpg")
