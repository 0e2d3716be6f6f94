"""What is under a privacy mask is in no outlet of a camera."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camera_capture.attempt import shaped
from camera_capture.privacy import PrivacyMasks
from camera_support import configured
from edgeml.errors import ConfigError
from edgeml.frames import FrameReader
from support import Standalone

Image = NDArray[np.uint8]
Corners = tuple[tuple[float, float], ...]
HOUSE: Corners = ((0.2, 0.8), (0.2, 0.4), (0.35, 0.2), (0.5, 0.4), (0.5, 0.8))


def noise(seed: int, *shape: int) -> Image:
    return np.random.default_rng(seed).integers(1, 256, shape, np.uint8)


def touched(corners: Corners, width: int, height: int, fine: int = 8) -> NDArray[np.bool_]:
    """Which pixels have a part in the polygon: asked at `fine` x `fine` points of each, in plain arithmetic."""
    y, x = np.mgrid[0 : height * fine, 0 : width * fine]
    x, y = (x + 0.5) / fine / width, (y + 0.5) / fine / height
    inside = np.zeros(x.shape, bool)
    for (a, b), (c, d) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if b != d:
            inside ^= ((b > y) != (d > y)) & (x < a + (c - a) * (y - b) / (d - b))
    return np.asarray(inside.reshape(height, fine, width, fine).any(axis=(1, 3)))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 40), (31, 17), (64, 48), (101, 33)])
def test_all_that_a_polygon_touches_is_black_and_little_more(size: tuple[int, int]) -> None:
    chance = np.random.default_rng(5)
    width, height = size
    for corners in [HOUSE, *(tuple(map(tuple, chance.random((n, 2)))) for n in (3, 3, 4, 5, 9))]:
        image = noise(1, height, width, 3)
        masked = PrivacyMasks((corners,)).applied(image.copy())
        hidden = touched(corners, width, height)
        assert not masked[hidden].any()
        far = cv2.dilate(hidden.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
        assert min(size) < 10 or np.array_equal(masked[far], image[far])  # a sliver is hardly ever hit by a point


def test_borders_of_the_picture_are_reached() -> None:
    everything: Corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    assert not PrivacyMasks((everything,)).applied(noise(1, 33, 57, 3)).any()
    strip: Corners = ((0, 0.9), (1, 0.9), (1, 1), (0, 1))
    masked = PrivacyMasks((strip,)).applied(noise(1, 40, 50, 3))
    assert not masked[36:].any()
    assert masked[:34].all()


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "gray8"])
@pytest.mark.parametrize(("width", "height"), [(0, 0), (33, 19), (301, 207), (64, 0)])
def test_frames_are_the_same_whatever_is_hidden(pixel_format: str, width: int, height: int) -> None:
    """Two scenes that differ under the mask alone give the same bytes, in every format and size of the ring."""
    camera = configured(
        type="test_pattern", privacy_masks=[HOUSE], pixel_format=pixel_format, width=width, height=height
    )
    one = noise(1, 72, 128, 3)
    other = np.where(touched(HOUSE, 128, 72)[:, :, None], noise(2, 72, 128, 3), one)
    masks = PrivacyMasks(camera.privacy_masks)
    first, second = (shaped(masks.applied(picture.copy()), camera) for picture in (one, other))
    assert np.array_equal(first, second)
    assert not np.array_equal(shaped(one, camera), shaped(other, camera))


def test_pictures_of_every_make() -> None:
    """Grey ones, read-only ones, ones with gaps between their rows, and another size in the middle."""
    masks = PrivacyMasks((HOUSE, ((0.6, 0.1), (0.9, 0.1), (0.9, 0.3))))
    wide = noise(1, 48, 100, 3)
    locked = noise(1, 48, 64, 3)
    locked.flags.writeable = False
    for image in (noise(1, 48, 64), wide[:, 10:74], locked, noise(1, 96, 128, 3), noise(1, 48, 64)):
        before = image.copy()
        masked = masks.applied(image)
        height, width = image.shape[:2]
        assert not masked[touched(HOUSE, width, height)].any()
        assert np.array_equal(masked[-3:], before[-3:])
    assert locked.all()


def test_no_masks_cost_nothing() -> None:
    image = noise(1, 4, 4, 3)
    assert PrivacyMasks(()).applied(image) is image
    assert image.all()


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([[[0, 0], [0.5, 0.5], [1, 1]]], "privacy_masks.0: expected a polygon, its corners lie on one line"),
        ([[*HOUSE], [[0, 0], [1, 1]]], "privacy_masks.1: expected"),
        ([[[0, 0], [2, 0], [1, 1]]], r"privacy_masks.0.1.0: expected"),
        ("left", "privacy_masks: expected"),
    ],
)
def test_a_mask_that_would_hide_nothing_is_refused(masks: Any, words: str) -> None:
    """Who believes that something is hidden must not be mistaken."""
    with pytest.raises(ConfigError, match="cameras.c." + words):
        configured(type="gstreamer", location="x", width=4, height=4, privacy_masks=masks).check("cameras.c")


def test_no_outlet_of_the_component_shows_it(tmp_path: Path) -> None:
    """Two cameras before scenes that differ under the mask alone: rings and snapshots are the same."""
    one = noise(1, 90, 160, 3)
    scenes = {"one": one, "other": np.where(touched(HOUSE, 160, 90)[:, :, None], noise(2, 90, 160, 3), one)}
    cameras = {}
    for name, scene in scenes.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), scene)
        cameras[name] = {"type": "images", "location": str(tmp_path / name), "fps": 20, "width": 200}
        cameras[name] |= {"privacy_masks": [HOUSE], "motion": {}}
    rings = tmp_path / "rings"
    rings.mkdir()
    seen, shots = [], []
    with Standalone("camera_capture", {"ring_directory": str(rings), "cameras": cameras}, tmp_path / "w") as running:
        for name in scenes:
            with FrameReader(name, directory=rings) as reader:
                frame = reader.read(timeout=10)
                assert frame is not None
                seen.append(frame.image)
            running.send(f"edgeml/camera/{name}/command", {"command": "snapshot"})
            shots.append(Path(running.message(f"edgeml/camera/{name}/reply")["path"]).read_bytes())
    assert np.array_equal(seen[0], seen[1])
    assert shots[0] == shots[1]
    assert not seen[0][55, 70].any()
