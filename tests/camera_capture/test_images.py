"""A folder of pictures as a camera: what cannot be read is passed over, told, and never the end."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camera_support import source_of
from edgeml.errors import SourceError


def png(value: int) -> bytes:
    return cv2.imencode(".png", np.full((8, 8, 3), value, np.uint8))[1].tobytes()


def jpeg() -> bytearray:
    return bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())


def bomb() -> bytes:
    """Skipped markers before a size that OpenCV refuses by raising."""
    data = jpeg()
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xea\x60\xea\x60"
    return b"\xff\xd8\xff\x01" + bytes(data[2:])


BAD = {
    "a bomb.jpg": bomb(),
    "b cut.jpg": bytes(jpeg()[:-20]),
    "c cut.png": png(1)[:-20],
    "d empty.png": b"",
    "e tiff.png": cv2.imencode(".tiff", np.zeros((4, 4), np.uint8))[1].tobytes(),
    "f.bmp": b"BM" + bytes(100),
    "g.webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}


def taken(source: Any, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count and source.grab():
        found.append(int(source.retrieve().mean()))
    return found


def test_bad_pictures_are_passed_over_in_each_round_and_the_first_is_told(tmp_path: Path) -> None:
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    for value in (10, 50):
        (tmp_path / f"{'a' if value == 10 else 'z'}.png").write_bytes(png(value))
    source = source_of(type="images", location=str(tmp_path))
    assert taken(source, 4) == [10, 50] * 2
    assert source.passed == 2 * len(BAD)
    assert source.trouble.startswith(f"passed over: {tmp_path}/a bomb.jpg: 60000x60000 pixels")
    assert {path.name for path in source.unreadable} == set(BAD)
    for name in BAD:
        (tmp_path / name).unlink()
    assert taken(source, 4) == [10, 50] * 2
    assert source.trouble == ""


def test_a_name_that_is_no_utf8_is_a_picture_like_others(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    Path(os.fsdecode(folder + b"/caf\xe9.png")).write_bytes(png(7))
    Path(os.fsdecode(folder + b"/\xff bad.png")).write_bytes(b"x")
    source = source_of(type="images", location=str(tmp_path))
    assert taken(source, 3) == [7, 7, 7]
    assert "/\\xff bad.png: not a" in source.trouble
    assert source.trouble.encode()


def test_pipes_and_links_to_nowhere_do_not_stop_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere")
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.png").write_bytes(png(3))
    source = source_of(type="images", location=str(tmp_path), loop=False)
    assert taken(source, 9) == [3]
    assert source.passed == 3


@pytest.mark.parametrize("loop", [True, False])
def test_a_folder_in_which_nothing_is_good_says_why(tmp_path: Path, loop: bool) -> None:
    (tmp_path / "a.png").write_bytes(png(3)[:-20])
    source = source_of(type="images", location=str(tmp_path), loop=loop)
    with pytest.raises(SourceError, match=r"no readable picture .*a\.png: not a readable image: cut off"):
        source.grab()


def test_a_folder_that_vanishes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(png(3))
    source = source_of(type="images", location=str(tmp_path / "p"))
    assert taken(source, 1) == [3]
    (tmp_path / "p" / "a.png").unlink()
    (tmp_path / "p").rmdir()
    with pytest.raises(SourceError, match="No such file"):
        source.grab()
