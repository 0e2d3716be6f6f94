"""A picture is named: a request on local/inference is answered on local/result."""

import json
import time

import cv2

from bundles.clips import face_clip
from localdev.demo.stage import Configuration, Evidence, Stage, Window

PICTURE = "driver.jpg"
LABEL = "Windsor tie"  # what ImageNet's classes have for the man in the car: its 1,000 names hold no person
EVERY_S = 0.5


class Classification(Stage):
    name = "classification"
    title = "EfficientNet-Lite0 names a picture on request"

    def prepare(self) -> None:
        self._times = Window()
        self._labels: dict[str, int] = {}
        self._asked, self._asked_at, self._score = 0, 0.0, 0.0
        capture = cv2.VideoCapture(str(face_clip()))
        _, picture = capture.read()
        capture.release()
        cv2.imwrite(str(self.world.output / PICTURE), picture)

    def configuration(self) -> Configuration:
        pipeline = {
            "source": {"type": "request", "allowed_dirs": [str(self.world.output)]},
            "backend": {"type": "onnx", "model": "ImageClassifier"},
        }
        return {"image_classifier": {}, "inferencer": {"pipelines": {"pictures": pipeline}}}

    def begin(self) -> None:
        self.world.hear("local/result", self._result)

    def tick(self) -> None:
        if time.monotonic() - self._asked_at < EVERY_S:
            return
        self._asked += 1
        self._asked_at = time.monotonic()
        request = {"image_dir": str(self.world.output), "fname": PICTURE, "request_id": f"demo-{self._asked}"}
        self.world.core.publish("local/inference", request)

    def _result(self, topic: str, payload: bytes) -> None:
        answer = json.loads(payload)
        if answer.get("request_id") == f"demo-{self._asked}":
            self._times.add((time.monotonic() - self._asked_at) * 1e3)
            label = answer.get("label") or answer.get("error", "")
            self._labels[label] = self._labels.get(label, 0) + 1
            self._score = answer.get("score", 0.0)

    def progress(self) -> str:
        return f"{self._times.count} answers, {', '.join(self._labels)}"

    def evidence(self) -> Evidence:
        figures = {
            "requests": self._asked,
            "answers": self._times.count,
            "label": ", ".join(self._labels),
            "score": round(self._score, 3),
            "round_trip_p50_ms": round(self._times.percentile(50), 1),
        }
        return Evidence(set(self._labels) == {LABEL}, figures, f"expected the label {LABEL}")
