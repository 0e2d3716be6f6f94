"""Images to tensors beside a plain computation, and back to source pixels."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.bundle import InputTensor
from inferencer.preprocess import Preprocessor

RNG = np.random.default_rng(7)
IMAGE = RNG.integers(0, 256, (48, 64, 3), np.uint8)


def declared(**changes: Any) -> InputTensor:
    return InputTensor(**{"name": "x", "size": (64, 48), "color": "bgr", **changes})


def plain(image: Any, settings: InputTensor) -> Any:
    """BGR image, already of the model's size, step by step."""
    picture = image[:, :, ::-1] if settings.color == "rgb" else image
    values = (picture.astype(np.float64) * settings.scale - (settings.mean or 0)) / (settings.std or 1)
    return values[np.newaxis] if settings.layout == "NHWC" else values.transpose(2, 0, 1)[np.newaxis]


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"scale": 1 / 255},
        {"mean": [127.0], "std": [128.0]},
        {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ],
)
def test_tensors_equal_a_plain_computation(color: str, layout: str, numbers: dict[str, Any]) -> None:
    settings = declared(color=color, layout=layout, **numbers)
    tensor, _ = Preprocessor(settings)(IMAGE)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, plain(IMAGE, settings), atol=2e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_other_types_of_input(layout: str, dtype: str) -> None:
    settings = declared(layout=layout, dtype=dtype, color="rgb")
    tensor, _ = Preprocessor(settings)(IMAGE)
    assert tensor.dtype == dtype
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor.astype(np.float64), plain(IMAGE, settings))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_order_of_the_frame_s_channels_does_not_matter(layout: str) -> None:
    prepare = Preprocessor(declared(layout=layout, mean=[1.0, 2.0, 3.0]))
    rgb = np.ascontiguousarray(IMAGE[:, :, ::-1])
    np.testing.assert_array_equal(prepare(IMAGE, "bgr24")[0], prepare(rgb, "rgb24")[0])


def test_grey_frames_for_colour_models_and_colour_frames_for_grey_ones() -> None:
    grey = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)
    for layout, axis in (("NCHW", 1), ("NHWC", 3)):
        tensor, _ = Preprocessor(declared(layout=layout, color="rgb"))(grey, "gray8")
        assert tensor.shape[axis] == 3
        np.testing.assert_array_equal(tensor.take(0, axis), grey[np.newaxis])
        tensor, _ = Preprocessor(declared(layout=layout, color="gray"))(IMAGE)
        assert tensor.shape[axis] == 1
        np.testing.assert_array_equal(tensor.take(0, axis), grey[np.newaxis])


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"size": (32, 16)}, (16, 32)),
        ({"size": (40, 40), "resize": "letterbox"}, (40, 40)),
        ({"size": (20, 20), "resize": "crop", "resize_shorter": 24}, (20, 20)),
        ({"size": (0, 0), "multiple": 32}, (64, 64)),
    ],
)
def test_a_point_of_the_model_is_the_same_point_of_the_source(settings: dict[str, Any], shape: tuple[int, int]) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[20:28, 36:44] = 255  # centre (40, 24)
    tensor, geometry = Preprocessor(declared(**settings))(image)
    assert tensor.shape[2:] == shape
    rows, columns = np.nonzero(tensor[0, 0] > 200)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    np.testing.assert_allclose(geometry.to_source(centre), (40, 24), atol=1.6)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_pictures_of_few_pixels_are_pictures(resize: str, size: tuple[int, int]) -> None:
    """What is cut out of a picture may be a line."""
    image = np.zeros((*size, 3), np.uint8)
    tensor, geometry = Preprocessor(declared(size=(32, 64), resize=resize, resize_shorter=80))(image)
    assert tensor.shape == (1, 3, 64, 32)
    assert np.isfinite(geometry.to_source(np.array([[0, 0], [32, 64]]))).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_tensor_never_shares_memory_with_the_image(layout: str, dtype: str) -> None:
    """The image may lie in a frame ring, whose writer goes on while the model runs."""
    image = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    tensor, _ = Preprocessor(declared(layout=layout, dtype=dtype, color="bgr", size=(0, 0)))(image)
    assert not np.shares_memory(tensor, image)


def test_a_crop_is_what_area_averaging_gives() -> None:
    image = cv2.GaussianBlur(RNG.integers(0, 256, (720, 1280, 3), np.uint8), (0, 0), 3)
    tensor, _ = Preprocessor(declared(size=(224, 224), resize="crop", resize_shorter=256))(image)
    side = round(224 * 720 / 256)
    top, left = (720 - side) // 2, (1280 - side) // 2
    area = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(tensor[0].transpose(1, 2, 0) - area).mean() < 1.5
    assert np.abs(tensor[0].mean() - area.mean()) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2000, 3), (5, 1500)])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_odd_sizes(size: tuple[int, int], resize: str) -> None:
    tensor, _ = Preprocessor(declared(size=(64, 48), resize=resize))(np.zeros((*size, 3), np.uint8))
    assert tensor.shape == (1, 3, 48, 64)


def test_numbers_that_give_no_tensor_are_refused() -> None:
    for wrong in ({"std": [0.0]}, {"mean": [1.0, 2.0]}):
        with pytest.raises(ValueError, match=r"finite|broadcast"), np.errstate(divide="ignore", invalid="ignore"):
            Preprocessor(declared(**wrong))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("numbers", [{}, {"mean": [1.0]}, {"mean": [1.0, 2.0, 3.0]}])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_memory_used_again_leaves_nothing_of_the_picture_before(
    dtype: str, numbers: dict[str, Any], resize: str, layout: str
) -> None:
    settings = declared(dtype=dtype, layout=layout, resize=resize, color="rgb", **({} if dtype == "uint8" else numbers))
    one, into = Preprocessor(settings), None
    for size in ((48, 64, 3), (96, 64, 3), (48, 64, 3), (48, 64), (96, 96, 3), (48, 64, 3)):
        image = RNG.integers(0, 256, size, np.uint8)
        expected, geometry = Preprocessor(settings)(image)
        found, there = one(image, into=into)
        np.testing.assert_array_equal(found, expected)
        assert there == geometry
        assert not np.shares_memory(found, image)
        into = found


def test_a_tensor_is_made_where_it_is_to_be_if_that_fits() -> None:
    into = np.empty((1, 3, 48, 64), np.float32)
    one = Preprocessor(declared())
    assert one(IMAGE, into=into)[0] is into
    assert one(IMAGE, into=into.astype(np.uint8))[0].dtype == np.float32
    assert one(IMAGE)[0] is not into


def test_threads_that_prepare_at_once_do_not_meet() -> None:
    one = Preprocessor(declared(size=(64, 64), resize="letterbox"))
    images = [np.full((480, 640, 3), value, np.uint8) for value in range(8)]
    expected = [Preprocessor(declared(size=(64, 64), resize="letterbox"))(image)[0] for image in images]
    with ThreadPoolExecutor(4) as threads:
        for index, (found, _) in zip([*range(8)] * 40, threads.map(one, images * 40), strict=True):
            np.testing.assert_array_equal(found, expected[index])


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("numbers", [{"dtype": "uint8"}, {"dtype": "int8", "mean": [128.0]}])
def test_integer_inputs_are_made_without_an_array_of_floats(
    numbers: dict[str, Any], resize: str, layout: str, pixel_format: str
) -> None:
    """Resized, its channels in order, and the tensor: a byte each of a pixel's channels. Floats alone would be four."""
    one = Preprocessor(declared(layout=layout, resize=resize, size=(200, 160), **numbers))
    image = RNG.integers(0, 256, (240, 280, 3), np.uint8)
    one(image, pixel_format)
    tracemalloc.start()
    try:
        tensor, _ = one(image, pixel_format)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tensor.dtype == numbers["dtype"]
    assert tensor.nbytes <= peak < 3.5 * tensor.nbytes
