"""Images to input tensors, as a bundle's `input` declares it, and model coordinates back to source pixels."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeml.models import Input

Array = np.ndarray[Any, Any]

LETTERBOX_GREY = 114  # the padding value that YOLO models are trained with


@dataclass(frozen=True, slots=True)
class Geometry:
    """source = (model - offset) / scale, in pixels; `width` and `height` are the source's."""

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_source(self, points: Array) -> Array:
        """Points [..., 2] (x, y) of the model's input as source pixels."""
        return (points - (self.offset_x, self.offset_y)) / (self.scale_x, self.scale_y)


class Preprocessor:
    """Callable: image (height, width, 3) or (height, width), uint8 -> tensor with batch 1, and its Geometry.

    Everything per pixel happens in OpenCV: one resize to the model's size, then one blobFromImage for channel order,
    mean, scale and layout. A standard deviation per channel costs one more pass over the small tensor.
    """

    def __init__(self, declared: Input) -> None:
        self._declared = declared
        channels = 1 if declared.color == "gray" else 3
        std = np.broadcast_to(np.asarray(declared.std or [1.0], np.float32), (channels,))
        mean = np.broadcast_to(np.asarray(declared.mean or [0.0], np.float32), (channels,))
        # (x * scale - mean) / std as blobFromImage's (x - offset) * factor
        self._one_std = bool((std == std[0]).all())
        self._factor = declared.scale / float(std[0]) if self._one_std else declared.scale
        # blobFromImage takes the mean in the order of its output channels
        self._offset = [float(value) for value in mean / declared.scale]
        self._std = None if self._one_std else np.ascontiguousarray(std.reshape(1, channels, 1, 1))

    def __call__(self, image: Array, pixel_format: str = "bgr24") -> tuple[Array, Geometry]:
        declared = self._declared
        small, geometry = self._resized(image)
        if declared.color == "gray":
            small = _grey(small, pixel_format)
            swap = False
        else:
            if small.ndim == 2:
                small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
            swap = (pixel_format == "rgb24") != (declared.color == "rgb")
        if declared.dtype == "uint8":
            return self._raw(small, swap), geometry
        blob: Array = cv2.dnn.blobFromImage(small, self._factor, (0, 0), self._offset, swap, False, cv2.CV_32F)
        if self._std is not None:
            blob /= self._std
        if declared.layout == "NHWC":
            blob = np.ascontiguousarray(blob.transpose(0, 2, 3, 1))
        return (blob.astype(np.float16) if declared.dtype == "float16" else blob), geometry

    def _raw(self, small: Array, swap: bool) -> Array:
        image = cv2.cvtColor(small, cv2.COLOR_BGR2RGB) if swap else small
        image = image[:, :, np.newaxis] if image.ndim == 2 else image
        tensor = image[np.newaxis] if self._declared.layout == "NHWC" else image.transpose(2, 0, 1)[np.newaxis]
        return np.ascontiguousarray(tensor)

    def _resized(self, image: Array) -> tuple[Array, Geometry]:
        height, width = image.shape[:2]
        declared = self._declared
        multiple = declared.multiple
        target_w, target_h = (
            side or math.ceil(own / multiple) * multiple
            for side, own in zip(declared.size, (width, height), strict=True)
        )
        if declared.resize == "letterbox":
            return _letterboxed(image, target_w, target_h)
        if declared.resize == "crop":
            return self._cropped(image, target_w, target_h)
        geometry = Geometry(width, height, target_w / width, target_h / height)
        if (target_w, target_h) == (width, height):
            return image, geometry
        return cv2.resize(image, (target_w, target_h), interpolation=cv2.INTER_LINEAR), geometry

    def _cropped(self, image: Array, target_w: int, target_h: int) -> tuple[Array, Geometry]:
        """Centre crop after a resize of the shorter side, done in the other order: only what is kept is resized."""
        height, width = image.shape[:2]
        shorter = self._declared.resize_shorter or max(target_w, target_h)
        scale = shorter / min(width, height)
        crop_w, crop_h = min(width, round(target_w / scale)), min(height, round(target_h / scale))
        left, top = (width - crop_w) // 2, (height - crop_h) // 2
        part = image[top : top + crop_h, left : left + crop_w]
        scale_x, scale_y = target_w / crop_w, target_h / crop_h
        # Area averaging: these models are trained on antialiased pictures, and plain bilinear drops pixels
        method = cv2.INTER_AREA if scale_x < 1 else cv2.INTER_LINEAR
        small = cv2.resize(part, (target_w, target_h), interpolation=method)
        return small, Geometry(width, height, scale_x, scale_y, -left * scale_x, -top * scale_y)


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
    return small, Geometry(width, height, inner_w / width, inner_h / height, left, top)


def _grey(image: Array, pixel_format: str) -> Array:
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if pixel_format == "rgb24" else cv2.COLOR_BGR2GRAY)
