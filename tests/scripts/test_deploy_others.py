"""scripts/deploy beside others: who deploys at the same time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_support import Field, prepared
from localdev.cloud import LocalCloud

CLI = {"aws.greengrass.Cli": {"componentVersion": "2.0.0"}}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture
def field(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    with prepared(cloud, tmp_path, monkeypatch) as made:
        yield made


def test_somebody_elses_deployment_while_one_is_asked_is_not_overwritten(field: Field) -> None:
    command, environment = field.command()
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, text=True, **pipes) as asked:
        assert asked.stdout is not None and asked.stderr is not None
        while "└" not in (line := asked.stdout.readline()):  # the end of the table; the question has no end of line
            assert line, asked.stderr.read()
        field.create(CLI)
        _, errors = asked.communicate("y\n", timeout=60)
    assert asked.returncode == 1
    assert "someone else has deployed to this group meanwhile" in errors
    assert field.components() == CLI
