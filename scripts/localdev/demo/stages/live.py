"""Live inference: the Inferencer asks a cloud API five times a second, which asks a SageMaker endpoint."""

import csv
import itertools
import json
import time
from pathlib import Path
from typing import Any

import requests

from localdev.cloud.api import KEY
from localdev.cloud.aws import Request, Response
from localdev.demo.stage import Configuration, Evidence, Stage, Window
from localdev.simulators.interaction import FEATURES, interactions
from localdev.workspace import bundle

ENDPOINT = "edgeml-duration"
SECRET = "edgeml-live-api-key"  # noqa: S105  (its name)
RATE_HZ = 5
LEAST_HZ = 3  # on a machine that does much else
WARM_UP_S = 30
SEED = 12
ROWS = 200


class LiveInference(Stage):
    name = "live_inference"
    title = "Inferencer -> API Gateway -> handler -> SageMaker endpoint (stand-ins) -> a duration"

    def prepare(self) -> None:
        cloud = self.world.cloud
        assert cloud.api is not None  # noqa: S101  (the template has one)
        self._invocations = 0
        cloud.endpoints.serve(ENDPOINT, bundle("duration") / "model.onnx")
        cloud.aws.observers.append(self._seen)
        self.world.secrets[SECRET] = KEY
        cloud.aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=KEY)  # for Nucleus Lite, without
        self._url = f"{cloud.api.url}/live/liveinference"
        self._table = self.world.output / "live.csv"
        write_table(self._table)
        # The function starts before it is watched, as with provisioned concurrency.
        query = {"features": ",".join("0" for _ in FEATURES)}
        requests.get(self._url, query, headers={"x-api-key": KEY}, timeout=WARM_UP_S).raise_for_status()

    def configuration(self) -> Configuration:
        pipeline: dict[str, Any] = {
            "source": {"type": "caller", "file": str(self._table), "rate_hz": RATE_HZ},
            "backend": {"type": "http", "task": "regression", "url": self._url, "api_key_secret": SECRET},
        }
        secrets = {
            "edgeml.Inferencer:secrets:demo": {
                "policyDescription": "Reads the key of the live-inference API.",
                "operations": ["aws.greengrass#GetSecretValue"],
                "resources": [f"*:secret:{SECRET}-*"],
            }
        }
        access = {"aws.greengrass.SecretManager": secrets}
        return {"inferencer": {"pipelines": {"live": pipeline}, "accessControl": access}}

    def begin(self) -> None:
        self._latency = Window()
        self._value = 0.0
        self._begun = time.monotonic()
        self.world.hear("edgeml/inference/live", self._result)

    def _seen(self, request: Request, response: Response) -> None:
        self._invocations += request.path == f"/endpoints/{ENDPOINT}/invocations"

    def _result(self, topic: str, payload: bytes) -> None:
        if not self._latency.count:  # until then it starts
            self._begun = time.monotonic()
        result = json.loads(payload)
        self._value = result["results"]["value"]
        self._latency.add(result["latency_ms"]["inference"])

    def progress(self) -> str:
        return f"{self._latency.count} answers, p50 {self._latency.percentile(50):.0f} ms"

    def finish(self) -> None:
        self._answers, self._watched_s = self._latency.count, time.monotonic() - self._begun

    def evidence(self) -> Evidence:
        figures = {
            "answers": self._answers,
            "answers_per_s": round(self._answers / self._watched_s, 2),
            "endpoint_invocations": self._invocations,
            "latency_p50_ms": round(self._latency.percentile(50), 1),
            "latency_p99_ms": round(self._latency.percentile(99), 1),
            "last_value_s": round(self._value, 2),
        }
        ok = enough(self._answers, self._watched_s, self._invocations)
        return Evidence(ok, figures, f"expected about {RATE_HZ} answers a second from the endpoint")


def enough(answers: int, seconds: float, invocations: int) -> bool:
    """Whether answers came about as often as asked for, and each of them from the endpoint."""
    return answers >= LEAST_HZ * seconds and invocations >= answers


def write_table(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FEATURES)
        writer.writerows(row[: len(FEATURES)] for row in itertools.islice(interactions(SEED), ROWS))
