"""scripts/deploy beside others: who deploys at the same time, and deployments that somebody canceled."""

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


def canceled(field: Field) -> str:
    """edgeml.A 1.0.0 is deployed everywhere, then 1.1.0 with fps 500 is canceled before a device gets it."""
    assert field.deploy("--yes") == 0
    field.build("edgeml.A", "1.1.0")
    field.devices_say("QUEUED")
    field.deploy("--yes", "--config", field.config(A={"fps": 500}))
    field.devices_say("SUCCEEDED")
    field.greengrass.cancel_deployment(deploymentId=field.ids()[-1])
    return field.ids()[-1]


def test_what_a_canceled_deployment_would_bring_back_is_shown(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    bad = canceled(field)
    field.build("edgeml.B", "1.0.0")
    capsys.readouterr()
    assert field.deploy("--dry-run", "--component", "edgeml.B") == 0
    captured = capsys.readouterr()
    assert f"deployment {bad} of 20" in captured.err
    assert "was canceled" in captured.err
    assert "./scripts/deploy rollback" in captured.err
    assert "/fps = 500" in captured.out
    rows = [line.split() for line in captured.out.splitlines() if "edgeml." in line]
    assert ["│", "edgeml.A", "│", "1.0.0", "│", "1.1.0"] in [row[:6] for row in rows]


def test_a_canceled_deployment_can_be_made_again(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    canceled(field)
    capsys.readouterr()
    assert field.deploy("--yes") == 0
    assert "nothing to change" not in capsys.readouterr().out
    assert field.configuration() == {"fps": 500}
    assert len(field.ids()) == 3


def test_rollback_of_a_canceled_deployment(field: Field) -> None:
    canceled(field)
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}
    assert field.configuration() == {}
