"""What a camera sees, made from real pictures: a garage, a man, and what light, noise and night do to them."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bundles.clips import face_clip
from bundles.fetch import SCIKIT_IMAGE, member
from camera_capture.motion import MotionDetector, MotionSettings

Image = NDArray[np.uint8]
WIDTH, HEIGHT = 640, 360
LOOK_S = 0.1
ROLLED = 200  # pixels that noise differs by, in each direction, from picture to picture


@cache
def garage() -> Image:
    data = member(SCIKIT_IMAGE, "skimage/data/motorcycle_left.png")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def man() -> list[Image]:
    """A man who talks, 120 frames."""
    capture = cv2.VideoCapture(str(face_clip()))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    capture.release()
    return frames


@cache
def infrared() -> Image:
    """The garage in infrared light: colours gone, dark things bright, a spot in the middle."""
    value = cv2.cvtColor(garage(), cv2.COLOR_BGR2HSV)[:, :, 2] / 255.0
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    spot = np.exp(-(((x - WIDTH / 2) / 250) ** 2) - ((y - HEIGHT / 2) / 175) ** 2)
    return as_picture(np.repeat((255 * np.sqrt(value) * (0.3 + 0.9 * spot))[:, :, None], 3, axis=2))


def as_picture(values: Any) -> Image:
    return np.asarray(cv2.convertScaleAbs(np.maximum(values, 0)), np.uint8)


@cache
def _fields(seed: int) -> list[NDArray[np.float32]]:
    """Each with room to be rolled in."""
    random, room = np.random.default_rng(seed), ((ROLLED, 0), (ROLLED, 0), (0, 0))
    return [np.pad(random.standard_normal((HEIGHT, WIDTH, 3), np.float32), room, "wrap") for _ in range(3)]


class Noise:
    """Of a sensor, or, with `grain` pixels, of what a codec leaves of it."""

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng((seed, 1))
        self._fields = _fields(seed)

    def on(self, picture: Any, sigma: float = 3, grain: int = 1) -> Image:
        field = self._fields[self._random.integers(3)]
        y, x = self._random.integers(0, ROLLED, 2)
        field = field[y : y + HEIGHT, x : x + WIDTH]
        field = np.asarray(cv2.blur(field, (grain, grain)), np.float32) if grain > 1 else field
        picture = np.asarray(picture, np.float32)
        return np.asarray(cv2.addWeighted(picture, 1, field, sigma * grain, 0, dtype=cv2.CV_8U), np.uint8)

    def specks(self, picture: Image, part: float) -> Image:
        found = picture.copy()
        where = self._random.random((HEIGHT, WIDTH)) < part
        found[where] = self._random.choice([0, 255], (int(where.sum()), 1))
        return found


def walk(looks: int, height: int, step: float, *, first: int = 10, scene: Image | None = None) -> Iterator[Image]:
    """A man `height` pixels tall crosses the scene, `step` pixels a look, from the look `first` on."""
    scene = garage() if scene is None else scene
    face = man()[0][20:130, 50:130]
    tall = cv2.resize(face, (height * 8 // 11, height), interpolation=cv2.INTER_AREA)
    for look in range(looks):
        picture = scene.copy()
        left = int((look - first) * step)
        if 0 <= left < WIDTH - tall.shape[1]:
            picture[200 : 200 + height, left : left + tall.shape[1]] = tall
        yield picture


def moments(frames: Iterable[Image], settings: MotionSettings, look_s: float = LOOK_S, **detector: Any) -> list[bool]:
    """Whether something moves, look by look."""
    looking = MotionDetector(settings, "bgr24", **detector)
    return [looking.look(frame, 100 + number * look_s).moving for number, frame in enumerate(frames)]


Frames = Callable[[Noise], Iterable[Image]]
