"""scripts/deploy publishes a version once, and deploys only versions that there are."""

import json
from typing import Any

import pytest
import yaml

from deploy_support import BUCKET, Field
from deployment.recipes import file_name
from localdev.cloud.aws import Request, Response
from support import ROOT


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
    error = capsys.readouterr().err
    assert "edgeml.A 1.0.0 is published with other contents (/Manifests/0/Artifacts/0/Digest: published" in error
    assert "raise the version in gdk-config" in error
    s3 = field.cloud.aws.client("s3")
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"zip"


ARTIFACT = {"Uri": "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/code.zip"}
POLICY = {"edgeml.A:pubsub:1": {"operations": ["aws.greengrass#PublishToTopic"], "resources": ["edgeml/a"]}}
RECIPE: dict[str, Any] = {
    "ComponentDependencies": {"edgeml.B": {"VersionRequirement": "^1.0.0"}},
    "ComponentConfiguration": {
        "DefaultConfiguration": {"fps": 5, "accessControl": {"aws.greengrass.ipc.pubsub": POLICY}}
    },
    "Manifests": [{"Platform": {"os": "linux"}, "Lifecycle": {"run": {"Script": "a"}}, "Artifacts": [ARTIFACT]}],
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """RECIPE with another value at `path`."""
    made = json.loads(json.dumps(RECIPE))
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return dict(made)


DEFAULTS = ("ComponentConfiguration", "DefaultConfiguration")


@pytest.mark.parametrize(
    ("recipe", "difference"),
    [
        (changed(*DEFAULTS, "fps", to=10), "/DefaultConfiguration/fps: published 5, built 10"),
        (
            changed(
                *DEFAULTS, "accessControl", "aws.greengrass.ipc.pubsub", "edgeml.A:pubsub:1", "resources", to=["#"]
            ),
            "resources/0: published 'edgeml/a', built '#'",
        ),
        (changed("Manifests", 0, "Lifecycle", "run", "Script", to="b"), "/run/Script: published 'a', built 'b'"),
        (changed("Manifests", 0, "Platform", "os", to="*"), "/Platform/os: published 'linux', built '*'"),
        (changed("Manifests", 0, "Artifacts", 0, "Unarchive", to="ZIP"), "/Unarchive: published 'NONE', built 'ZIP'"),
        (changed("ComponentDependencies", to={}), "/ComponentDependencies: published"),
        (
            changed("ComponentDependencies", "edgeml.B", "DependencyType", to="SOFT"),
            "/DependencyType: published 'HARD', built 'SOFT'",
        ),
    ],
)
def test_another_recipe_under_a_published_version_is_refused(
    field: Field, capsys: pytest.CaptureFixture[str], recipe: dict[str, Any], difference: str
) -> None:
    field.build("edgeml.A", "1.0.0", **RECIPE)
    assert field.deploy("--yes") == 0
    field.build("edgeml.A", "1.0.0", **recipe)
    assert field.deploy("--yes") == 1
    error = capsys.readouterr().err
    assert "edgeml.A 1.0.0 is published with other contents" in error
    assert difference in error
    assert "raise the version in gdk-config" in error
    assert len(field.ids()) == 1


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE | {"ComponentType": "aws.greengrass.generic", "Lifecycle": {}},
        changed("ComponentDependencies", "edgeml.B", "DependencyType", to="HARD"),
        changed(
            "Manifests", 0, "Artifacts", 0, to={"Permission": {"Execute": "NONE"}, "Unarchive": "NONE", **ARTIFACT}
        ),
        changed("Manifests", 0, "Selections", to=None),
    ],
)
def test_the_same_recipe_in_other_words_is_not_refused(
    field: Field, capsys: pytest.CaptureFixture[str], recipe: dict[str, Any]
) -> None:
    field.build("edgeml.A", "1.0.0", **RECIPE)
    assert field.deploy("--yes") == 0
    field.build("edgeml.A", "1.0.0", **recipe)
    assert field.deploy("--yes") == 0
    assert "nothing to change" in capsys.readouterr().out


def test_where_a_version_was_published_to_makes_no_difference(field: Field) -> None:
    field.cloud.aws.client("s3").create_bucket(Bucket="elsewhere-123")
    assert field.deploy("--yes", "--bucket", "elsewhere-123") == 0
    assert field.deploy("--yes") == 0


@pytest.mark.parametrize("arguments", [["--yes"], ["--dry-run"]])
def test_a_bucket_in_another_region_is_refused(
    field: Field, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    elsewhere = {"LocationConstraint": "eu-west-1"}
    field.cloud.aws.client("s3").create_bucket(Bucket="elsewhere-123", CreateBucketConfiguration=elsewhere)
    assert field.deploy(*arguments, "--bucket", "elsewhere-123") == 2
    assert "the bucket elsewhere-123 is in eu-west-1: name one in us-east-1" in capsys.readouterr().err
    assert "Contents" not in field.cloud.aws.client("s3").list_objects_v2(Bucket="elsewhere-123")


@pytest.mark.parametrize("arguments", [["--yes"], ["--dry-run"]])
def test_a_bucket_that_is_not_there_is_said_before_anything_is_done(
    field: Field, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert field.deploy(*arguments, "--bucket", "nowhere-123") == 2
    captured = capsys.readouterr()
    assert "there is no bucket nowhere-123: deploy cloud/template.yaml, or name --bucket" in captured.err
    assert "Changes to" not in captured.out


def test_all_our_recipes_are_found_unchanged_after_publishing(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        folder = field.builds / path.stem / "greengrass-build"
        artifacts = folder / "artifacts" / recipe["ComponentName"] / recipe["ComponentVersion"]
        artifacts.mkdir(parents=True)
        for manifest in recipe["Manifests"]:
            for artifact in manifest["Artifacts"]:
                (artifacts / file_name(artifact)).write_bytes(b"zip")
        (folder / "recipes").mkdir()
        (folder / "recipes" / path.name).write_text(path.read_text(encoding="utf-8"))
    assert field.deploy("--yes") == 0
    assert len(field.versions()) > 10
    assert field.deploy("--yes") == 0
    assert "nothing to change" in capsys.readouterr().out


def test_an_interrupted_publish_is_finished_but_not_overwritten(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = field.cloud.aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip", Body=b"other")
    assert field.deploy("--yes") == 1
    assert f"s3://{BUCKET}/edgeml.A/1.0.0/code.zip exists with other contents" in capsys.readouterr().err
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"other"
    s3.put_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip", Body=b"zip")
    assert field.deploy("--yes") == 0


def states(*answers: str) -> Any:
    """A stand-in for the next answers to what state a component version is in."""
    remaining = list(answers)

    def shown(request: Request) -> Response | None:
        if request.service != "greengrass" or "/components/" not in request.path or not remaining:
            return None
        status = {"componentState": remaining.pop(0), "errors": {"s3://b/k": "cannot be accessed"}}
        return Response(json.dumps({"status": status}).encode())

    return shown


def test_a_version_is_deployed_when_it_is_ready(field: Field) -> None:
    assert field.deploy("--yes") == 0
    field.build("edgeml.B", "1.0.0")
    with field.answering(states("REQUESTED", "INITIATED")):
        assert field.deploy("--yes") == 0
    assert field.versions() == {"edgeml.A": "1.0.0", "edgeml.B": "1.0.0"}


@pytest.mark.parametrize("arguments", [[], ["--component", "edgeml.Z=1.0.0"]])
def test_a_version_that_failed_is_not_deployed(
    field: Field, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with field.answering(states("FAILED", "FAILED")):
        assert field.deploy("--yes", *arguments) == 1
    error = capsys.readouterr().err
    assert "cannot be deployed: FAILED" in error
    assert "s3://b/k" in error
    assert field.ids() == []


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    for patch in range(60):  # more than a page
        recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "edgeml.Z", "ComponentVersion": f"1.0.{patch}"}
        field.greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
    assert field.deploy("--yes", "--component", "edgeml.Z=9.9.9") == 2
    error = capsys.readouterr().err
    assert "there is no component edgeml.Z 9.9.9 in us-east-1: published are 1.0.59, 1.0.58, " in error
    assert error.strip().endswith("1.0.55 and 55 older")
    assert field.deploy("--yes", "--component", "edgeml.Y=1.0.0") == 2
    assert "edgeml.Y 1.0.0 in us-east-1: it has no published version" in capsys.readouterr().err
    assert field.deploy("--yes", "--component", "edgeml.Z=1.0.7") == 0
    assert field.versions() == {"edgeml.Z": "1.0.7"}


def test_an_incomplete_build_is_refused(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    next(field.builds.glob("**/code.zip")).unlink()
    assert field.deploy("--yes") == 1
    assert "lacks code.zip; run scripts/build" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "a: [", '{"ComponentName": "a", "ComponentVersion": "1.0.0"}', "\x00"]
)
def test_what_is_no_recipe_is_refused(field: Field, capsys: pytest.CaptureFixture[str], content: str) -> None:
    path = next(field.builds.glob("**/edgeml.A.yaml"))
    path.write_text(content)
    assert field.deploy("--yes") == 1
    assert f"{path} is not a recipe" in capsys.readouterr().err
