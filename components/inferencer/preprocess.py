"""Images to input tensors, as a bundle's `input` declares it, and model coordinates back to source pixels."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeml.bundle import InputTensor

Array = np.ndarray[Any, Any]

MIN_STEPS = 64  # different values that are left of a pixel's 256 in an integer input
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


class Preprocessor:
    """Callable: image (height, width, 3) or (height, width), uint8 -> tensor with batch 1, and its Geometry.

    One resize to the model's size by OpenCV, then one look-up per plane in a table of what each of the 256 pixel
    values becomes: the fastest of the ways tried, most of all right after a model has driven all else from the caches.

    `into` [1, channels, height, width], if it is set, is where a tensor of its shape and type is made, each time anew.
    """

    into: Array | None = None

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
        self._integers = self._tables[0].dtype != np.float32

    def __call__(self, image: Array, pixel_format: str = "bgr24") -> tuple[Array, Geometry]:
        declared = self._declared
        small, geometry = self._resized(image)
        if declared.color == "gray":
            small, swap = _grey(small, pixel_format), False
        else:
            swap = small.ndim == 3 and (pixel_format == "rgb24") != (declared.color == "rgb")
        tensor = self._planes(small, swap) if declared.layout == "NCHW" else self._interleaved(small, swap)
        return tensor.astype(declared.dtype, copy=False), geometry

    def _planes(self, small: Array, swap: bool) -> Array:
        channels = len(self._factor)
        planes = cv2.split(small) if small.ndim == 3 else [small] * channels
        tensor = self.into
        if tensor is None or tensor.shape[1:] != (channels, *small.shape[:2]) or tensor.dtype != self._tables[0].dtype:
            tensor = np.empty((1, channels, *small.shape[:2]), self._tables[0].dtype)
        for channel, plane in enumerate(reversed(planes) if swap else planes):
            cv2.LUT(plane, self._tables[channel], tensor[0, channel])
        return tensor

    def _interleaved(self, small: Array, swap: bool) -> Array:
        if len(self._factor) == 1:
            image = small[:, :, np.newaxis]
        elif small.ndim == 2:
            image = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
        else:
            image = cv2.cvtColor(small, cv2.COLOR_BGR2RGB) if swap else small
        if self._integers:
            table = np.stack(self._tables, axis=-1)[np.newaxis]  # one column of it for each channel
            return cv2.LUT(image, table).reshape(1, *image.shape[:2], len(self._factor))
        tensor = image.astype(np.float32)[np.newaxis]
        one = bool((self._factor == self._factor[0]).all() and (self._offset == self._offset[0]).all())
        self._scale(tensor, *(each[0] if one else each for each in (self._factor, self._offset)))
        return tensor

    @staticmethod
    def _scale(out: Array, factor: Any, offset: Any) -> None:
        if np.any(factor != 1):
            out *= factor
        if np.any(offset != 0):
            out += offset

    def _resized(self, image: Array) -> tuple[Array, Geometry]:
        height, width = image.shape[:2]
        declared = self._declared
        target_w, target_h = (
            side or self._fitting(own, max(width, height))
            for side, own in zip(declared.size, (width, height), strict=True)
        )
        if declared.resize == "letterbox":
            return _letterboxed(image, target_w, target_h)
        if declared.resize == "crop":
            return self._cropped(image, target_w, target_h)
        geometry = Geometry(width, height, target_w / width, target_h / height, size=(target_w, target_h))
        if (target_w, target_h) == (width, height):
            return image, geometry
        return cv2.resize(image, (target_w, target_h), interpolation=cv2.INTER_LINEAR), geometry

    def _fitting(self, side: int, longer: int) -> int:
        """A side that the model takes, in proportion: the next larger one, but at most the limit."""
        multiple = self._declared.multiple
        if not self._limit or longer <= self._limit:
            return math.ceil(side / multiple) * multiple
        return max(multiple, min(self._limit, math.ceil(side * self._limit / longer / multiple) * multiple))

    def _cropped(self, image: Array, target_w: int, target_h: int) -> tuple[Array, Geometry]:
        """Centre crop after a resize of the shorter side, done in the other order: only what is kept is resized."""
        height, width = image.shape[:2]
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
        part = image[top : top + crop_h, left : left + crop_w]
        if block > 1:
            part = cv2.resize(part, (crop_w // block, crop_h // block), interpolation=cv2.INTER_AREA)
        small = part
        if part.shape[:2] != (target_h, target_w):
            small = cv2.resize(part, (target_w, target_h), interpolation=cv2.INTER_LINEAR)
        scale_x, scale_y = target_w / crop_w, target_h / crop_h
        offset = -left * scale_x, -top * scale_y
        return small, Geometry(width, height, scale_x, scale_y, *offset, (target_w, target_h))


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


def _letterboxed(image: Array, target_w: int, target_h: int) -> tuple[Array, Geometry]:
    height, width = image.shape[:2]
    scale = min(target_w / width, target_h / height)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    left, top = (target_w - inner_w) // 2, (target_h - inner_h) // 2
    grey = (LETTERBOX_GREY,) * 3
    small = cv2.copyMakeBorder(
        small, top, target_h - inner_h - top, left, target_w - inner_w - left, cv2.BORDER_CONSTANT, value=grey
    )
    return small, Geometry(width, height, inner_w / width, inner_h / height, left, top, (target_w, target_h))


def _grey(image: Array, pixel_format: str) -> Array:
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if pixel_format == "rgb24" else cv2.COLOR_BGR2GRAY)
