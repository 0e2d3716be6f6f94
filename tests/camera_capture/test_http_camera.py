"""Cameras that speak HTTP: streams, snapshots that are asked for again and again, and servers that fall silent."""

import socket
import threading
import time
from pathlib import Path

import pytest

from camera_capture.errors import UndecodableError
from camera_support import configured
from edgeml.errors import SourceError
from hostile_http import ENDLESS, OK, RawServer, endless, sends
from http_camera_support import PICTURES, VALUES, body, camera, jpeg, multipart, seen
from stream_support import camera as camera_of
from stream_support import made
from support import Standalone


@pytest.mark.parametrize("kind", ["plain", "chunked"])
def test_a_stream_of_an_esp32_is_a_camera(server: RawServer, kind: str) -> None:
    data = body(PICTURES, first=b"")
    if kind == "chunked":
        data = b"".join(
            b"%x\r\n%b\r\n" % (len(data[at : at + 99]), data[at : at + 99]) for at in range(0, len(data), 99)
        )
        head = OK + b"Content-Type: multipart/x-mixed-replace;boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.behave = sends(head + data + b"0\r\n\r\n")
    else:
        server.behave = sends(multipart("x", data))
    source = camera(server)
    try:
        source.open()
        assert source.live
        assert seen(source, 5) == VALUES
        with pytest.raises(SourceError, match="the stream ended"):
            source.grab()
    finally:
        source.close()


def test_a_part_that_cannot_be_decoded_is_one_frame_less_and_no_new_connection(server: RawServer) -> None:
    server.behave = sends(multipart("x", body([PICTURES[0], PICTURES[1][:-40], b"nonsense", PICTURES[2]])))
    source = camera(server)
    try:
        found: list[object] = []
        for _ in range(4):
            assert source.grab()
            try:
                found.append(round(float(source.retrieve().mean())))
            except UndecodableError:
                found.append(None)
        assert found == [20, None, None, 100]
    finally:
        source.close()
    assert server.connections == 1


def test_a_size_that_changes_midway_is_the_size_of_the_frames(server: RawServer) -> None:
    server.behave = sends(multipart("x", body([jpeg(9), jpeg(9, 64, 48)])))
    source = camera(server)
    try:
        shapes = [source.grab() and source.retrieve().shape for _ in range(2)]
        assert shapes == [(16, 32, 3), (48, 64, 3)]
    finally:
        source.close()


@pytest.mark.parametrize("kind", ["image/jpeg", "Image/JPEG; charset=x", "application/octet-stream", ""])
def test_a_snapshot_url_is_a_camera_that_is_asked_again_and_again(server: RawServer, kind: str) -> None:
    def behave(sock: socket.socket, ended: threading.Event) -> None:
        picture = PICTURES[(len(server.requests) - 1) % 5]
        sock.sendall(OK + f"Content-Type: {kind}\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture)

    server.behave = behave
    source = camera(server, every_s=0.5)
    try:
        source.open()
        assert (source.live, source.fps) == (False, 2.0)
        assert seen(source, 7) == [*VALUES, 20, 60]
    finally:
        source.close()
    assert len(server.requests) == 7


def test_a_snapshot_without_a_rate_is_taken_each_second(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[0])
    source = camera(server)
    source.open()
    assert source.fps == 1.0
    source.close()


@pytest.mark.parametrize("name", [n for n in ENDLESS if n != "100 Continue floods"])
def test_a_server_that_never_comes_to_an_end_is_left_in_time(server: RawServer, name: str) -> None:
    server.behave = ENDLESS[name]
    source = camera(server, stall_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1:\d+/v: "):
        source.grab()
    source.close()
    assert time.monotonic() - began < 20  # these servers never end


@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace; boundary=x", "image/jpeg"])
def test_a_picture_that_trickles_is_left_in_time(server: RawServer, kind: str) -> None:
    def behave(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(
            OK + f"Content-Type: {kind}\r\n\r\n".encode() + (b"--x\r\n\r\n\xff\xd8" if "multi" in kind else b"")
        )
        while not ended.wait(0.02):
            sock.sendall(b"\0")

    server.behave = behave
    source = camera(server, stall_timeout_s=0.2)
    with pytest.raises(SourceError, match="timed out"):
        source.grab()
    source.close()


def test_a_read_that_waits_is_woken_by_cancel(server: RawServer) -> None:
    server.behave = endless(multipart("x", b""), b"", 20)
    source = camera(server, stall_timeout_s=15)
    source.open()
    errors: list[Exception] = []

    def read() -> None:
        try:
            source.grab()
        except SourceError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    source.cancel()
    reader.join(5)
    source.close()
    assert len(errors) == 1


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "503 Busy", "204 Nothing"])
def test_other_answers_are_told(server: RawServer, status: str) -> None:
    server.behave = sends(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    source = camera(server)
    with pytest.raises(SourceError, match=f"/v: HTTP {status}"):
        source.grab()
    source.close()


def test_what_is_neither_picture_nor_stream_of_pictures_is_left_to_ffmpeg(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: video/x-unknown\r\n\r\nnothing")
    source = camera(server, stall_timeout_s=0.5)
    with pytest.raises(SourceError, match="/v: cannot be opened as http"):
        source.grab()
    source.close()
    assert any(b"Lavf" in request for request in server.requests)


def test_a_page_is_told_as_one(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: text/html\r\n\r\n<html>Please log in")
    source = camera(server)
    with pytest.raises(SourceError, match="answers with a page"):
        source.grab()
    source.close()


def test_a_process_with_a_stream_and_a_snapshot_url(server: RawServer, tmp_path: Path) -> None:
    part = body([*PICTURES, b"nonsense"], first=b"--x\r\n").removesuffix(b"--x--\r\n")
    snapshot = OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[2]

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        if b"GET /snapshot" in server.requests[-1]:
            sock.sendall(snapshot)
        else:
            endless(multipart("x", b""), part, 0.02)(sock, ended)

    server.behave = behave
    place = server.url.replace("http://", "http://r00t:s3cr3t@")
    cameras = {
        "stream": {"type": "http", "location": f"{place}/stream?p=s3cr3t"},
        "still": {"type": "http", "location": f"{place}/snapshot", "every_s": 0.05},
    }
    config = {"ring_directory": str(tmp_path), "cameras": cameras}
    with Standalone("camera_capture", config, tmp_path / "w") as running:
        assert running.message("edgeml/camera/stream/frame", count=20)["width"] == 32
        assert running.message("edgeml/camera/still/frame", count=4)["width"] == 32
        assert running.stop() == 0
    health = running.lines[-1]["payload"]
    assert health["counters"]["cameras.stream.undecodable"] >= 3
    assert "cameras.stream.reconnects" not in health["counters"]
    assert health["problems"] == []
    assert sum(b"/stream" in request for request in server.requests) == 1
    assert "s3cr3t" not in running.log + str(running.lines)


def test_a_video_by_http_is_read_by_ffmpeg_with_its_times_and_packets() -> None:
    with camera_of(made(1.5)) as server:
        source = configured(type="http", location=f"{server.url}/v.ts", stall_timeout_s=5).open()
        tapped: list[int] = []
        source.packets = lambda packet: tapped.append(packet.size)
        source.open()
        assert source.grab()
        assert source.retrieve().shape == (48, 64, 3)
        assert tapped
        assert source.reading is not source
        assert time.monotonic_ns() - (source.reading.captured_ns or 0) < 3e9
        source.cancel()
        with pytest.raises(SourceError, match="cancelled"):
            while source.grab():
                pass
        source.close()
