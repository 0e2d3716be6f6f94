"""Pictures of strangers: what is decoded, what is refused and why, and that no file is read but the one meant."""

import itertools
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.errors import PictureError
from edgeml.pictures import decoded, file_bytes, load, shown
from pictures_support import BMP, JPEG, PNG, SMOOTH, WEBP, WHOLE, after_start, chunk, encoded, sized
from support import ROOT


@pytest.mark.parametrize("name", WHOLE)
def test_whole_pictures_are_decoded_as_opencv_does(name: str) -> None:
    expected = cv2.imdecode(np.frombuffer(WHOLE[name], np.uint8), cv2.IMREAD_COLOR)
    assert expected is not None
    for data in (WHOLE[name], WHOLE[name] + b"\0" * 100):  # cameras pad their files
        assert np.array_equal(decoded(data, "x"), expected)


@pytest.mark.parametrize(
    "data",
    [after_start(b"\xff" * 7), after_start(b"\xff\x01" * 3), after_start(b"\xff\xd0\xff\xff\xd7")],
    ids=["fill bytes", "TEM", "RST"],
)
def test_what_libjpeg_skips_is_skipped_and_the_size_found_behind_it(data: bytes) -> None:
    assert decoded(data, "x").shape == (48, 80, 3)
    bomb = data[:2] + data[2:].replace(JPEG[2:], sized(JPEG, 30_000, 30_000)[2:])
    with pytest.raises(PictureError, match="30000x30000 pixels, 50000000 pixels are allowed"):
        decoded(bomb, "x")


def test_a_turned_picture_is_turned_as_its_exif_says() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    assert decoded(after_start(b"\xff\xe1", struct.pack(">H", len(exif) + 2), exif), "x").shape == (80, 48, 3)


REFUSED = {
    "nothing": (b"", "not a JPEG, PNG, BMP or WebP image"),
    "text": (b"hello", "not a JPEG, PNG, BMP or WebP image"),
    "soi": (b"\xff\xd8\xff", "no size found"),
    "png start": (PNG[:20], "no size found"),
    "large png": (sized(PNG, 60_000, 60_000), "60000x60000 pixels"),
    "large jpg": (sized(JPEG, 30_000, 30_000), "30000x30000 pixels"),
    "large bmp": (sized(BMP, 40_000, -40_000), "40000x40000 pixels"),
    "large bmp of OS/2": (b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 65535, 65535, 1, 24) + bytes(9), "65535x65535"),
    "no rows": (sized(JPEG, 8, 0), "8x0 pixels"),
    "two frame headers": (
        JPEG.replace(b"\xff\xda", JPEG[JPEG.index(b"\xff\xc0") :][:19] + b"\xff\xda", 1),
        "more than",
    ),
    "two starts": (after_start(b"\xff\xd8"), "where none belongs"),
    "end first": (after_start(b"\xff\xd9"), "where none belongs"),
    "length": (after_start(b"\xff\xe0\x00\x01"), "a marker is damaged"),
    "markers": (after_start(b"\xff\x01" * 20_000), "more than 10000 markers"),
    "scans": (JPEG[:-2] + b"\xff\xda\x00\x02" * 200 + b"\xff\xd9", "more than 100 scans"),
    "two png headers": (PNG[:33] + PNG[8:], "more than one header"),
    "short png": (PNG[:33] + chunk(b"IDAT", zlib.compress(bytes(500))) + chunk(b"IEND", b""), "not a readable image"),
    "flipped png": (PNG[:200] + bytes([PNG[200] ^ 255]) + PNG[201:], "not a readable image"),
    "webp size": (WEBP[:4] + struct.pack("<I", len(WEBP)) + WEBP[8:], "cut off"),
    "empty webp": (b"RIFF" + struct.pack("<I", 4) + b"WEBP", "no size found"),
    "gif": (encoded(".gif"), "but GIF"),
    "tiff": (encoded(".tiff"), "but TIFF"),
    "jpeg 2000": (encoded(".jp2"), "but JPEG 2000"),
    "ppm": (encoded(".ppm"), "but PNM"),
    "avif": (b"\0\0\0\x20ftypavif", "but HEIF or AVIF"),
    "hdr": (encoded(".hdr", SMOOTH.astype(np.float32)), "but Radiance HDR"),
    "sun": (encoded(".ras"), "but Sun raster"),
    "svg": (b"<svg/>", "but XML, SVG or HTML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(PictureError, match=f"^cam1: .*{re.escape(reason)}"):
        decoded(data, "cam1")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, -1], ids=str)
def test_a_picture_that_is_cut_off_is_an_error(name: str, part: float) -> None:
    data = WHOLE[name]
    with pytest.raises(PictureError):
        decoded(data[: int(len(data) * part) if part > 0 else -1], "x")


@pytest.mark.parametrize("name", ["jpg", "progressive", "restarts", "grey jpg", "odd"])
def test_a_jpeg_that_lost_its_middle_or_was_ended_early_is_an_error(name: str) -> None:
    data = WHOLE[name]
    scan = data.index(b"\xff\xda") + 14
    for kept in (0.2, 0.6):
        cut = scan + int((len(data) - scan) * kept)
        with pytest.raises(PictureError, match="cut off in the middle"):
            decoded(data[:cut].rstrip(b"\xff") + b"\xff\xd9", "x")


def test_only_the_formats_asked_for_and_no_more_pixels_than_allowed() -> None:
    with pytest.raises(PictureError, match="not a JPEG or PNG image but BMP"):
        decoded(BMP, "x", formats=("JPEG", "PNG"))
    with pytest.raises(PictureError, match="80x48 pixels, 3839 pixels are allowed"):
        decoded(PNG, "x", max_pixels=3839)


def test_the_decoder_has_a_limit_of_its_own() -> None:
    """Where the header were misread all the same, in every process of ours."""
    code = (
        "import sys; from edgeml import pictures; import numpy\n"
        "try: pictures.decoded(sys.stdin.buffer.read(), 'x', max_pixels=10**12)\n"
        "except pictures.PictureError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "components", input=sized(JPEG, 30_000, 30_000), capture_output=True
    )
    assert b"x: not a readable image: OpenCV" in done.stdout, done.stderr
    assert b"CV_IO_MAX_IMAGE_PIXELS" in done.stdout


def test_names_that_are_no_utf8_are_read_and_can_be_told(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(name)).write_bytes(PNG)
    (tmp_path / "link.png").symlink_to(os.fsdecode(name))
    assert load(tmp_path / "link.png").shape == (48, 80, 3)
    assert load((tmp_path / "link.png").resolve(), below=[tmp_path.resolve()]).shape == (48, 80, 3)
    Path(os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(PictureError, match=r"caf\\xe9\.png: not a") as caught:
        load(Path(os.fsdecode(name)))
    assert str(caught.value).encode()
    assert shown("a\udcff") == "a\\xff"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe.png", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path / "none.png", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(PictureError, match=reason):
            file_bytes(path)


def test_no_more_bytes_are_read_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(1000))
    assert len(file_bytes(path, max_bytes=1000)) == 1000
    with pytest.raises(PictureError, match="more than 999 bytes"):
        file_bytes(path, max_bytes=999)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a hole of a terabyte
    with pytest.raises(PictureError, match="more than 1000 bytes"):
        file_bytes(path, max_bytes=1000)


def test_a_link_that_is_put_in_the_way_after_the_check_leads_nowhere(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "real").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (allowed / "real" / "a").write_bytes(b"inside")
    (outside / "a").write_bytes(b"secret")
    path, stop, read = allowed / "folder" / "a", threading.Event(), set()
    links = {name: allowed / f".{name}" for name in ("good", "bad")}
    links["good"].symlink_to(allowed / "real")
    links["bad"].symlink_to(outside)

    def swap() -> None:
        while not stop.is_set():
            for link in links.values():
                target = link.readlink()
                link.rename(allowed / "folder")
                link.symlink_to(target)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        deadline = time.monotonic() + 20
        for number in itertools.count():
            try:
                read.add(file_bytes(path, below=[allowed]))
            except PictureError as error:
                read.add(b"stopped" if "allowed folders" in str(error) else b"")
            if (number > 1000 and read >= {b"inside", b"stopped"}) or time.monotonic() > deadline:
                break
    finally:
        stop.set()
        swapper.join()
    assert b"secret" not in read
    assert read >= {b"inside", b"stopped"}  # the swap was seen, and led nowhere
