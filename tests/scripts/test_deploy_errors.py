"""scripts/deploy answers mistakes in words: what, where, what was expected; 2 for the user's, 1 for failures."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import deploy
from deploy_support import GROUP, Field
from deployment import DeployError, aws
from localdev.cloud.aws import Request, Response
from support import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--component", "edgeml.Z"], "edgeml.Z is not built: run scripts/build, or say edgeml.Z=VERSION"),
        (["--remove", "edgeml.Z"], "--remove edgeml.Z: the deployment has no components"),
        (["--builds", "/nowhere"], "--builds /nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    field: Field, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert field.deploy("--yes", *arguments) == 2
    assert message in capsys.readouterr().err


def test_without_a_build_there_is_nothing_to_deploy(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    (field.builds / "empty").mkdir()
    assert field.deploy("--yes", "--builds", str(field.builds / "empty")) == 1
    assert f"nothing is built below {field.builds / 'empty'}: run scripts/build" in capsys.readouterr().err


def test_an_unknown_group_is_said(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["--thing-group", "nobody"]) == 2
    assert "there is no thing group nobody in us-east-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --thing-group"),
        (["--thing-group", "arn:aws:iot:us-east-1:1:thinggroup/g"], "is not a thing group's name"),
        (["deplyo", "--thing-group", "g"], "invalid choice: 'deplyo'"),
        (["--thing-group", "g", "--component", "edgeml.A="], "expected NAME or NAME=VERSION with a version like 1.2.3"),
        (["--thing-group", "g", "--component", "edgeml.A=latest"], "'edgeml.A=latest': expected NAME or NAME=VERSION"),
        (["--thing-group", "g", "--component", "=1.0.0"], "is not the name of a component"),
        (["--thing-group", "g", "--component", "A", "--component", "A=1.0.0"], "A: named more than once"),
        (["--thing-group", "g", "--component", "A", "--remove", "A"], "A: named more than once"),
        (["--thing-group", "g", "--bucket", "s3://b"], "'s3://b' is not a bucket's name"),
        (["--thing-group", "g", "--timeout", "soon"], "'soon': expected seconds, 0 or more"),
        (["--thing-group", "g", "--timeout", "nan"], "'nan': expected seconds"),
        (["--thing-group", "g", "--interval", "0"], "'0': expected more than 0 seconds"),
        (["--thing-group", "g", "--to", "x"], "--to does not go with deploy"),
        (["status", "--thing-group", "g", "--yes"], "--yes does not go with status"),
        (["rollback", "--thing-group", "g", "--component", "A"], "--component does not go with rollback"),
    ],
)
def test_wrong_arguments_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        deploy.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a mapping with names of components, found nothing"),
        ("[edgeml.A]", "expected a mapping with names of components, found a list"),
        ("edgeml.A:", "edgeml.A: expected a mapping with configuration, found nothing"),
        ("edgeml.A: 3", "edgeml.A: expected a mapping with configuration, found a number"),
        ("edgeml.A: {merge: 3}", "edgeml.A: merge: expected a mapping with configuration, found a number"),
        ("edgeml.A: {merge: [fps]}", "edgeml.A: merge: expected a mapping with configuration, found a list"),
        ("edgeml.A: {reset: /fps}", "edgeml.A: reset: expected a list of JSON pointers, found text"),
        ("edgeml.A: {reset: [fps]}", "expected JSON pointers such as /fps, or \"\" for everything; found 'fps'"),
        ("edgeml.A: {reset: [3]}", "found 3"),
        ("edgeml.A: {reset: [/list/0]}", "devices cannot reset /list/0"),
        ("edgeml.A: {merge: {}, fps: 5}", "expected only merge and reset, or neither; found fps"),
        ("edgeml.A: {at: 2026-01-01}", "edgeml.A.at: 2026-01-01 is a date, which JSON has not: quote it"),
        ("edgeml.A: {a: [{b: .nan}]}", "edgeml.A.a[0].b: nan is a number, which JSON has not"),
        ("edgeml.A: {on: 1}", "the key True is true or false, expected a string: quote it"),
        ("edgeml.A: {fps: 5", "is neither YAML nor JSON"),
        ("edgeml.A: \xff", "is neither YAML nor JSON"),
    ],
)
def test_a_configuration_file_that_is_wrong_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SystemExit) as stopped:
        deploy.main(["--thing-group", GROUP, "--config", str(path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"argument --config: {path}" in error
    assert message in error


def test_a_configuration_file_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        deploy.main(["--thing-group", GROUP, "--config", "/nowhere/site.yaml"])
    assert "argument --config: /nowhere/site.yaml: No such file or directory" in capsys.readouterr().err


def test_configuration_of_what_is_not_deployed_is_refused(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--yes", "--config", field.config(B={"fps": 5})) == 2
    assert "--config: edgeml.B is not in the deployment, which has edgeml.A" in capsys.readouterr().err
    assert field.ids() == []


def test_configuration_that_others_deployed_and_is_not_json_is_said(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "{}"}}
    field.create({"edgeml.A": broken})
    broken["configurationUpdate"] = {"merge": "[1]"}
    field.cloud.greengrass.deployments[-1].request["components"]["edgeml.A"] = broken
    assert field.deploy("--yes", "--config", field.config(A={"fps": 1})) == 1
    assert "the deployed configuration is not a JSON object: [1]" in capsys.readouterr().err


def refusing(code: str, status: int) -> Callable[[Request], Response | None]:
    def answer(request: Request) -> Response | None:
        if request.service != "iot":
            return None
        return Response(b'{"message": "as the test wants it"}', status, {"x-amzn-ErrorType": code})

    return answer


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "message"),
    [
        ("ExpiredTokenException", 403, 2, "AWS does not take the credentials: as the test wants it"),
        ("AccessDeniedException", 403, 1, "these AWS credentials may not do DescribeThingGroup: as the test wants it"),
        ("InvalidRequestException", 400, 1, "AWS refused DescribeThingGroup: InvalidRequestException"),
    ],
)
def test_what_aws_refuses_is_said(
    field: Field, capsys: pytest.CaptureFixture[str], code: str, status: int, exit_code: int, message: str
) -> None:
    with field.answering(refusing(code, status)):
        assert field.deploy("status") == exit_code
    assert message in capsys.readouterr().err


def run(changes: dict[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    """scripts/deploy as a process, with an AWS configuration of nothing but `changes`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"} | changes
    command = [sys.executable, deploy.__file__, "status", "--thing-group", "g"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({}, "no AWS region: name --region, set AWS_REGION or AWS_DEFAULT_REGION"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "the AWS configuration: Unable to locate credentials"),
        ({"AWS_REGION": "us-east-1"}, "the AWS configuration: Unable to locate credentials"),
        ({"AWS_PROFILE": "nobody"}, "the AWS configuration: The config profile (nobody) could not be found"),
    ],
)
def test_an_aws_configuration_that_is_wrong_is_said(
    tmp_path: Path, configuration: dict[str, str], message: str
) -> None:
    done = run(configuration, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def test_an_aws_that_cannot_be_reached_is_said(tmp_path: Path, closed_port: int) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    done = run(keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed_port}"}, tmp_path)
    assert done.returncode == 1
    assert "AWS cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_client_gives_up_in_time(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of boto3 itself: waiting it out would take half a minute for each."""
    import boto3

    made: list[tuple[str, Any]] = []
    client = boto3.Session.client

    def seen(session: boto3.Session, service: str, **more: object) -> object:
        made.append((service, more.get("config")))
        return client(session, service, **more)

    monkeypatch.setattr(boto3.Session, "client", seen)
    assert field.deploy("--yes") == 0
    assert {service for service, _ in made} == {"greengrassv2", "iot", "s3", "sts"}
    for service, config in made:
        assert config is not None, service
        assert (config.connect_timeout, config.read_timeout) == (5, 30)
        assert config.retries["total_max_attempts"] == 4


def test_help_fits_a_terminal_of_80_columns() -> None:
    arguments = [sys.executable, str(ROOT / "scripts" / "deploy.py"), "--help"]
    shown = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 0
    assert [line for line in shown.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("", ""),
        (
            "<html><head><title>502</title></head>\n<body bgcolor='x'><h1>Bad   Gateway</h1></body></html>",
            "502 Bad Gateway",
        ),
        ("x" * 499, "x" * 499),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500),
        ("<" * 100_000, "<" * 500),
    ],
    ids=["empty", "html", "just below", "at", "just above", "unclosed"],
)
def test_a_page_of_html_is_told_in_few_words(page: str, words: str) -> None:
    with pytest.raises(DeployError) as caught, aws.in_words():
        raise ClientError({"Error": {"Code": "502", "Message": page}}, "GetDeployment")
    assert str(caught.value) == f"AWS refused GetDeployment: 502: {words}"
