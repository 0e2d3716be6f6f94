"""How long people take beside a robot: predicted five times per second, beside what was measured."""

import csv
import itertools
import json
import math
from typing import Any

from localdev.demo.stage import Configuration, Evidence, Stage, Window
from localdev.simulators.interaction import FEATURES, TARGET, interactions

SEED = 11  # not one that the model was trained on
ROWS = 200


class Regression(Stage):
    name = "regression"
    title = "durations predicted beside measured ones"

    def prepare(self) -> None:
        self._errors = Window()
        self._table = self.world.output / "interactions.csv"
        with self._table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*FEATURES, TARGET])
            writer.writerows(itertools.islice(interactions(SEED), ROWS))

    def configuration(self) -> Configuration:
        pipeline: dict[str, Any] = {
            "source": {"type": "caller", "file": str(self._table), "target": TARGET, "rate_hz": 5},
            "backend": {"type": "onnx", "model": "Duration"},
        }
        return {"duration": {}, "inferencer": {"pipelines": {"duration": pipeline}}}

    def begin(self) -> None:
        self.world.hear("edgeml/inference/duration", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        self._errors.add(json.loads(payload)["results"]["error"] ** 2)

    def _rmse(self) -> float:
        return math.sqrt(self._errors.mean())

    def progress(self) -> str:
        return f"{self._errors.count} predictions, RMSE {self._rmse():.1f} s"

    def evidence(self) -> Evidence:
        figures = {"predictions": self._errors.count, "rmse_s": round(self._rmse(), 2)}
        return Evidence(
            self._errors.count > 10 and self._rmse() < 15, figures, "expected 5 predictions/s near the truth"
        )
