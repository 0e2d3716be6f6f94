from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_impulse_runner import images
from edge_impulse_runner.protocol import ModelParameters, ResizeMode

Image = NDArray[np.uint8]


def parameters(width: int = 4, height: int = 4, channels: int = 3) -> ModelParameters:
    return ModelParameters(
        input_features_count=width * height,
        image_input_width=width,
        image_input_height=height,
        image_channel_count=channels,
    )


def noise(*shape: int) -> Image:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_a_pixel_is_packed_red_green_blue() -> None:
    bgr = np.array([[[3, 2, 1], [255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
    assert images.features(bgr).tolist() == [0x010203, 0xFFFFFF, 0]


def test_packing_is_exact_for_every_pixel() -> None:
    image = noise(37, 53, 3)
    wide = image.astype(np.int64)
    expected = (wide[..., 2] << 16) | (wide[..., 1] << 8) | wide[..., 0]
    packed = images.features(image)
    assert packed.dtype == np.float32
    assert np.array_equal(packed.astype(np.int64), expected.ravel())


def test_gray_repeats_its_byte() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert images.features(gray).tolist() == [value * 0x010101 for value in range(256)]


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24"])
def test_either_order_of_colours_gives_the_same_features(pixel_format: str) -> None:
    bgr = noise(4, 4, 3)
    frame = bgr if pixel_format == "bgr24" else np.ascontiguousarray(bgr[..., ::-1])
    seen = images.model_input(frame, pixel_format, parameters(), "squash")
    assert np.array_equal(seen, bgr)
    gray = images.model_input(frame, pixel_format, parameters(channels=1), "squash")
    assert np.array_equal(gray, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


def test_a_gray_camera_serves_gray_and_colour_models() -> None:
    frame = noise(4, 4)
    for channels in (1, 3):
        seen = images.model_input(frame, "gray8", parameters(channels=channels), "squash")
        assert images.features(seen).tolist() == [float(value) * 0x010101 for value in frame.ravel()]


@pytest.mark.parametrize("mode", ["none", "fit-shortest", "fit-longest", "squash"])
@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4)])
def test_what_the_model_sees_is_no_view_of_the_ring(mode: ResizeMode, shape: tuple[int, ...]) -> None:
    frame = noise(*shape)
    pixel_format = "bgr24" if len(shape) == 3 else "gray8"
    assert not np.may_share_memory(images.model_input(frame, pixel_format, parameters(), mode), frame)


def quarters() -> Image:
    """8 x 4: four vertical bars, 2 pixels wide, of 10, 20, 30 and 40."""
    row = np.repeat(np.array([10, 20, 30, 40], dtype=np.uint8), 2)
    return np.tile(row, (4, 1))


@pytest.mark.parametrize(
    ("mode", "row"),
    [
        ("squash", [10, 20, 30, 40]),
        ("fit-shortest", [20, 20, 30, 30]),
        ("none", [20, 20, 30, 30]),
    ],
)
def test_resize_modes(mode: ResizeMode, row: list[int]) -> None:
    assert images.resized(quarters(), 4, 4, mode).tolist() == [row] * 4


def test_fit_longest_has_black_borders() -> None:
    assert images.resized(quarters(), 4, 4, "fit-longest").tolist() == [
        [0, 0, 0, 0],
        [10, 20, 30, 40],
        [10, 20, 30, 40],
        [0, 0, 0, 0],
    ]


def test_no_resizing_centres_a_smaller_image_on_black() -> None:
    small = np.full((2, 2), 7, dtype=np.uint8)
    assert images.resized(small, 4, 4, "none").tolist() == [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("mode", ["none", "fit-shortest", "fit-longest", "squash"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1, 1), (97, 3), (1920, 1), (96, 96)])
def test_any_frame_becomes_the_models_size(mode: ResizeMode, size: tuple[int, int]) -> None:
    frame: Any = noise(size[1], size[0], 3)
    assert images.resized(frame, 96, 64, mode).shape == (64, 96, 3)


def test_the_jpeg_is_the_models_input() -> None:
    image = np.full((96, 96, 3), (200, 100, 50), dtype=np.uint8)
    decoded = cv2.imdecode(np.frombuffer(images.jpeg(image), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert np.abs(decoded.astype(int) - image).max() <= 3
