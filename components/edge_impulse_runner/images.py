"""From a camera's frame to an image model's features: resized as the model was trained, packed as it expects."""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner.protocol import ModelParameters, ResizeMode

Image = NDArray[np.uint8]

JPEG_QUALITY = 90


def model_input(frame: Image, pixel_format: str, parameters: ModelParameters, mode: ResizeMode) -> Image:
    """What the model sees of a frame, as (height, width, 3) BGR or (height, width) gray; never a view of `frame`."""
    image = resized(frame, parameters.image_input_width, parameters.image_input_height, mode)
    if parameters.image_channel_count == 1 and image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, _TO_GRAY[pixel_format]), dtype=np.uint8)
    if pixel_format == "rgb24":
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    return image.copy() if np.may_share_memory(image, frame) else image


_TO_GRAY = {"bgr24": cv2.COLOR_BGR2GRAY, "rgb24": cv2.COLOR_RGB2GRAY}


def resized(image: Image, width: int, height: int, mode: ResizeMode) -> Image:
    """The image in the model's size, pixel for pixel as Edge Impulse's Python SDK makes it.

    `squash` ignores the aspect ratio, `fit-shortest` cuts off what juts out, `fit-longest` adds black borders, and
    `none` does not scale: it takes the middle of the image, on black if that is smaller.
    """
    have_height, have_width = image.shape[:2]
    if mode == "fit-shortest":
        aspect = width / height
        if have_width / have_height > aspect:
            have_width = max(1, int(have_height * aspect))
        else:
            have_height = max(1, int(have_width / aspect))
        return _scaled(_middle(image, have_width, have_height), width, height)
    if mode == "fit-longest":
        scale = min(width / have_width, height / have_height)
        image = _scaled(image, max(1, int(have_width * scale)), max(1, int(have_height * scale)))
        return _framed(image, width, height)
    if mode == "none":
        return _framed(_middle(image, min(width, have_width), min(height, have_height)), width, height)
    return _scaled(image, width, height)


def features(image: Image) -> NDArray[np.float32]:
    """One number per pixel, row by row: (r << 16) | (g << 8) | b; gray repeats its byte. Exact in float32."""
    if image.ndim == 2:
        return image.reshape(-1).astype(np.float32) * np.float32(0x010101)
    height, width = image.shape[:2]
    packed = np.zeros((height, width, 4), dtype=np.uint8)
    packed[:, :, :3] = image  # blue is the lowest byte of a little-endian number
    return packed.view("<u4").reshape(-1).astype(np.float32)


def jpeg(image: Image) -> bytes:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return encoded.tobytes()


def _middle(image: Image, width: int, height: int) -> Image:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _scaled(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _framed(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    canvas = np.zeros((height, width, *image.shape[2:]), dtype=np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas
