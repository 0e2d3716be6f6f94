"""A camera with two streams sends the picture itself; where it does not, what was seen is sent."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.frames import FrameWriter
from inferencer import stills
from inferencer.assembly import check
from inferencer.config import Config
from inferencer.sinks.crops import BestSink, Crops
from inferencer.stills import MOST, Stills, Wanted
from inferencer.writer import Writer
from inferencer_support import Answer, detects, endpoint, make_context, picture
from support import Standalone, eventually

AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def wanted(name: str) -> Wanted:
    return Wanted(name, f"faces/thing/{name}.jpg", b"jpeg", 1e9, 1e9 + 2, (0.1, 0.2, 0.3, 0.4))


def test_the_camera_is_asked_by_time_and_place(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    asking = Stills("door", context)
    assert asking.ask(wanted("p-1-0"))
    ipc: Any = context.ipc
    assert ipc.on("edgeml/camera/door/command") == [
        {
            "command": "still",
            "captured_at": 1e9 + 2,
            "box": [0.1, 0.2, 0.3, 0.4],
            "key": "faces/thing/p-1-0.jpg",
            "request_id": "p-1-0",
        }
    ]


@pytest.mark.parametrize(
    ("reply", "missing"),
    [
        (b'{"camera": "c", "command": "still", "request_id": "a"}', []),
        (b'{"camera": "c", "command": "still", "request_id": "a", "ok": false, "error": "one stream"}', ["a"]),
        (b'{"camera": "c", "command": "still", "request_id": "b", "ok": false}', []),
        (b'{"camera": "c", "command": "snapshot", "ok": false}', []),
        (b"[", []),
    ],
    ids=["sent", "refused", "of another", "of another command", "nonsense"],
)
def test_what_the_camera_says(tmp_path: Path, reply: bytes, missing: list[str]) -> None:
    asking = Stills("c", make_context(tmp_path))
    asking.ask(wanted("a"))
    ((_, handler),) = asking.topics()
    handler("edgeml/camera/c/reply", reply)
    assert [each.name for each in asking.missing()] == missing
    assert asking.missing() == []


def test_a_camera_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "WAIT_S", 0.0)
    asking = Stills("c", make_context(tmp_path))
    assert all(asking.ask(wanted(f"{number}")) for number in range(MOST))
    assert not asking.ask(wanted("one more"))
    assert len(asking.missing()) == MOST
    assert asking.ask(wanted("one more"))
    assert [each.name for each in asking.missing(at_the_end=True)] == ["one more"]


def keys_sent(requests: Sequence[tuple[str, Any, Any]]) -> set[str]:
    return {path.partition("?")[0].partition("/a-bucket/")[2] for path, _, _ in requests}


def test_each_object_has_its_picture_whatever_the_camera_answers(tmp_path: Path) -> None:
    config = {
        "ring_directory": str(tmp_path),
        "pipelines": {
            "p": {
                "source": {"type": "camera", "camera": "c", "policy": "every"},
                "backend": {"type": "onnx", "model": "Tiny", "path": str(detects(tmp_path / "b"))},
                "tracking": {"lost_s": 1},
                "crops": {"bucket": "a-bucket", "when": "best", "best_after_s": 0.3, "still": True, "min_pixels": 1},
            }
        },
    }
    noise = picture(size=(64, 64))
    noise[::2] = 255
    with (
        endpoint() as s3,
        FrameWriter("c", width=64, height=64, slots=64, directory=tmp_path) as writer,
        Standalone("inferencer", config, tmp_path / "w", env={"AWS_ENDPOINT_URL_S3": s3.url, **AWS}) as running,
    ):
        s3.behave = lambda body: Answer(body=b"")
        running.logged("model loaded")
        commands = []
        for number, ok in enumerate((True, None, False)):  # what is refused last is followed by no frame
            for frame in range(5):
                moment = int((100 + 20 * number + frame / 10) * 1e9)
                writer.write(noise, captured_ns=moment, wall_ns=int(1.7e18) + moment)
            commands.append(running.message("edgeml/camera/c/command", count=number + 1))
            if ok is not None:
                answer = {"camera": "c", "command": "still", "ok": ok, "request_id": commands[-1]["request_id"]}
                running.send("edgeml/camera/c/reply", answer)
        keys = [command["key"] for command in commands]
        eventually(lambda: keys[2] in keys_sent(s3.requests), 20, "the picture that the camera refused")
        assert running.stop() == 0  # which sends the one that it has not answered
        sent = keys_sent(s3.requests)
    assert keys[2] in sent <= {keys[1], keys[2]}
    assert commands[0]["box"] == [0.0, 0.0, 1.0, 1.0] or all(0 <= side <= 1 for side in commands[0]["box"])


def test_a_reply_waits_for_no_disk(tmp_path: Path) -> None:
    context, begun, free = make_context(tmp_path), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        free.wait(20)

    asking, writer, sent = Stills("c", context), Writer("p", context), list[str]()
    uploader: Any = SimpleNamespace(put=lambda bucket, key, *_, **more: sent.append(key))
    sink = BestSink("p", Crops(bucket="a-bucket", when="best", still=True), context, uploader, writer, asking)
    ((topic, replied),) = sink.topics()
    asking.ask(wanted("a"))
    refused = b'{"camera": "c", "command": "still", "request_id": "a", "ok": false}'
    try:
        writer.put(hang)
        assert begun.wait(10)
        while not writer.full:
            writer.put(hang)
        handler = threading.Thread(target=replied, args=(topic, refused))
        handler.start()
        handler.join(10)
        assert not free.is_set()
        assert not handler.is_alive()
    finally:
        free.set()
        writer.close()
    assert not sent
    sink.close()
    assert len(sent) == 1


CAMERA = {"type": "camera", "camera": "c"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "privacy": ({"source": CAMERA, "privacy": {}}, "p.crops.still: the camera's own picture would show"),
    "no camera": (
        {"source": {"type": "timer", "file": "/picture.jpg"}},
        "p.crops.still: needs a source of frames of a camera",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_no_camera_is_to_show_is_refused(fault: str) -> None:
    fields, text = REFUSED[fault]
    crops = {"when": "best", "still": True}
    common = {"backend": {"type": "onnx", "model": "M"}, "tracking": {}, "crops": crops}
    with pytest.raises(ConfigError) as caught:
        check(load(Config, {"pipelines": {"p": {**common, **fields}}}).pipelines, "thing")
    assert text in str(caught.value)
