"""An endpoint that answers as it is told, and a place to work."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.component import Context
from inferencer_support import (
    Endpoint,
    endpoint,
    make_context,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with endpoint() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", running.url)
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")):
            monkeypatch.setenv(f"AWS_{name}", value)
        yield running


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path / "work")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("x")  # a socket's path is short
