"""Clips of cameras that send packets: copied, unless something is to be hidden or a browser would not play them."""

import io
import time
from pathlib import Path

import av
import pytest

from camera_capture.preroll import Preroll
from camera_support import source_of
from clip_support import Keeper, frames_of
from inferencer_support import Answer, endpoint
from stream_support import FPS, Made, camera, levels, made, packets
from support import Standalone, eventually


@pytest.fixture(scope="module")
def long() -> Made:
    return made(20, sound="aac")


def test_a_stream_is_copied_around_the_command(tmp_path: Path, long: Made) -> None:
    with Keeper(tmp_path, keep_bytes=10**8) as keeper, keeper.watching(long):
        eventually(lambda: len(keeper.preroll.since(0)) > 2 * FPS, 10, "a pre-roll")
        asked_at = time.time()
        keeper.ask("a", before_s=0.7, after_s=0.5)
        answer = keeper.answered("a")
        assert asked_at - 1.4 < answer["captured_at"] < asked_at - 0.5
        assert answer["captured_at"] + answer["seconds"] == pytest.approx(asked_at + 0.5, abs=0.3)
        ((bucket, key, data, kind),) = keeper.sent
        assert (bucket, key, kind) == ("bucket", "clips/t/2000/a.mp4", "video/mp4")
        assert Path(answer["path"]).read_bytes() == data
        assert Path(answer["path"]).name.endswith("Z-c~2000~a.mp4")
        numbers = levels(data)
        assert numbers == [(numbers[0] + number) % 12 for number in range(len(numbers))]
        assert len(numbers) == pytest.approx(answer["seconds"] * FPS, abs=3)
        with av.open(io.BytesIO(data), "r") as clip:
            assert [stream.type for stream in clip.streams] == ["video", "audio"]

        keeper.ask("ends", before_s=0, after_s=60)  # with the component
        part = eventually(lambda: list(keeper.folder.glob("*.part")), 10, "what is written of it")[0]
        eventually(lambda: part.stat().st_size > 5000, 10, "what is written of it")
        keeper.keeper.stop()
        assert keeper.answered("ends")["seconds"] > 0.5
    assert len(keeper.sent) == 2
    assert levels(keeper.sent[1][2])


def test_a_connection_that_ends_ends_the_clip(tmp_path: Path) -> None:
    with Keeper(tmp_path) as keeper:
        with keeper.watching(made(1.5)):
            keeper.ask("a", after_s=60)
        keeper.preroll.tap()
        assert 0 < keeper.answered("a")["seconds"] < 1.7


def test_masks_hide_in_clips_of_streams_too(tmp_path: Path) -> None:
    with Keeper(tmp_path, masks=[[[0.5, 0.0], [1.0, 0.0], [1.0, 0.5], [0.5, 0.5]]], fps=5) as keeper:
        tap = keeper.preroll.tap()
        for packet in packets(made(3, size=(68, 46))):
            tap(packet)
        keeper.ask("a")
        answer = keeper.answered("a")
    shown = frames_of(keeper.sent[0][2])
    assert len(shown) == pytest.approx(15, abs=1)
    assert answer["seconds"] == pytest.approx(3, abs=0.3)
    for image in shown:
        assert image[:21, 36:].max() < 30
        assert image[27:, 38:].min() > 225


@pytest.mark.parametrize(
    ("codec", "sound", "rate"),
    [("mpeg4", "", 0), ("libx264", "mp2", 16000), ("libx264", "ac3", 48000), ("libx264", "libmp3lame", 8000)],
)
def test_what_mp4_or_a_browser_cannot_take(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    sound: str,
    rate: int,
) -> None:
    monkeypatch.setattr("stream_support.RATE", rate)
    with Keeper(tmp_path, fps=20) as keeper:
        for name in ("first", "second"):
            tap = keeper.preroll.tap()
            for packet in packets(made(1, codec=codec, sound=sound)):
                tap(packet)
            keeper.ask(name)
            assert keeper.answered(name)["seconds"] > 0.5
    assert len(keeper.sent) == 2
    for _, _, data, _ in keeper.sent:
        with av.open(io.BytesIO(data), "r") as clip:
            assert [stream.codec_context.name for stream in clip.streams] == ["h264"]
        assert len(levels(data)) >= FPS - 2
    assert caplog.text.count("clips have no sound") == (1 if sound else 0)


@pytest.mark.parametrize(
    ("codec", "fps", "some"),
    [("libx264", 0, True), ("libx264", 5, False), ("mpeg4", 0, True), ("rawvideo", 0, False)],
)
def test_a_file_has_packets_where_it_plays_as_it_says(tmp_path: Path, codec: str, fps: float, some: bool) -> None:
    """And where they are smaller than its pictures."""
    container = "mpegts" if some or fps else "matroska"
    (tmp_path / "a.ts").write_bytes(made(1, codec=codec, container=container).data)
    source, kept = source_of(type="file", location=str(tmp_path / "a.ts"), loop=False, fps=fps), Preroll(10, 10**6)
    source.packets = kept.tap()
    source.open()
    while source.grab():
        source.retrieve()
    source.close()
    assert bool(kept.codec) is some


def test_a_kill_costs_a_second_of_a_copy(tmp_path: Path) -> None:
    aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    clips = {"s3_bucket": "a-bucket", "keep_bytes": 10**8}
    with endpoint() as s3, camera(made(60)) as server:
        s3.behave = lambda body: Answer(body=b"")
        config = {
            "ring_directory": str(tmp_path),
            "cameras": {"c": {"type": "http", "location": server.url, "clips": clips}},
        }
        work, env = tmp_path / "c", {"AWS_ENDPOINT_URL_S3": s3.url, **aws}
        command = {"command": "clip", "before_s": 1, "after_s": 60, "key": "clips/unknown-thing/2026/a.mp4"}
        with Standalone("camera_capture", config, work, env=env) as running:
            running.message("edgeml/camera/c/frame", count=2 * FPS)
            running.send("edgeml/camera/c/command", command)
            part = eventually(lambda: list(work.glob("clips/c/*.part")), 10, "the clip")[0]
            before = eventually(lambda: part.stat().st_size, 10, "what is written of it")
            eventually(lambda: part.stat().st_size > before, 10, "more of it")
            running.process.kill()
        with Standalone("camera_capture", config, work, env=env):
            ((path, _, body),) = eventually(lambda: s3.requests, 30, "what had been written")
        (kept,) = work.glob("clips/c/*.mp4")
    assert path.partition("?")[0] == "/a-bucket/clips/unknown-thing/2026/a.mp4"
    assert kept.read_bytes() in body
    numbers = levels(kept)
    assert len(numbers) >= FPS
    assert numbers == [(numbers[0] + number) % 12 for number in range(len(numbers))]
