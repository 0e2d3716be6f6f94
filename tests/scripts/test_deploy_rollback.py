"""scripts/deploy rollback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


DEFAULTS = {"fps": 5, "camera": {"width": 640, "height": 480}}


def release(field: Field, version: str, defaults: dict[str, Any] = DEFAULTS, *arguments: str) -> str:
    """Builds and deploys edgeml.A; the deployment's id."""
    field.build("edgeml.A", version, ComponentConfiguration={"DefaultConfiguration": defaults})
    field.deploy("--yes", *arguments)
    return field.ids()[-1]


def test_rollback_brings_back_what_was_before(field: Field) -> None:
    release(field, "1.0.0")
    release(field, "1.1.0")
    assert field.versions() == {"edgeml.A": "1.1.0"}
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.components() == {"edgeml.A": {"componentVersion": "1.0.0"}}
