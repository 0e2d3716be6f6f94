"""Finds faces and names their expressions, with the two small models of the bundles face_detector and emotion.

CenterFace finds, mini-XCEPTION (trained on FER2013) names. Good for showing a pipeline, not for judging people.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

LONG_SIDE = 480  # pixels that an image is reduced to before the detector sees it
MARGIN = (
    0.2  # of the box's longer side, on each side: FER2013's pictures show hair and chin, the detector's box does not
)
EMOTIONS = ("ANGRY", "DISGUSTED", "FEAR", "HAPPY", "SAD", "SURPRISED", "CALM")  # in the model's order

Image = npt.NDArray[Any]  # uint8
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Face:
    """`box` is x, y, width, height in pixels, `landmarks` are x, y in pixels: eyes, nose, mouth corners, left first."""

    score: float
    box: tuple[float, float, float, float]
    landmarks: list[tuple[float, float]]
    emotions: dict[str, float]  # name to probability


class Faces:
    """Loads both models, from the folders of their bundles."""

    def __init__(self, detector: Path, expression: Path) -> None:
        self._detector = _session(detector)
        self._expression = _session(expression)

    def find(self, image: Image, threshold: float = 0.5) -> list[Face]:
        """Faces in a BGR image, the largest first."""
        boxes, scores, points = self._detect(image, threshold)
        keep = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), threshold, 0.3) if len(boxes) else []
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        faces = []
        for i in np.asarray(keep, int).ravel():
            x, y, width, height = (float(v) for v in boxes[i])
            landmarks = [(float(px), float(py)) for px, py in points[i]]
            faces.append(Face(float(scores[i]), (x, y, width, height), landmarks, self._emotions(gray, boxes[i])))
        return sorted(faces, key=lambda face: -face.box[2] * face.box[3])

    def _detect(self, image: Image, threshold: float) -> tuple[Floats, Floats, Floats]:
        """Boxes [n, 4], scores [n], landmarks [n, 5, 2] before suppression, in pixels of `image`."""
        height, width = image.shape[:2]
        scale = min(1.0, LONG_SIDE / max(height, width))
        size = tuple(max(32, round(side * scale / 32) * 32) for side in (width, height))
        blob = cv2.dnn.blobFromImage(image, 1.0, size, swapRB=True)
        heat, scales, offset, points = self._detector.run(["heatmap", "scale", "offset", "landmarks"], {"input": blob})
        rows, columns = np.nonzero(heat[0, 0] > threshold)
        h, w = np.exp(scales[0, :, rows, columns].T) * 4
        left = (columns + offset[0, 1, rows, columns] + 0.5) * 4 - w / 2
        top = (rows + offset[0, 0, rows, columns] + 0.5) * 4 - h / 2
        marks = points[0][:, rows, columns].reshape(5, 2, -1)
        xy = np.stack([marks[:, 1] * w + left, marks[:, 0] * h + top], axis=-1).transpose(1, 0, 2)
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        boxes = np.stack([left, top, w, h], axis=1) * np.tile(ratio, 2)
        return boxes.astype(np.float32), heat[0, 0, rows, columns], (xy * ratio).astype(np.float32)

    def _emotions(self, gray: Image, box: Floats) -> dict[str, float]:
        x, y, width, height = box
        half = max(width, height) * (0.5 + MARGIN)
        left, top = max(0, int(x + width / 2 - half)), max(0, int(y + height / 2 - half))
        crop = gray[top : int(y + height / 2 + half) + 1, left : int(x + width / 2 + half) + 1]
        small = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
        (probabilities,) = self._expression.run(None, {"input": (small / 127.5 - 1)[None, :, :, None]})
        return dict(zip(EMOTIONS, probabilities[0].tolist(), strict=True))


def _session(bundle: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # looked at by the import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
