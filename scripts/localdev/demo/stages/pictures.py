"""A cup of coffee is named: edgeml.SampleRequester asks on local/inference, the answer comes on local/result."""

import json
import time
from collections import Counter

from localdev.demo.stage import Configuration, Evidence, Stage, Window

LABEL = "espresso"
EVERY_S = 0.5


class Classification(Stage):
    name = "classification"
    title = "EfficientNet-Lite0 names a picture on request"

    def configuration(self) -> Configuration:
        pictures = self.world.root / "work" / "edgeml.SampleRequester" / "pictures"
        pipeline = {
            "source": {"type": "request", "allowed_dirs": [str(pictures)]},
            "backend": {"type": "onnx", "model": "ImageClassifier"},
        }
        requester = {"interval_s": EVERY_S}
        inferencer = {"pipelines": {"pictures": pipeline}}
        return {"image_classifier": {}, "inferencer": inferencer, "sample_requester": requester}

    def begin(self) -> None:
        self._asked: dict[str, float] = {}  # request -> when
        self._labels: Counter[str] = Counter()
        self._score, self._times = 0.0, Window()
        self.world.hear("local/inference", self._request)
        self.world.hear("local/result", self._result)

    def _request(self, topic: str, payload: bytes) -> None:
        self._asked[json.loads(payload)["request_id"]] = time.monotonic()

    def _result(self, topic: str, payload: bytes) -> None:
        answer = json.loads(payload)
        asked = self._asked.get(answer.get("request_id", ""))
        if asked is not None:  # else it was asked before we listened
            self._times.add((time.monotonic() - asked) * 1e3)
            self._labels[answer.get("label") or answer.get("error", "nothing")] += 1
            self._score = answer.get("score", 0.0)

    def progress(self) -> str:
        return f"{self._times.count} answers: {', '.join(self._labels)}"

    def evidence(self) -> Evidence:
        figures = {
            "requests": len(self._asked),
            "answers": self._times.count,
            "labels": dict(self._labels),
            "score": round(self._score, 3),
            "round_trip_p50_ms": round(self._times.percentile(50), 1),
        }
        return Evidence(set(self._labels) == {LABEL}, figures, f"expected the label {LABEL}")
