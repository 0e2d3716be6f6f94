"""A cloud without a template, and a thing group in it to deploy to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_support import Field, prepared
from localdev.cloud import LocalCloud


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture
def field(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    with prepared(cloud, tmp_path, monkeypatch) as made:
        yield made
