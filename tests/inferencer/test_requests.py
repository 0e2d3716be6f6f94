"""Requests: answered, or refused with a reason; never an end of the pipeline."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.component import Context
from edgeml.errors import IpcError
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly, Running
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.request import RequestSource
from inferencer_support import Recorder, classifier, deliver, make_context, no_uploads, picture, pipeline
from support import eventually

TOPIC, REPLY = "local/inference", "local/result"


class Asker:
    """A running request pipeline and what it answers."""

    def __init__(self, tmp_path: Path, **source: Any) -> None:
        self.ipc = Recorder()
        self.context: Context = make_context(tmp_path / "work", self.ipc)
        self.pictures = tmp_path / "pictures"
        self.pictures.mkdir(exist_ok=True)
        backend = OnnxBackend(model="Tiny", path=str(classifier(tmp_path / "bundle")))
        settings = RequestSource(allowed_dirs=(str(self.pictures),), **source)
        self.relay = Outbox(
            self.context.work / "iot_core.spool", self.context.ipc, self.context.health, max_bytes=1 << 20
        )
        assembly = Assembly(self.context, tmp_path, self.relay, no_uploads)
        self.running: Running = assembly.start("p", pipeline(backend, settings, score_threshold=0.01))
        eventually(lambda: self.context.health.counter("pipelines.p.models_loaded"), 10, "the model")

    def send(self, payload: bytes) -> None:
        deliver(self.running, TOPIC, payload)

    def ask(self, payload: bytes) -> Any:
        before = len(self.ipc.on(REPLY))
        self.send(payload)
        return eventually(lambda: self.ipc.on(REPLY)[before:], 10, "a reply")[0]

    def ask_for(self, name: str, folder: Path | None = None, **more: Any) -> Any:
        return self.ask(json.dumps({"image_dir": str(folder or self.pictures), "fname": name, **more}).encode())

    def close(self) -> None:
        self.running.worker.stop()
        self.relay.close()


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    made = Asker(tmp_path_factory.mktemp("requests"))
    yield made
    made.close()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.Png", "a.npy"])
def test_the_top_label_of_every_kind_of_file(asker: Asker, name: str) -> None:
    image = picture(blue=10, green=30)
    path = asker.pictures / name
    if name.endswith("npy"):
        np.save(path, image)
    else:
        path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    reply = asker.ask_for(name)
    assert reply["label"] == "green"
    assert reply["score"] > 0.99
    assert "error" not in reply


def test_the_whole_result_when_asked_for(tmp_path: Path) -> None:
    asker = Asker(tmp_path, result_format="full")
    try:
        cv2.imwrite(str(asker.pictures / "a.png"), picture(red=9))
        reply = asker.ask_for("a.png", request_id="r1")
        assert reply["results"][0]["label"] == "red"
        assert (reply["request_id"], reply["pipeline"], reply["model"]["name"]) == ("r1", "p", "Tiny")
        assert reply["source"]["file"] == str((asker.pictures / "a.png").resolve())
        long = asker.pictures / ("\1" * 200)  # six times as long in JSON
        long.mkdir()
        cv2.imwrite(str(long / "a.png"), picture(red=9))
        assert "file" not in asker.ask_for("a.png", folder=long)["source"]
        assert "not below" in asker.ask_for("../x.png", request_id="r2")["error"]
    finally:
        asker.close()


def test_each_of_many_requests_is_answered_with_its_own_id(asker: Asker) -> None:
    before = len(asker.ipc.on(REPLY))
    for number, colour in enumerate(({"blue": 9}, {"green": 9}, {"red": 9})):
        cv2.imwrite(
            str(asker.pictures / f"{number}.png"),
            picture(colour.get("blue", 0), colour.get("green", 0), colour.get("red", 0)),
        )
    for number in range(30):
        asker.send(
            json.dumps({"image_dir": str(asker.pictures), "fname": f"{number % 3}.png", "request_id": number}).encode()
        )
    replies = eventually(lambda: r if len(r := asker.ipc.on(REPLY)[before:]) == 30 else [], 10, "30 replies")
    found = {int(reply["request_id"]): reply["label"] for reply in replies}
    assert found == {number: ("blue", "green", "red")[number % 3] for number in range(30)}


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3), b=np.zeros(3))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    start = cv2.imencode(".png", picture())[1].tobytes()
    return start[:16] + width.to_bytes(4) + height.to_bytes(4) + start[24:]


def jpeg_bomb() -> bytes:
    """A small file whose true size stands behind markers that decoders skip."""
    start = bytearray(cv2.imencode(".jpg", picture())[1].tobytes())
    at = start.index(b"\xff\xc0")
    start[at + 5 : at + 9] = (30_000).to_bytes(2) * 2
    return b"\xff\xd8\xff\x01\xff\xd3" + bytes(start[2:])


BAD_FILES = {
    "text.jpg": (b"no picture at all", "not a JPEG or PNG"),
    "empty.png": (b"", "not a JPEG or PNG"),
    "cut.png": (cv2.imencode(".png", np.eye(64, dtype=np.uint8))[1].tobytes()[:60], "not a readable image"),
    "cut.jpg": (cv2.imencode(".jpg", picture())[1].tobytes()[:30], "not a JPEG or PNG"),
    "huge.png": (png_header(60_000, 60_000), "pixels are allowed"),
    "bomb.png": (png_header(7_000, 7_000), "not a readable image"),
    "half.jpg": (cv2.imencode(".jpg", picture())[1].tobytes()[:-9], "cut off"),
    "skipped.jpg": (jpeg_bomb(), "30000x30000 pixels"),
    "disguised.jpg": (cv2.imencode(".tiff", picture())[1].tobytes(), "not a JPEG or PNG image but TIFF"),
    "deep.npy": (b"\x93NUMPY\x01\x00\xff\x1f" + b"[" * 8191, "not an .npy file"),
    "negative.npy": (npy(np.zeros(5)).replace(b"(5,)", b"(-5,)"), "not an .npy file"),
    "words.gif": (b"GIF89a", "expected one of"),
    "none": (b"x", "expected one of"),
    "shape.npy": (npy(np.zeros((4, 4, 7), np.uint8)), "shape (4, 4, 7)"),
    "floats.npy": (npy(np.zeros((4, 4, 3))), "shape (4, 4, 3) of float64"),
    "vector.npy": (npy(np.zeros(5)), "takes images"),
    "objects.npy": (npy(np.array([{}, []], dtype=object)), "not an .npy file of numbers"),
    "words.npy": (npy(np.array(["a"])), "expected numbers"),
    "several.npy": (archive(), "archive"),
    "cut.npy": (npy(np.zeros((40, 40, 3), np.uint8))[:200], "not an .npy file"),
    "header.npy": (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'((", "not an .npy file"),
    "nothing.npy": (b"", "not an .npy file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_picture_gets_an_error(asker: Asker, name: str) -> None:
    content, reason = BAD_FILES[name]
    (asker.pictures / name).write_bytes(content)
    reply = asker.ask_for(name, request_id="7")
    assert reason in reply["error"]
    assert (reply["label"], reply["request_id"]) == ("", "7")
    cv2.imwrite(str(asker.pictures / "good.png"), picture(blue=9))
    assert asker.ask_for("good.png")["label"] == "blue"  # and the pipeline lives on


def test_only_files_below_allowed_folders_are_read(asker: Asker) -> None:
    tmp_path = asker.pictures.parent
    outside = tmp_path / "outside"
    outside.mkdir()
    cv2.imwrite(str(outside / "secret.png"), picture(blue=9))
    (asker.pictures / "link.png").symlink_to(outside / "secret.png")
    (asker.pictures / "folder").symlink_to(outside)
    (tmp_path / "pictures2").mkdir()
    cv2.imwrite(str(tmp_path / "pictures2" / "near.png"), picture(blue=9))
    (asker.pictures / "loop.png").symlink_to("loop.png")
    for name in (
        "../outside/secret.png",
        "link.png",
        "folder/secret.png",
        str(outside / "secret.png"),
        "../pictures2/near.png",
    ):
        assert "is not below one of allowed_dirs" in asker.ask_for(name)["error"], name
    assert asker.ask_for("loop.png")["error"]
    assert asker.ask_for("a\0b.png")["error"]
    assert "no such file" in asker.ask_for("absent.png")["error"]
    (asker.pictures / "dir.png").mkdir()
    assert "is a folder" in asker.ask_for("dir.png")["error"]
    os.mkfifo(asker.pictures / "pipe.png")
    assert asker.ask_for("pipe.png")["error"]
    assert "name too long" in asker.ask_for("x" * 300 + ".png")["error"].lower()


def test_a_name_that_is_no_utf8_behind_a_link_is_read_and_told(asker: Asker) -> None:
    target = os.fsencode(asker.pictures) + b"/caf\xe9.png"
    Path(os.fsdecode(target)).write_bytes(cv2.imencode(".png", picture(blue=9))[1].tobytes())
    (asker.pictures / "cafe.png").symlink_to(os.fsdecode(target))
    assert asker.ask_for("cafe.png")["label"] == "blue"
    Path(os.fsdecode(target)).write_bytes(b"x")
    assert "caf\\xe9.png: not a JPEG or PNG" in asker.ask_for("cafe.png")["error"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b"null",
        b'{"image_dir": 7, "fname": []}',
        b'{"image_dir": "/"}',
        b"[" * 5000,
        b"\xff",
    ],
)
def test_what_is_no_request_gets_an_error(asker: Asker, payload: bytes) -> None:
    assert "not a request" in asker.ask(payload)["error"]


def test_requests_beyond_the_queue_get_an_error_at_once(tmp_path: Path) -> None:
    asker = Asker(tmp_path, queue=2)
    try:
        asker.running.worker.ask_to_stop()  # nobody takes requests any more
        for number in range(8):
            asker.send(json.dumps({"fname": "a.png", "request_id": number}).encode())
        refused = [r for r in asker.ipc.on(REPLY) if "waiting already" in r["error"]]
        assert len(refused) >= 5
    finally:
        asker.close()
    assert {r["request_id"] for r in asker.ipc.on(REPLY)} == {str(number) for number in range(8)}  # none is forgotten


def test_an_archive_is_no_picture(asker: Asker) -> None:
    with zipfile.ZipFile(asker.pictures / "a.png", "w") as made:
        made.writestr("x", "y")
    assert "not a JPEG or PNG" in asker.ask_for("a.png")["error"]


def test_a_result_that_cannot_be_told_to_everyone_still_answers_the_request(asker: Asker) -> None:
    cv2.imwrite(str(asker.pictures / "told.png"), np.zeros((8, 8, 3), np.uint8))
    publish = asker.ipc.publish

    def full(topic: str, payload: bytes, *, wait: float = 0.0) -> None:
        if topic == "edgeml/inference/p":
            raise IpcError("the core has too much to answer")
        publish(topic, payload)

    asker.ipc.publish = full  # type: ignore[method-assign]
    try:
        assert "label" in asker.ask_for("told.png")
    finally:
        asker.ipc.publish = publish  # type: ignore[method-assign]
    assert asker.context.health.counter("pipelines.p.not_sent") == 1
