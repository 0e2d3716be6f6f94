"""scripts/deploy publishes a version once, and deploys only versions that there are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_support import BUCKET, Field, prepared
from deployment.recipes import file_name
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from support import ROOT


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture
def field(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    with prepared(cloud, tmp_path, monkeypatch) as made:
        yield made


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
    assert "edgeml.A 1.0.0 is published with other contents" in error
    assert "raise the version in gdk-config" in error
    s3 = field.cloud.aws.client("s3")
    assert s3.get_object(Bucket=BUCKET, Key="edgeml.A/1.0.0/code.zip")["Body"].read() == b"zip"


def test_where_a_version_was_published_to_makes_no_difference(field: Field) -> None:
    field.cloud.aws.client("s3").create_bucket(Bucket="elsewhere-123")
    assert field.deploy("--yes", "--bucket", "elsewhere-123") == 0
    assert field.deploy("--yes") == 0


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


def test_a_version_that_failed_is_not_deployed(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    with field.answering(states("FAILED", "FAILED")):
        assert field.deploy("--yes") == 1
    error = capsys.readouterr().err
    assert "cannot be deployed: FAILED" in error
    assert "s3://b/k" in error
    assert field.ids() == []


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
