"""A second model looks at what the first one finds: faces at the edge get an expression without the cloud."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localdev.demo.stage import Configuration, Evidence, Stage

LABELS = {  # of the model at the edge, as Rekognition calls them
    "angry": "ANGRY",
    "disgust": "DISGUSTED",
    "fear": "FEAR",
    "happy": "HAPPY",
    "sad": "SAD",
    "surprise": "SURPRISED",
    "neutral": "CALM",
}
ENOUGH, ALIKE = (
    5,
    0.6,
)  # of so many crops that part: the stand-in finds the face in each anew, and so looks at other pixels


class Chain(Stage):
    name = "chain"
    title = "face -> expression at the edge, and what the cloud's stand-in says of the same crops"
    needs = ("s3_crops",)

    def prepare(self) -> None:
        self._said: dict[str, str] = {}  # by the name of its crop: when, which frame, which detection
        self._labels: Counter[str] = Counter()
        self._compared = self._alike = self._misnamed = 0

    def configuration(self) -> Configuration:
        pipeline = {
            "source": {"type": "detections", "pipeline": "faces", "margin": 0.2, "square": True},
            "backend": {"type": "onnx", "model": "Emotion"},
            "score_threshold": 0.01,
        }
        return {"emotion": {}, "inferencer": {"pipelines": {"expression": pipeline}}}

    def begin(self) -> None:
        self.world.hear("edgeml/inference/expression", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        source, results = result["source"], result["results"]
        self._misnamed += source.get("pipeline") != "faces" or not source.get("region")
        if results:
            moment = datetime.fromtimestamp(source["captured_at"], UTC)
            self._said[f"{moment:%H%M%S%f}-{source['frame_id']}-{source.get('index', 0)}"] = results[0]["label"]
            self._labels[results[0]["label"]] += 1

    def progress(self) -> str:
        return f"{self._labels.total()} faces: {', '.join(label for label, _ in self._labels.most_common(3))}"

    def finish(self) -> None:
        """Crops of the pipeline `faces` lie in S3 by frame and detection; the cloud's handler has judged each."""
        self.world.cloud.drain()
        table = self.world.cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName="rekognize-faces")
        for item in (item for page in table for item in page["Items"]):
            said = self._said.get(Path(item["s3key"]["S"]).stem)
            if said is not None:
                cloud = max(set(LABELS.values()) & item.keys(), key=lambda name: float(item[name]["S"]))
                self._compared += 1
                self._alike += LABELS[said] == cloud

    def evidence(self) -> Evidence:
        figures: dict[str, Any] = {
            "faces": self._labels.total(),
            "expressions": dict(self._labels.most_common()),
            "judged_by_the_cloud_too": self._compared,
            "alike": self._alike,
        }
        alike = self._compared < ENOUGH or self._alike >= ALIKE * self._compared
        ok = self._compared > 0 and alike and not self._misnamed
        return Evidence(ok, figures, f"expected the cloud's stand-in to say the same of {ALIKE:.0%} of the crops")
