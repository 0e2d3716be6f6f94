"""Packets are read within a limit, by one thread, for whoever taps them; another thread can end that."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from camera_capture.packets import PacketReader
from edgeml.errors import SourceError
from hostile_http import ENDLESS, OK, RawServer, raw_server
from media_support import encoded


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded(tmp_path_factory.mktemp("clip") / "a.mp4", count=10, every=5)


def reader(place: object, limit_s: float = 5, **settings: Any) -> PacketReader:
    return PacketReader(str(place), shown="cam", limit_s=limit_s, **settings)


def test_packets_are_read_and_tapped_without_being_decoded(clip: Path) -> None:
    tapped: list[Any] = []
    reading = reader(clip, packets=tapped.append).open()
    read = list(iter(reading.read, None))
    assert [packet.is_keyframe for packet in read] == [n % 5 == 0 for n in range(10)]
    assert tapped == read
    assert reading.read() is None
    assert not reading.stream.codec_context.is_open
    reading.close()
    assert bytes(tapped[0])[4] & 0x1F in (6, 7)  # what is kept, is kept


def test_what_a_tap_gets_can_be_written_as_it_is(clip: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "copy.mp4"), "w") as output:

        def write(packet: Any) -> None:
            if not output.streams.video:
                output.add_stream_from_template(packet.stream)
            packet.stream = output.streams.video[0]
            output.mux(packet)

        reading = reader(clip, packets=write).open()
        while reading.read() is not None:
            pass
    reading.close()
    with av.open(str(tmp_path / "copy.mp4")) as copy:
        assert len(list(copy.decode(video=0))) == 10


def test_what_is_closed_or_was_never_open_is_told(clip: Path) -> None:
    reading = reader(clip)
    for _ in range(2):
        with pytest.raises(SourceError, match="cam: is not open"):
            reading.read()
        reading.open().close()
        reading.close()


def test_a_file_without_video_is_told(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame: Any = av.AudioFrame(format="s16", layout="mono", samples=80)
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="cam: it has no video"):
        reader(tmp_path / "a.wav").open()


@pytest.fixture
def silent() -> Iterator[RawServer]:
    with raw_server(ENDLESS["silence"]) as server:
        yield server


def rtsp(server: RawServer) -> str:
    return server.url.replace("http", "rtsp") + "/s?user=me&password=s3cret"


def test_who_says_nothing_is_left_in_time(silent: RawServer) -> None:
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"cam: cannot be opened as video: nothing whole within 0\.3 s"):
        reader(rtsp(silent), 0.3).open()
    assert time.monotonic() - began < 5


def test_a_stream_that_nobody_knew_of_is_not_read_for_ever(tmp_path: Path, clip: Path) -> None:
    """A container may have other streams later on; FFmpeg's packets of them are passed over."""
    known, other = tmp_path / "known.ts", tmp_path / "other.ts"
    for path, options in ((known, {}), (other, {"mpegts_start_pid": "0x300"})):
        with av.open(str(clip)) as source, av.open(str(path), "w", options=options) as output:
            stream = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    output.mux(packet)

    def behave(sock: Any, ended: threading.Event) -> None:
        sock.sendall(OK + b"Content-Type: video/mp2t\r\n\r\n" + known.read_bytes())
        is_open.wait(10)
        while not ended.wait(0.01):
            sock.sendall(other.read_bytes())

    is_open = threading.Event()
    with raw_server(behave) as server:
        reading = reader(server.url, 0.5, open_s=5, options={"analyzeduration": "1"}).open()
        is_open.set()
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"nothing whole within 0\.5 s"):
            list(iter(reading.read, None))
        assert time.monotonic() - began < 8
        reading.close()


def test_another_thread_can_end_a_read(silent: RawServer) -> None:
    reading, told = reader(rtsp(silent), 60), []

    def read() -> None:
        try:
            reading.open()
        except SourceError as error:
            told.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    while not silent.requests:
        assert thread.is_alive()
    reading.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert told == ["cam: reading was cancelled"]
    with pytest.raises(SourceError, match="cancelled"):
        reading.open()


def test_nothing_that_is_secret_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        reader("rtsp://me:s3cret@127.0.0.1:1/x?token=s3cret").open()
    assert str(refused.value) == "cam: cannot be opened as video: connection refused"
