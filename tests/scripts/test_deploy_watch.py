"""scripts/deploy watches a deployment arrive, and status shows it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_support import Field, prepared
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture
def field(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    with prepared(cloud, tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(("verdict", "text"), [("FAILED", "FAILED"), ("QUEUED", "the deployment goes on")])
def test_devices_that_fail_or_are_offline_are_named(
    field: Field, capsys: pytest.CaptureFixture[str], verdict: str, text: str
) -> None:
    field.devices_say(verdict)
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert "0 of 2 devices succeeded" in output
    assert "press-1" in output
    assert text in output
    assert field.deploy("status") == 1


@pytest.fixture
def executions(field: Field) -> Iterator[list[dict[str, str] | None]]:
    """The next answers to how devices have the job: status by name, or None for a job that is not known yet."""
    answers: list[dict[str, str] | None] = []

    def shown(request: Request) -> Response | None:
        if request.service != "iot" or not re.fullmatch(r"/jobs/[^/]+/things", request.path) or not answers:
            return None
        things = answers.pop(0)
        if things is None:
            return Response(b"{}", 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
        arn = "arn:aws:iot:us-east-1:123456789012:thing/"
        summaries = [{"thingArn": arn + name, "jobExecutionSummary": {"status": s}} for name, s in things.items()]
        return Response(json.dumps({"executionSummaries": summaries}).encode())

    with field.answering(shown):
        yield answers


def test_devices_that_appear_late_are_waited_for(
    field: Field, executions: list[dict[str, str] | None], capsys: pytest.CaptureFixture[str]
) -> None:
    executions += [None, {}, {"press-1": "SUCCEEDED"}]
    field.devices_say("FAILED")
    assert field.deploy("--yes", "--timeout", "5") == 1
    assert executions == []
    assert "0 of 2 devices succeeded" in capsys.readouterr().out, "what the fourth look finds"


@pytest.mark.parametrize(("things", "count"), [(None, 0), ({}, 0), ({"press-1": "SUCCEEDED"}, 1)])
def test_devices_that_do_not_appear_are_no_success(
    field: Field,
    executions: list[dict[str, str] | None],
    capsys: pytest.CaptureFixture[str],
    things: dict[str, str] | None,
    count: int,
) -> None:
    executions += [things] * 100
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert f"{count} of 2 devices succeeded" in output
    assert "the deployment goes on" in output
    assert field.deploy("status") == 1


def test_status_shows_components_devices_and_earlier_deployments(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    assert field.deploy("status") == 0
    assert "nothing has been deployed to presses" in capsys.readouterr().out
    field.devices_say("FAILED")
    field.deploy("--yes")
    field.devices_say("SUCCEEDED")
    field.build("edgeml.A", "1.1.0")
    field.deploy("--yes")
    capsys.readouterr()
    assert field.deploy("status") == 0
    output = capsys.readouterr().out
    assert f"deployment {field.ids()[1]}" in output
    assert "ACTIVE" in output
    assert re.search(r"edgeml.A +│ 1\.1\.0", output)
    assert re.search(rf"{field.ids()[0]} │ 20..-..-.. ..:.. │ 2 failed", output)
    assert "2 of 2 devices succeeded" in output


def test_status_of_a_canceled_deployment_does_not_say_that_it_goes_on(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    field.devices_say("QUEUED")
    field.deploy("--yes")
    field.greengrass.cancel_deployment(deploymentId=field.ids()[0])
    capsys.readouterr()
    assert field.deploy("status") == 1
    output = capsys.readouterr().out
    assert "was canceled: devices that do not have it do not get it" in output
    assert "goes on" not in output
