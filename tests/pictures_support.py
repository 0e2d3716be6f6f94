"""Pictures of every format, and pieces to build odd ones of."""

import struct
import zlib

import cv2
import numpy as np

NOISE = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)
SMOOTH = cv2.resize(NOISE[:6, :10], (80, 48))


def encoded(suffix: str, image: object = SMOOTH, *options: int) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()  # type: ignore[call-overload, no-any-return]


JPEG, PNG, BMP, WEBP = (encoded(suffix) for suffix in (".jpg", ".png", ".bmp", ".webp"))
WHOLE = {
    "jpg": JPEG,
    "progressive": encoded(".jpg", SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encoded(".jpg", SMOOTH, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "grey jpg": encoded(".jpg", SMOOTH[:, :, 0]),
    "middle grey": encoded(".jpg", np.full((48, 80, 3), 128, np.uint8)),
    "odd": encoded(".jpg", NOISE[:33, :17]),
    "png": PNG,
    "16 bit": encoded(".png", SMOOTH.astype(np.uint16) * 256),
    "alpha": encoded(".png", np.dstack([SMOOTH, SMOOTH[:, :, 0]])),
    "bmp": BMP,
    "webp": WEBP,
    "webp lossless": encoded(".webp", SMOOTH, cv2.IMWRITE_WEBP_QUALITY, 101),
}


def after_start(*pieces: bytes) -> bytes:
    return JPEG[:2] + b"".join(pieces) + JPEG[2:]


def sized(data: bytes, width: int, height: int) -> bytes:
    """`data` with another size in its header, and a right checksum."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">II", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif data.startswith(b"BM"):
        changed[18:26] = struct.pack("<ii", width, height)
    else:
        at = data.index(b"\xff\xc0")
        changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
