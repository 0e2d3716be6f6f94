"""What Studio may sample: cameras through their frame rings, sensors through messages."""

import io
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_impulse_linux.config import Sensor
from edgeml.errors import SourceError
from edgeml.frames import FrameReader
from edgeml.health import Health
from edgeml.numbers import measured

FRESH_S = 2.0  # an older frame is not what the camera sees now
FRAME_TIMEOUT_S = 5.0
_MAX_CAMERA_LENGTH_S = 60_000


class Camera:
    """One camera of edgeml.CameraCapture. Every call opens the ring anew: threads do not share a reader."""

    def __init__(self, camera: str, directory: Path, *, alone: bool) -> None:
        self.camera, self._directory, self._alone = camera, directory, alone

    def describe(self, timeout: float) -> dict[str, Any] | None:
        """As an entry of the hello message's `sensors`; None while there is no frame to tell the size by."""
        with FrameReader(self.camera, directory=self._directory) as reader:
            frame = reader.read(timeout, copy=False)
        if frame is None:
            return None
        name = "Camera" if self._alone else f"Camera {self.camera}"
        return {
            "name": f"{name} ({frame.width}x{frame.height})",
            "frequencies": [],
            "maxSampleLengthS": _MAX_CAMERA_LENGTH_S,
        }

    def jpeg(self, *, quality: int, max_height: int = 0) -> bytes:
        """What the camera sees now, scaled down to `max_height` rows. Raises SourceError when it sees nothing."""
        deadline = time.monotonic() + FRAME_TIMEOUT_S
        with FrameReader(self.camera, directory=self._directory) as reader:
            while (left := deadline - time.monotonic()) > 0:
                frame = reader.read(left)
                if frame is not None and time.monotonic() - frame.captured_ns / 1e9 < FRESH_S:
                    return _encoded(frame.image, frame.pixel_format, quality, max_height)
        raise SourceError(f"camera {self.camera}: no new frame in {FRAME_TIMEOUT_S:g} s")


def _encoded(image: NDArray[np.uint8], pixel_format: str, quality: int, max_height: int) -> bytes:
    """JPEG of a frame, by Pillow: OpenCV with its codecs would make the environment three times as large."""
    height, width = image.shape[:2]
    if pixel_format == "gray8":
        pixels = image.reshape(height, width)
    else:
        pixels = image[..., ::-1] if pixel_format == "bgr24" else image
    encoded = io.BytesIO()
    try:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        if 0 < max_height < height:
            picture = picture.resize((max(1, round(width * max_height / height)), max_height), Image.Resampling.BOX)
        picture.save(encoded, "JPEG", quality=quality)
    except Exception as error:  # whatever Pillow and its encoders raise
        words = str(error) or type(error).__name__
        raise SourceError(f"a frame of {width}x{height} {pixel_format} cannot be encoded: {words}") from error
    return encoded.getvalue()


class Feed:
    """Samples of one sensor, as they arrive. `feed` is for any thread, `collect` for one at a time."""

    def __init__(self, name: str, config: Sensor, health: Health) -> None:
        self.name, self.config, self._health = name, config, health.scope(f"sensors.{name}")
        self._arrived = threading.Condition()
        self._samples: deque[list[float]] = deque(maxlen=0)

    def describe(self) -> dict[str, Any]:
        """As an entry of the hello message's `sensors`."""
        return {
            "name": self.name,
            "frequencies": [self.config.frequency_hz],
            "maxSampleLengthS": self.config.max_length_s,
        }

    def feed(self, payload: bytes) -> None:
        """Take a message; one that is no sample is counted and told in the health report."""
        try:
            sample = [measured(_at(msgspec.json.decode(payload), axis)) for axis in self.config.axes]
        except Exception as error:  # noqa: BLE001  (of this message; other sensors hear it, too)
            self._health.count("rejected")
            self._health.error(f"sensor {self.name}: {error!r}: {payload[:100]!r}")
            return
        with self._arrived:
            self._samples.append(sample)
            self._arrived.notify()

    def collect(self, count: int, timeout: float, cancelled: threading.Event) -> list[list[float]]:
        """The next `count` samples. Raises SourceError when they do not come, or when `cancelled`."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            self._samples = deque(maxlen=count)
            while len(self._samples) < count:
                if cancelled.is_set():
                    raise SourceError(f"sensor {self.name}: sampling was interrupted")
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"sensor {self.name}: {len(self._samples)} samples in {timeout:g} s, {count} were wanted; is "
                        f"frequency_hz {self.config.frequency_hz:g} right?"
                    )
                self._arrived.wait(0.2)
            samples, self._samples = list(self._samples), deque(maxlen=0)
        return samples


def _at(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found
