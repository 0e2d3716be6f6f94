"""scripts/deploy against the local cloud's S3, IoT and Greengrass: what is deployed, and asking before."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy_support import BUCKET, TARGET, Field
from deployment.config_file import read
from deployment.revision import merged


def test_built_components_are_published_and_deployed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.build("edgeml.B", "2.1.0")
    assert field.deploy("--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0", "edgeml.B": "2.1.0"}
    s3 = field.cloud.aws.client("s3")
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"zip"
    arn = "arn:aws:greengrass:us-east-1:123456789012:components:edgeml.A:versions:1.0.0"
    recipe = json.loads(field.greengrass.get_component(arn=arn, recipeOutputFormat="JSON")["recipe"])
    assert recipe["Manifests"][0]["Artifacts"][0]["Uri"] == f"s3://{BUCKET}/edgeml.A/1.0.0/code.zip"
    assert "2 of 2 devices succeeded" in capsys.readouterr().out


def test_what_is_not_mentioned_stays_as_it_is(field: Field) -> None:
    nucleus = {"componentVersion": "2.12.0", "configurationUpdate": {"merge": '{"logging": {"level": "WARN"}}'}}
    settings = {
        "deploymentName": "theirs",
        "deploymentPolicies": {
            "failureHandlingPolicy": "ROLLBACK",
            "componentUpdatePolicy": {"timeoutInSeconds": 30, "action": "NOTIFY_COMPONENTS"},
        },
        "iotJobConfiguration": {"timeoutConfig": {"inProgressTimeoutInMinutes": 7}},
        "tags": {"cost": "42"},
    }
    field.create({"aws.greengrass.Nucleus": nucleus}, **settings)
    assert field.deploy("--yes") == 0
    assert field.components() == {"aws.greengrass.Nucleus": nucleus, "edgeml.A": {"componentVersion": "1.0.0"}}
    (latest,) = field.greengrass.list_deployments(targetArn=TARGET)["deployments"]
    deployment = field.greengrass.get_deployment(deploymentId=latest["deploymentId"])
    assert {key: deployment[key] for key in settings} == settings


def test_configuration_is_merged_and_reset(field: Field, tmp_path: Path) -> None:
    field.build("edgeml.B", "1.0.0")
    config = tmp_path / "config.yaml"
    config.write_text("edgeml.A: {fps: 5}\nedgeml.B: {merge: {enabled: true}, reset: [/old]}\n")
    assert field.deploy("--yes", "--config", str(config)) == 0
    updates = {name: c["configurationUpdate"] for name, c in field.components().items()}
    assert updates["edgeml.A"] == {"merge": '{"fps": 5}'}
    assert updates["edgeml.B"] == {"merge": '{"enabled": true}', "reset": ["/old"]}
    assert field.configuration() == {"fps": 5}


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
    tmp_path: Path, earlier: dict[str, Any], later: dict[str, Any], update: dict[str, Any]
) -> None:
    components: dict[str, dict[str, Any]] = {"edgeml.A": {"componentVersion": "1.0.0"}}
    for config in (earlier, later):
        (tmp_path / "config.json").write_text(json.dumps({"edgeml.A": config}))
        components = merged(components, {}, [], read(tmp_path / "config.json"))
    found = components["edgeml.A"]["configurationUpdate"]
    assert json.loads(found["merge"]) == update["merge"]
    assert found.get("reset", []) == update.get("reset", later.get("reset", []))


def test_a_dry_run_shows_the_changes_and_changes_nothing(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    config = field.config(A={"fps": 5, "path": "[red]/x", "sizes": {"w": [1, 2]}})
    assert field.deploy("--dry-run", "--config", config) == 0
    output = capsys.readouterr().out
    assert "to be published: edgeml.A 1.0.0" in output
    table = output.partition("Changes to presses")[2]
    assert "1.0.0" in table
    assert all(line in table for line in ("/fps = 5", '/path = "[red]/x"', "/sizes/w = [1, 2]"))
    assert field.ids() == []
    assert "Contents" not in field.cloud.aws.client("s3").list_objects_v2(Bucket=BUCKET)


def test_the_changes_name_what_is_configured_anew(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--yes", "--config", field.config(A={"fps": 5, "size": 1})) == 0
    capsys.readouterr()
    update = {"merge": {"fps": 7}, "reset": ["/size", "/old"]}
    assert field.deploy("--dry-run", "--config", field.config(A=update)) == 0
    output = capsys.readouterr().out
    assert "/fps = 7 (was 5)" in output
    assert "reset /size" in output
    assert "reset /old" in output
    assert "/size =" not in output


@pytest.mark.parametrize(("answer", "deployed"), [("y\n", True), ("n\n", False), ("", False)])
def test_without_yes_it_asks(field: Field, answer: str, deployed: bool) -> None:
    command = field.command()
    done = subprocess.run(command, input=answer, capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if deployed else 1), done.stdout + done.stderr
    assert bool(field.ids()) is deployed


def test_components_can_be_chosen_and_removed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    field.build("edgeml.B", "1.0.0")
    assert field.deploy("--yes", "--component", "edgeml.B", "--component", "aws.greengrass.Cli=2.12.0") == 0
    assert field.versions() == {"edgeml.B": "1.0.0", "aws.greengrass.Cli": "2.12.0"}
    capsys.readouterr()
    assert field.deploy("--yes", "--remove", "edgeml.B") == 0
    assert "removed" in capsys.readouterr().out
    assert field.versions() == {"aws.greengrass.Cli": "2.12.0"}


def test_what_is_deployed_already_makes_no_deployment(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    assert field.deploy("--yes") == 0
    assert field.deploy("--yes") == 0
    assert "nothing to change" in capsys.readouterr().out
    assert len(field.ids()) == 1
