"""scripts/deploy against the local cloud's S3, IoT and Greengrass."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deploy
from deployment.revision import merged
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.cloud.greengrass import Deployment

GROUP = "presses"
TARGET = f"arn:aws:iot:us-east-1:123456789012:thinggroup/{GROUP}"
BUCKET = "edgeml-components-123456789012-us-east-1"


class Field:
    """The cloud, the built components, and devices that answer each deployment with `verdict`."""

    def __init__(self, cloud: LocalCloud, builds: Path) -> None:
        self.cloud = cloud
        self.builds = builds
        self.verdict = "SUCCEEDED"
        cloud.greengrass.on_deployment.append(self._arrived)

    def _arrived(self, deployment: Deployment) -> None:
        for thing in deployment.executions:
            self.cloud.greengrass.report(deployment.id, thing, self.verdict)

    def build(self, name: str, version: str, content: bytes = b"zip") -> None:
        folder = self.builds / name / "greengrass-build"
        artifacts = folder / "artifacts" / name / version
        artifacts.mkdir(parents=True, exist_ok=True)
        (artifacts / "code.zip").write_bytes(content)
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "Manifests": [{"Artifacts": [{"Uri": "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/code.zip"}]}],
        }
        (folder / "recipes").mkdir(exist_ok=True)
        (folder / "recipes" / f"{name}.yaml").write_text(json.dumps(recipe))

    def deploy(self, *arguments: str) -> int:
        options = ["--thing-group", GROUP, "--builds", str(self.builds), "--interval", "0.02", "--timeout", "0.2"]
        return deploy.main([*options, *arguments])

    def components(self) -> dict[str, Any]:
        greengrass = self.cloud.aws.client("greengrassv2")
        (latest,) = greengrass.list_deployments(targetArn=TARGET)["deployments"]
        return dict(greengrass.get_deployment(deploymentId=latest["deploymentId"])["components"])

    def versions(self) -> dict[str, str]:
        return {name: specification["componentVersion"] for name, specification in self.components().items()}


@pytest.fixture(scope="module")
def running_cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture
def field(running_cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    for name, value in running_cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    aws = running_cloud.aws
    aws.reset()
    running_cloud.greengrass.forget()
    aws.client("s3").create_bucket(Bucket=BUCKET)
    iot = aws.client("iot")
    iot.create_thing_group(thingGroupName=GROUP)
    for thing in ("press-1", "press-2"):
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupName=GROUP, thingName=thing)
    made = Field(running_cloud, tmp_path)
    made.build("edgeml.A", "1.0.0")
    yield made
    running_cloud.greengrass.on_deployment.clear()


def test_built_components_are_published_and_deployed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.build("edgeml.B", "2.1.0")
    assert field.deploy("--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0", "edgeml.B": "2.1.0"}
    s3 = field.cloud.aws.client("s3")
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"zip"
    arn = "arn:aws:greengrass:us-east-1:123456789012:components:edgeml.A:versions:1.0.0"
    recipe = json.loads(
        field.cloud.aws.client("greengrassv2").get_component(arn=arn, recipeOutputFormat="JSON")["recipe"]
    )
    assert recipe["Manifests"][0]["Artifacts"][0]["Uri"] == f"s3://{BUCKET}/edgeml.A/1.0.0/code.zip"
    assert "2 of 2 devices succeeded" in capsys.readouterr().out


def test_what_is_not_mentioned_stays_as_it_is(field: Field) -> None:
    nucleus = {"componentVersion": "2.12.0", "configurationUpdate": {"merge": '{"logging": {"level": "WARN"}}'}}
    policies = {
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {"timeoutInSeconds": 30, "action": "NOTIFY_COMPONENTS"},
    }
    greengrass = field.cloud.aws.client("greengrassv2")
    greengrass.create_deployment(
        targetArn=TARGET,
        deploymentName="theirs",
        components={"aws.greengrass.Nucleus": nucleus},
        deploymentPolicies=policies,
        iotJobConfiguration={"timeoutConfig": {"inProgressTimeoutInMinutes": 7}},
        tags={"cost": "42"},
    )
    assert field.deploy("--yes") == 0
    assert field.components() == {"aws.greengrass.Nucleus": nucleus, "edgeml.A": {"componentVersion": "1.0.0"}}
    (latest,) = greengrass.list_deployments(targetArn=TARGET)["deployments"]
    deployment = greengrass.get_deployment(deploymentId=latest["deploymentId"])
    assert deployment["deploymentName"] == "theirs"
    assert deployment["deploymentPolicies"] == policies
    assert deployment["iotJobConfiguration"] == {"timeoutConfig": {"inProgressTimeoutInMinutes": 7}}
    assert deployment["tags"] == {"cost": "42"}


def test_configuration_is_merged_and_reset(field: Field, tmp_path: Path) -> None:
    field.build("edgeml.B", "1.0.0")
    config = tmp_path / "config.yaml"
    config.write_text("edgeml.A: {fps: 5}\nedgeml.B: {merge: {enabled: true}, reset: [/old]}\n")
    assert field.deploy("--yes", "--config", str(config)) == 0
    updates = {name: c["configurationUpdate"] for name, c in field.components().items()}
    assert updates["edgeml.A"] == {"merge": '{"fps": 5}'}
    assert updates["edgeml.B"] == {"merge": '{"enabled": true}', "reset": ["/old"]}
    config.write_text("edgeml.C: {}\n")
    assert field.deploy("--yes", "--config", str(config)) == 1


@pytest.mark.parametrize(
    ("earlier", "later", "update"),
    [
        ({"a": 1}, {"b": 2}, {"merge": {"a": 1, "b": 2}}),
        ({"a": {"x": 1, "y": 1}, "l": [1]}, {"a": {"y": 2}, "l": [2]}, {"merge": {"a": {"x": 1, "y": 2}, "l": [2]}}),
        ({"a": {"x": 1}}, {"a": 3}, {"merge": {"a": 3}}),
        ({"a": {"x": 1, "y": 1}, "b": 1}, {"reset": ["/a/x", "/c/d"]}, {"merge": {"a": {"y": 1}, "b": 1}}),
        ({"a/b": 1, "~": 1, "c": 1}, {"reset": ["/a~1b", "/~0"]}, {"merge": {"c": 1}}),
        ({"a": 1}, {"reset": [""], "merge": {"b": 2}}, {"merge": {"b": 2}}),
        ({"merge": {"a": 1}, "reset": ["/z"]}, {"b": 2}, {"merge": {"a": 1, "b": 2}, "reset": ["/z"]}),
        ({"a": 1}, {}, {"merge": {"a": 1}}),
    ],
)
def test_configuration_is_added_to_what_was_configured_before(
    earlier: dict[str, Any], later: dict[str, Any], update: dict[str, Any]
) -> None:
    components: dict[str, dict[str, Any]] = {"edgeml.A": {"componentVersion": "1.0.0"}}
    for config in (earlier, later):
        components = merged(components, {}, [], {"edgeml.A": config})
    found = components["edgeml.A"]["configurationUpdate"]
    assert json.loads(found["merge"]) == update["merge"]
    assert found.get("reset", []) == update.get("reset", later.get("reset", []))


def test_a_published_version_is_deployed_again_without_being_touched(field: Field) -> None:
    assert field.deploy("--yes") == 0
    before = field.cloud.aws.client("s3").head_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["LastModified"]
    field.build("edgeml.B", "1.0.0")
    assert field.deploy("--yes") == 0
    after = field.cloud.aws.client("s3").head_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["LastModified"]
    assert before == after
    assert field.versions() == {"edgeml.A": "1.0.0", "edgeml.B": "1.0.0"}


def test_other_contents_under_a_published_version_are_refused(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--yes") == 0
    field.build("edgeml.A", "1.0.0", b"other")
    assert field.deploy("--yes") == 1
    assert "edgeml.A 1.0.0 is published with other contents" in capsys.readouterr().out
    assert (
        field.cloud.aws.client("s3").get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"zip"
    )


def test_an_interrupted_publish_is_finished_but_not_overwritten(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = field.cloud.aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip", Body=b"other")
    assert field.deploy("--yes") == 1
    assert "exists with other contents" in capsys.readouterr().out
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"other"
    s3.put_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip", Body=b"zip")
    assert field.deploy("--yes") == 0


def test_a_dry_run_shows_the_changes_and_changes_nothing(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--dry-run") == 0
    output = capsys.readouterr().out
    assert "to be published: edgeml.A 1.0.0" in output
    assert "1.0.0" in output.partition("Changes to presses")[2]
    assert field.cloud.aws.client("greengrassv2").list_deployments(targetArn=TARGET)["deployments"] == []
    assert "Contents" not in field.cloud.aws.client("s3").list_objects_v2(Bucket=BUCKET)


@pytest.mark.parametrize(("answer", "deployed"), [("y\n", True), ("n\n", False), ("", False)])
def test_without_yes_it_asks(field: Field, answer: str, deployed: bool) -> None:
    command = [sys.executable, deploy.__file__, "--thing-group", GROUP, "--builds", str(field.builds), "--timeout", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(deploy.__file__).parent)}
    done = subprocess.run(command, input=answer, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if deployed else 1), done.stdout + done.stderr
    assert bool(field.cloud.aws.client("greengrassv2").list_deployments(targetArn=TARGET)["deployments"]) is deployed


def test_components_can_be_chosen_and_removed(field: Field) -> None:
    field.build("edgeml.B", "1.0.0")
    assert field.deploy("--yes", "--component", "edgeml.B", "--component", "aws.greengrass.Cli=2.12.0") == 0
    assert field.versions() == {"edgeml.B": "1.0.0", "aws.greengrass.Cli": "2.12.0"}
    assert field.deploy("--yes", "--remove", "edgeml.B") == 0
    assert field.versions() == {"aws.greengrass.Cli": "2.12.0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--component", "edgeml.Z"], "edgeml.Z is not built"),
        (["--component", "edgeml.A=9.9.9"], "doesn't claim 9.9.9"),
        (["--remove", "edgeml.Z"], "edgeml.Z is not in the deployment"),
        (["--bucket", "nowhere-123"], "there is no bucket nowhere-123"),
        (["rollback"], "there is no earlier deployment"),
    ],
)
def test_what_cannot_be_done_is_said(
    field: Field, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert field.deploy("--yes", *arguments) == 1
    assert message in capsys.readouterr().out


def test_an_unknown_group_is_said(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["--thing-group", "nobody"]) == 1
    assert "there is no thing group nobody" in capsys.readouterr().out


def test_an_incomplete_build_is_refused(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    next(field.builds.glob("**/code.zip")).unlink()
    assert field.deploy("--yes") == 1
    assert "lacks code.zip" in capsys.readouterr().out


@pytest.mark.parametrize(("verdict", "text"), [("FAILED", "FAILED"), ("QUEUED", "the deployment goes on")])
def test_devices_that_fail_or_are_offline_are_named(
    field: Field, capsys: pytest.CaptureFixture[str], verdict: str, text: str
) -> None:
    field.verdict = verdict
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert "0 of 2 devices succeeded" in output
    assert "press-1" in output
    assert text in output
    assert field.deploy("status") == 1


@pytest.fixture
def executions(field: Field) -> Iterator[list[list[str] | None]]:
    """The next answers to what devices have the job: their names, all SUCCEEDED, or None for a job not known yet."""
    answers: list[list[str] | None] = []

    def shown(request: Request) -> Response | None:
        if request.service != "iot" or not re.fullmatch(r"/jobs/[^/]+/things", request.path) or not answers:
            return None
        things = answers.pop(0)
        if things is None:
            return Response(b"{}", 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
        arn, status = "arn:aws:iot:us-east-1:123456789012:thing/", {"status": "SUCCEEDED"}
        summaries = [{"thingArn": arn + thing, "jobExecutionSummary": status} for thing in things]
        return Response(json.dumps({"executionSummaries": summaries}).encode())

    field.cloud.aws.stand_ins.insert(0, shown)
    yield answers
    field.cloud.aws.stand_ins.remove(shown)


def test_devices_that_appear_late_are_waited_for(
    field: Field, executions: list[list[str] | None], capsys: pytest.CaptureFixture[str]
) -> None:
    executions += [None, [], ["press-1"]]
    field.verdict = "FAILED"
    assert field.deploy("--yes", "--timeout", "5") == 1
    assert executions == []
    assert "0 of 2 devices succeeded" in capsys.readouterr().out, "what the fourth look finds"


@pytest.mark.parametrize(("things", "count"), [(None, 0), ([], 0), (["press-1"], 1)])
def test_devices_that_do_not_appear_are_no_success(
    field: Field,
    executions: list[list[str] | None],
    capsys: pytest.CaptureFixture[str],
    things: list[str] | None,
    count: int,
) -> None:
    executions += [things] * 100
    assert field.deploy("--yes") == 1
    output = capsys.readouterr().out
    assert f"{count} of 2 devices succeeded" in output
    assert "the deployment goes on" in output
    assert field.deploy("status") == 1


def test_status_shows_components_and_devices(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("status") == 0
    assert "nothing has been deployed" in capsys.readouterr().out
    field.deploy("--yes")
    capsys.readouterr()
    assert field.deploy("status") == 0
    output = capsys.readouterr().out
    assert "edgeml.A" in output
    assert "2 of 2 devices succeeded" in output


def test_rollback_brings_back_what_was_before(field: Field) -> None:
    field.deploy("--yes")
    field.build("edgeml.A", "1.1.0")
    field.deploy("--yes")
    assert field.versions() == {"edgeml.A": "1.1.0"}
    assert field.deploy("rollback", "--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0"}


def test_somebody_elses_deployment_in_between_is_not_overwritten(
    field: Field, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interfere(*_: object, **__: object) -> bool:
        components = {"aws.greengrass.Cli": {"componentVersion": "2.0.0"}}
        field.cloud.aws.client("greengrassv2").create_deployment(targetArn=TARGET, components=components)
        return True

    monkeypatch.setattr(deploy, "_confirmed", interfere)
    assert field.deploy() == 1
    assert "someone else has deployed" in capsys.readouterr().out
    assert field.versions() == {"aws.greengrass.Cli": "2.0.0"}
