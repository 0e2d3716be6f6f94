"""EfficientNet-Lite0 names what is to be seen in a real frame: a man in a suit and tie, in a car."""

from pathlib import Path

import cv2
import numpy as np

from bundles.clips import face_clip
from edgeml import models
from model_store.image_classifier.build import build


def test_a_man_in_a_suit_is_recognised_with_the_declared_preprocessing(tmp_path: Path) -> None:
    build(tmp_path)
    bundle = models.load(tmp_path)
    session = models.open_session(bundle, threads=1)
    capture = cv2.VideoCapture(str(face_clip()))
    ok, frame = capture.read()
    capture.release()
    assert ok
    declared = bundle.manifest.input
    height, width = frame.shape[:2]
    scale = declared.resize_shorter / min(height, width)
    resized = cv2.resize(frame, (round(width * scale), round(height * scale)))
    left, top = ((whole - cut) // 2 for whole, cut in zip(resized.shape[1::-1], declared.size, strict=True))
    crop = resized[top : top + declared.size[1], left : left + declared.size[0], ::-1]
    tensor = ((crop - np.array(declared.mean)) / np.array(declared.std)).transpose(2, 0, 1)[None].astype(np.float32)
    logits = session.run(None, {declared.name: tensor})[0][0]
    assert len(bundle.labels) == 1000
    best = [bundle.labels[index] for index in logits.argsort()[::-1][:4]]
    assert best == ["Windsor tie", "bow tie", "suit", "seat belt"]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert 0.45 < scores.max() < 0.6  # slips of preprocessing hardly move the order, but do move the score
