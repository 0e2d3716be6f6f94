"""A local cloud with buckets and a model registry, and the exporter that works in it."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from export_support import BUCKET, Registry
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def registry(cloud: LocalCloud) -> Registry:
    return Registry(cloud)


@pytest.fixture
def app(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CODEBUILD_BUILD_ID", "edgeml-export:7f3a")
    monkeypatch.setenv("BUCKET", BUCKET)
    import export_onnx

    return export_onnx


@pytest.fixture
def invoked(registry: Registry) -> Iterator[list[Request]]:
    """Invocations of Lambda functions."""
    requests: list[Request] = []

    def function(request: Request) -> Response | None:
        if request.service != "lambda":
            return None
        requests.append(request)
        return Response(b"", 202)

    registry.cloud.aws.stand_ins.insert(0, function)
    yield requests
    registry.cloud.aws.stand_ins.remove(function)
