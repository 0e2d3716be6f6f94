"""Streams of pictures as cameras really send them: odd boundaries, wrong lengths, and no end."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_capture import multipart
from camera_capture.multipart import MAX_LINE, MAX_LINES, Multipart
from edgeml.errors import SourceError
from http_camera_support import PICTURES, VALUES, body, jpeg

STREAMS = {
    "as it should be": ("x", body(PICTURES)),
    "no length": ("x", body(PICTURES, length=False)),
    "no boundary before the first part (ESP32-CAM)": ("x", body(PICTURES, first=b"")),
    "neither": ("x", body(PICTURES, first=b"", length=False)),
    "dashes are part of the boundary": ("--x", body(PICTURES)),
    "dashes are missing": ("--x", body(PICTURES, first=b"x\r\n", between=b"\r\nx\r\n")),
    "quoted": ('"x"', body(PICTURES)),
    "another boundary than said": ("y", body(PICTURES)),
    "none said": ("", body(PICTURES)),
    "none said, no length": ("", body(PICTURES, length=False)),
    "newlines without returns": ("x", body(PICTURES).replace(b"\r\n", b"\n")),
    "blank lines between": ("x", body(PICTURES, between=b"\r\n\r\n\r\n--x\r\n")),
    "no blank line before the boundary": ("x", body(PICTURES, between=b"--x\r\n")),
    "no headers of parts": ("x", b"--x\r\n" + b"\r\n--x\r\n".join(PICTURES) + b"\r\n--x--\r\n"),
    "a blank line and no headers": ("x", b"--x\r\n\r\n" + b"\r\n--x\r\n\r\n".join(PICTURES) + b"\r\n"),
    "nothing but pictures": ("", b"".join(picture + b"\r\n" for picture in PICTURES)),
    "sound in between": (
        "x",
        body(PICTURES, between=b"\r\n--x\r\nContent-Type: audio/basic\r\nContent-Length: 3\r\n\r\nabc\r\n--x\r\n"),
    ),
    "lengths that are no numbers": ("x", body(PICTURES).replace(b"Content-Length: ", b"Content-Length: about ")),
    "an end in between": ("x", body(PICTURES, between=b"\r\n--x--\r\n--x\r\n")),
}


def parts(boundary: str, data: bytes, step: int) -> list[bytes]:
    pieces = iter([data[at : at + step] for at in range(0, len(data), step)])
    reader = Multipart(lambda: next(pieces, b""), boundary, "cam")
    found = []
    while (part := reader.next()) is not None:
        found.append(part)
    return found


def means(found: list[bytes]) -> list[int]:
    images = [cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in found]
    return [round(float(image.mean())) for image in images if image is not None]


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("name", STREAMS)
def test_parts_are_found_however_they_are_sent(name: str, step: int) -> None:
    boundary, data = STREAMS[name]
    assert means(parts(boundary, data, step)) == VALUES


@pytest.mark.parametrize("wrong", [3, -3, 200, -200], ids=str)
def test_wrong_lengths_cost_frames_and_never_the_stream(wrong: int) -> None:
    data = re.sub(rb"Content-Length: (\d+)", lambda m: b"Content-Length: %d" % (int(m[1]) + wrong), body(PICTURES * 4))
    assert len(means(parts("x", data, 1000))) >= (5 if wrong > 0 else 0)
    healed = data + b"\r\n" + body(PICTURES)
    assert means(parts("x", healed, 1000))[-4:] == VALUES[-4:]


@given(st.lists(st.sampled_from([b"--x", b"\r\n", b"\n", b":", b"a", b"\xff\xd8", b"\xff\xd9", b"--", jpeg(9)])))
def test_no_stream_brings_the_reader_down(pieces: list[bytes]) -> None:
    for boundary in ("x", ""):
        assert len(parts(boundary, b"".join(pieces), 5)) <= len(pieces) + 1


def test_a_stream_without_a_picture_or_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_capture.multipart.MAX_PART", 100_000)
    for piece in (b"a" * 1000, b"a: b\r\n", b"\r\n", b"\xff\xd8" + b"a" * 1000):
        reader = Multipart(lambda piece=piece: piece, "x", "cam")  # type: ignore[misc]
        with pytest.raises(SourceError, match="cam: "):
            for _ in range(300):
                reader.next()
    assert MAX_LINE < 100_000


@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001])
def test_parts_come_whole_up_to_the_bytes_that_a_length_may_say_and_beyond(
    monkeypatch: pytest.MonkeyPatch, size: int, with_length: bool
) -> None:
    """A length beyond is not believed: its part ends where the next boundary is."""
    monkeypatch.setattr(multipart, "MAX_PART", 1000)
    part = b"a" * size
    assert parts("x", body([part, PICTURES[0]], length=with_length), 100) == [*filter(None, [part]), PICTURES[0]]


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1])
@pytest.mark.parametrize("lines", [0, 1, MAX_LINES - 4, MAX_LINES + 1])
def test_headers_of_any_length_and_number_cost_no_picture(length: int, lines: int) -> None:
    header = b"a: ".ljust(length - 2, b"b") + b"\r\n"
    data = b"--x\r\n" + header * lines + b"\r\n" + b"\r\n--x\r\n\r\n".join(PICTURES) + b"\r\n--x--\r\n"
    assert means(parts("x", data, 10**6)) == VALUES
