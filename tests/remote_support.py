"""Models of an endpoint, by SageMaker or by HTTP."""

from typing import Any

from edgeml.component import Context
from hostile_http import WRONG as WRONG_HTTP
from inferencer.backends.http import HttpBackend, HttpModel
from inferencer.backends.sagemaker import SageMakerBackend, SageMakerModel
from inferencer.sources.topic import TopicSource
from inferencer_support import (
    pipeline,
)

NO_ANSWER = {name: WRONG_HTTP[name] for name in ("not HTTP", "nothing", "cut short", "announced too large")}
SOURCE = TopicSource(topic="t")
FACES = b'{"prediction": [[0, 0.2, 0.1, 0.1, 0.2, 0.2], [0, 0.9, 0.25, 0.5, 0.75, 1.5], [1, 0.6, -0.1, 0, 0.5, 0.5]]}'


def sagemaker(context: Context, task: str = "detection", **settings: Any) -> SageMakerModel:
    settings = {"endpoint": "faces", "read_timeout_s": 0.3, "attempts": 1, "labels": ("face", "mask"), **settings}
    backend = SageMakerBackend(task=task, **settings)  # type: ignore[arg-type]
    return SageMakerModel(backend, pipeline(backend, SOURCE, top_k=2), context, "p")


def http(context: Context, url: str, **settings: Any) -> HttpModel:
    settings = {"task": "regression", "read_timeout_s": 0.3, "attempts": 1, **settings}
    backend = HttpBackend(url=url, **settings)
    return HttpModel(backend, pipeline(backend, SOURCE), context, "p")
