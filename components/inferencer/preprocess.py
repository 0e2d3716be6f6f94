"""Images to input tensors, as a bundle's `input` declares it, and model coordinates back to source pixels."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from edgeml.bundle import InputTensor

Array = np.ndarray[Any, Any]
T = TypeVar("T")

MIN_STEPS = 64  # different values that are left of a pixel's 256 in an integer input
MAX_WAYS = 64  # sizes of pictures that are remembered: one of a camera, many of requests and crops
LETTERBOX_GREY = 114  # the padding value that YOLO models are trained with


@dataclass(frozen=True, slots=True)
class Geometry:
    """source = (model - offset) / scale, in pixels; `width` and `height` are the source's, `size` is the model's."""

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0
    size: tuple[int, int] = (0, 0)

    def to_source(self, points: Array) -> Array:
        """Points [..., 2] (x, y) of the model's input as source pixels."""
        return (points - (self.offset_x, self.offset_y)) / (self.scale_x, self.scale_y)


@dataclass(slots=True, eq=False)
class _Way:
    """How pictures of one size get the model's: the part that is taken, shrunk by whole blocks, resized, and put."""

    geometry: Geometry
    part: tuple[slice, slice] | None = None
    blocks: tuple[int, int] | None = None  # width and height
    resized: tuple[int, int] | None = None
    place: tuple[slice, slice] | None = None  # between grey borders


@dataclass(slots=True)
class _Work:
    """Memory that is used again for each picture: new one costs more than what is done in it."""

    planes: Array | None = None
    way: _Way | None = None
    canvas: Array | None = None  # with the borders of `way`


class Preprocessor:
    """Callable: image (height, width, 3) or (height, width), uint8 -> tensor with batch 1, and its Geometry.

    One resize to the model's size by OpenCV, then one look-up in a table of what each of the 256 pixel values becomes,
    none where that is the value itself: the fastest of the ways tried, most of all right after a model has driven all
    else from the caches.

    Any number of threads may call it. `into`, of the shape and type of the tensor, is where it is made: in a new place
    if it does not fit.
    """

    def __init__(self, declared: InputTensor, max_side: int = 0) -> None:
        """`max_side` > 0 bounds the sides, in pixels, where the model takes any size. Raises ValueError."""
        self._declared = declared
        self._limit = max_side // declared.multiple * declared.multiple if max_side else 0
        if max_side and 0 not in declared.size:
            width, height = declared.size
            raise ValueError(f"max_side is for models that take pictures of any size, this takes {width}x{height}")
        if max_side and not self._limit:
            raise ValueError(f"expected at least {declared.multiple} as max_side, found {max_side}")
        channels = 1 if declared.color == "gray" else 3
        std = np.broadcast_to(np.asarray(declared.std or [1.0], np.float32), (channels,))
        mean = np.broadcast_to(np.asarray(declared.mean or [0.0], np.float32), (channels,))
        # As one factor and one offset per channel, for (pixel * scale - mean) / std:
        self._factor = np.float32(declared.scale) / std
        self._offset = -mean / std
        if not (np.isfinite(self._factor).all() and np.isfinite(self._offset).all()):
            raise ValueError(f"scale {declared.scale}, mean {declared.mean}, std {declared.std} give no finite numbers")
        pixels = np.arange(256, dtype=np.float32)
        self._tables = [_table(pixels * f + o, declared.dtype) for f, o in zip(self._factor, self._offset, strict=True)]
        self._table = np.stack(self._tables, axis=-1)[np.newaxis]  # one column of it for each channel
        self._is_one = all(np.array_equal(table, self._tables[0]) for table in self._tables)
        self._is_plain = self._table.dtype == np.uint8 and self._is_one and np.array_equal(self._tables[0], pixels)
        self._ways: dict[tuple[int, ...], _Way] = {}
        self._idle: list[_Work] = []  # of calls that are over

    def __call__(self, image: Array, pixel_format: str = "bgr24", into: Array | None = None) -> tuple[Array, Geometry]:
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)):  # OpenCV would write where nobody looks
            raise ValueError(f"expected (height, width, 3) or (height, width) of uint8, found {image.shape}")
        declared = self._declared
        work = spare(self._idle) or _Work()
        small, geometry = self._resized(image, work)
        if declared.color == "gray":
            small, swap = _grey(small, pixel_format), False
        else:
            swap = small.ndim == 3 and (pixel_format == "rgb24") != (declared.color == "rgb")
        if declared.layout == "NCHW":
            tensor = self._planes(small, swap, work, into)
        else:
            tensor = self._interleaved(small, swap, into)
        self._idle.append(work)
        return tensor.astype(declared.dtype, copy=False), geometry

    def _planes(self, small: Array, swap: bool, work: _Work, into: Array | None) -> Array:
        channels, height, width = shape = len(self._factor), *small.shape[:2]
        tensor = self._place((1, *shape), into)
        if small.ndim == 2:
            for channel, table in enumerate(self._tables):
                cv2.LUT(small, table, tensor[0, channel])
            return tensor
        planes = tensor[0] if self._is_plain else work.planes
        if planes is None or planes.shape != shape:
            planes = work.planes = np.empty(shape, np.uint8)
        cv2.split(small, list(planes[::-1] if swap else planes))
        if self._is_one and not self._is_plain:
            rows = channels * height, width
            cv2.LUT(planes.reshape(rows), self._tables[0], tensor.reshape(rows))
        elif not self._is_plain:
            for channel, table in enumerate(self._tables):
                cv2.LUT(planes[channel], table, tensor[0, channel])
        return tensor

    def _interleaved(self, small: Array, swap: bool, into: Array | None) -> Array:
        channels = len(self._factor)
        if small.ndim == 2 and channels > 1:
            small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
        elif swap:
            small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        tensor = self._place((1, *small.shape[:2], channels), into)
        if channels == 1:
            cv2.LUT(small, self._tables[0], tensor[0, :, :, 0])
        elif self._is_plain:
            np.copyto(tensor[0], small)
        else:
            cv2.LUT(small, self._table, tensor[0])
        return tensor

    def _place(self, shape: tuple[int, ...], into: Array | None) -> Array:
        if into is not None and into.shape == shape and into.dtype == self._table.dtype:
            return into
        return np.empty(shape, self._table.dtype)

    def _resized(self, image: Array, work: _Work) -> tuple[Array, Geometry]:
        way = self._ways.get(image.shape[:2])
        if way is None:
            if len(self._ways) >= MAX_WAYS:
                self._ways.clear()
            way = self._ways[image.shape[:2]] = self._way(*image.shape[:2])
        if way.part is not None:
            image = image[way.part]
        if way.blocks is not None:
            image = cv2.resize(image, way.blocks, interpolation=cv2.INTER_AREA)
        if way.place is not None:
            canvas = work.canvas
            if canvas is None or work.way is not way or canvas.shape[2:] != image.shape[2:]:
                width, height = way.geometry.size
                canvas = np.full((height, width, *image.shape[2:]), LETTERBOX_GREY, np.uint8)
                work.way, work.canvas = way, canvas
            cv2.resize(image, way.resized, canvas[way.place], interpolation=cv2.INTER_LINEAR)
            return canvas, way.geometry
        if way.resized is not None:
            image = cv2.resize(image, way.resized, interpolation=cv2.INTER_LINEAR)
        return image, way.geometry

    def _way(self, height: int, width: int) -> _Way:
        declared = self._declared
        target_w, target_h = (
            side or self._fitting(own, max(width, height))
            for side, own in zip(declared.size, (width, height), strict=True)
        )
        if declared.resize == "letterbox":
            return _letterboxed(height, width, target_w, target_h)
        if declared.resize == "crop":
            return self._cropped(height, width, target_w, target_h)
        geometry = Geometry(width, height, target_w / width, target_h / height, size=(target_w, target_h))
        return _Way(geometry, resized=None if (target_w, target_h) == (width, height) else (target_w, target_h))

    def _fitting(self, side: int, longer: int) -> int:
        """A side that the model takes, in proportion: the next larger one, but at most the limit."""
        multiple = self._declared.multiple
        if not self._limit or longer <= self._limit:
            return math.ceil(side / multiple) * multiple
        return max(multiple, min(self._limit, math.ceil(side * self._limit / longer / multiple) * multiple))

    def _cropped(self, height: int, width: int, target_w: int, target_h: int) -> _Way:
        """Centre crop after a resize of the shorter side, done in the other order: only what is kept is resized."""
        shorter = self._declared.resize_shorter or max(target_w, target_h)
        scale = shorter / min(width, height)
        # Models are trained on antialiased pictures, and plain bilinear drops pixels. Averaging whole blocks first and
        # interpolating the rest looks the same to them as INTER_AREA at once, in a tenth of its time.
        block = max(1, int(1 / scale))
        crop_w, crop_h = (
            max(block, min(side, round(target / scale)) // block * block)
            for side, target in ((width, target_w), (height, target_h))
        )
        left, top = (width - crop_w) // 2, (height - crop_h) // 2
        scale_x, scale_y = target_w / crop_w, target_h / crop_h
        offset = -left * scale_x, -top * scale_y
        blocks = crop_w // block, crop_h // block
        return _Way(
            Geometry(width, height, scale_x, scale_y, *offset, (target_w, target_h)),
            part=(slice(top, top + crop_h), slice(left, left + crop_w)),
            blocks=blocks if block > 1 else None,
            resized=None if blocks == (target_w, target_h) else (target_w, target_h),
        )


def spare(idle: list[T]) -> T | None:
    """One of what is idle; any number of threads may ask."""
    try:
        return idle.pop()
    except IndexError:
        return None


def _table(values: Array, dtype: str) -> Array:
    """What each pixel value becomes. Raises ValueError where `dtype` does not hold it, or holds it too coarsely."""
    if dtype not in ("uint8", "int8"):
        return (values.round() if "int" in dtype else values).astype(np.float32)
    limits = np.iinfo(dtype)
    rounded = values.round().clip(limits.min, limits.max)
    if np.abs(rounded - values).max() > 0.5 or len(np.unique(rounded)) < MIN_STEPS:
        raise ValueError(
            f"scale, mean and std turn pixels into {values.min():g} to {values.max():g}, the input is {dtype}: "
            f"leave them out, or give those that lead from 0..255 to {limits.min}..{limits.max}"
        )
    return rounded.astype(dtype)


def _letterboxed(height: int, width: int, target_w: int, target_h: int) -> _Way:
    scale = min(target_w / width, target_h / height)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (target_w - inner_w) // 2, (target_h - inner_h) // 2
    return _Way(
        Geometry(width, height, inner_w / width, inner_h / height, left, top, (target_w, target_h)),
        resized=(inner_w, inner_h),
        place=(slice(top, top + inner_h), slice(left, left + inner_w)),
    )


def _grey(image: Array, pixel_format: str) -> Array:
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if pixel_format == "rgb24" else cv2.COLOR_BGR2GRAY)
