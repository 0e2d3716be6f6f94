"""The command `clip`: the seconds around it, as a video that lasts as long as they did."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camera_capture import clips as module
from camera_capture.clip_store import ClipStore
from camera_capture.clips import MOST
from clip_support import Keeper, frames_of
from edgeml.errors import RefusedError
from edgeml.frames import FrameWriter
from inferencer_support import Answer, Endpoint, endpoint, picture
from stream_support import FPS, levels, made, packets
from support import Standalone, eventually

AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
COMMAND, REPLY = "edgeml/camera/c/command", "edgeml/camera/c/reply"
KEY = "clips/unknown-thing/2000/01/01/a.mp4"
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


def plain(body: bytes) -> bytes:
    """The SDK sends a file with sums around it."""
    return body[body.index(b"ftyp") - 4 :]


def replies(running: Standalone, topic: str) -> list[Any]:
    return [line["payload"] for line in list(running.lines) if line["topic"] == topic]


def ask(running: Standalone, name: str, topic: str = COMMAND, **fields: Any) -> None:
    running.send(topic, {"command": "clip", "before_s": 1, "after_s": 0.5, "key": KEY, "request_id": name, **fields})


def reply(running: Standalone, name: str, topic: str = REPLY) -> Any:
    return eventually(lambda: [one for one in replies(running, topic) if one.get("request_id") == name], 30, name)[0]


def test_the_seconds_around_a_command_go_to_s3(tmp_path: Path) -> None:
    with endpoint() as s3, camera(tmp_path, s3) as running:
        running.message("edgeml/camera/c/frame", count=30)
        asked_at = time.time()
        ask(running, "good")
        good = reply(running, "good")
        assert good.get("ok", True), good
        assert good["captured_at"] == pytest.approx(asked_at - 1, abs=0.5)
        assert 0.5 < good["seconds"] < 1.8
        refused: dict[str, tuple[str, dict[str, Any]]] = {
            "suffix": (".mp4 at the end", {"key": KEY.replace("mp4", "webm")}),
            "prefix": ("below clips/unknown-thing/", {"key": "faces/unknown-thing/a.mp4"}),
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
    assert list((tmp_path / "c" / "clips").rglob("*.mp4*")) == []
    ((path, headers, body),) = s3.requests
    assert (path.partition("?")[0], headers["Content-Type"]) == (f"/a-bucket/{KEY}", "video/mp4")
    shown = frames_of(plain(body))
    assert len(shown) == pytest.approx(good["seconds"] * 10, abs=1)
    assert max(image[:, :28].max() for image in shown) < 20  # masked
    assert min(image[:, 36:].min() for image in shown) > 235


def test_a_clip_for_which_there_is_no_memory_ends_early(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with (
        Keeper(tmp_path, fps=30, max_bytes=2**21, quality=100, before_s=60) as keeper,
        FrameWriter("c", directory=tmp_path, width=640, height=480) as writer,
    ):
        keeper.ask("a", after_s=60)

        def written() -> Any:
            writer.write(large)
            return keeper.answers.get("a")

        answer = eventually(written, 30, "the clip")
    assert 0 < answer["seconds"] < 20
    assert [arguments[:2] for arguments in keeper.sent] == [("bucket", "clips/t/2000/a.mp4")]


def test_what_a_killed_process_wrote_is_sent_by_the_next(tmp_path: Path) -> None:
    with Keeper(tmp_path, keep_bytes=10**8) as keeper:
        tap = keeper.preroll.tap()
        for packet in packets(made(2)):
            tap(packet)
        keeper.ask("a")
        whole = Path(keeper.answered("a")["path"])
    left = whole.with_name(whole.name.replace("2000~a", "2026~b") + ".part")
    left.write_bytes(whole.read_bytes()[:-2000])
    left.with_name("20000101T000000.000Z-c~2026~c.mp4.part").write_bytes(b"\0\0\0\x20ftyp")
    strange = left.with_name("strange.mp4.part")
    strange.touch()
    with Keeper(tmp_path, keep_bytes=10**8) as keeper:
        ((bucket, key, data, _),) = eventually(lambda: keeper.sent, 10, "the rest")
    assert (bucket, key) == ("bucket", "clips/t/2026/b.mp4")
    assert len(levels(data)) >= FPS
    assert sorted(keeper.folder.iterdir()) == sorted([left.with_suffix(""), strange, whole])


def test_where_there_is_no_clip_the_answer_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Keeper(tmp_path) as keeper:
        keeper.ask("nothing")
        assert keeper.answered("nothing") == "camera c: no frame of that time was kept"
        with pytest.raises(RefusedError):
            keeper.ask("a", before_s=float("nan"))
        keeper.ask("long", key=f"clips/t/{'a' * 300}.mp4")
        assert "key: expected at most" in keeper.answered("long")
        tap = keeper.preroll.tap()
        for packet in packets(made(2)):
            tap(packet)
        begin = ClipStore.begin

        @contextmanager
        def begun(store: ClipStore, key: str, needed: int) -> Iterator[Path]:
            with begin(store, key, needed) as part:
                part.unlink()
                part.symlink_to("/dev/full")
                yield part

        monkeypatch.setattr(ClipStore, "begin", begun)
        keeper.ask("full")
        assert "No space left" in keeper.answered("full")
        monkeypatch.undo()
        keeper.folder.rmdir()
        keeper.folder.write_text("no-folder")
        keeper.ask("no-folder")
        assert "File exists" in keeper.answered("no-folder")
        keeper.folder.unlink()
    assert keeper.sent == []


def test_clips_asked_for_by_the_thousand_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    refused: list[str] = []
    with Keeper(tmp_path) as keeper:
        tap = keeper.preroll.tap()
        for packet in packets(made(1)):
            tap(packet)
        for number in range(1000):
            try:
                keeper.ask(str(number))
                keeper.answered(str(number))
            except RefusedError as error:
                refused.append(str(error))
    assert len(keeper.sent) == MOST
    assert len(refused) == 1000 - MOST
    assert list(keeper.folder.iterdir()) == []
