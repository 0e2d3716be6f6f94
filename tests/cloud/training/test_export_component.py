"""export_onnx.py --mode component: a version of a component, and its deployment."""

import base64
import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import publishing
from export_support import COMPONENTS, Registry, archive, draft, unzipped
from localdev.cloud.aws import Request
from localdev.core import Profile, check_recipe
from ota_support import tiny_model

COMPONENT_MODE = ["--mode", "component", "--component-bucket", COMPONENTS, "--update-function", "update"]


def test_component_mode_makes_a_version_and_asks_for_its_deployment(
    app: ModuleType, registry: Registry, invoked: list[Request], tmp_path: Path
) -> None:
    app.main(["--package", registry.package(archive()), *COMPONENT_MODE])
    client = registry.cloud.aws.client("greengrassv2")
    arn = "arn:aws:greengrass:us-east-1:123456789012:components:edgeml.model.Tiny:versions:1.4.0"
    recipe = json.loads(client.get_component(arn=arn, recipeOutputFormat="JSON")["recipe"])
    (artifact,) = recipe["Manifests"][0]["Artifacts"]
    assert artifact["Uri"] == f"s3://{COMPONENTS}/edgeml.model.Tiny/1.4.0/bundle.zip"
    content = registry.get("edgeml.model.Tiny/1.4.0/bundle.zip", COMPONENTS)
    assert artifact["Digest"] == base64.b64encode(hashlib.sha256(content).digest()).decode()
    assert unzipped(content, tmp_path).manifest.version == "1.4.0"
    assert [json.loads(request.body) for request in invoked] == [
        {"component_name": "edgeml.model.Tiny", "component_version": "1.4.0"}
    ]
    assert invoked[0].headers["x-amz-invocation-type"] == "Event"


def test_a_repeated_build_goes_on_where_the_last_one_stopped(
    app: ModuleType, registry: Registry, invoked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it measures other things, and so has other bytes."""
    package = registry.package(archive(bundle_json=json.dumps(draft("2.0.0")).encode()))
    bundled, reports = app.bundled, [b"first", b"second"]

    def measured(*given: Any) -> Any:
        report = reports.pop(0)
        return replace(bundled(*given), content=report, report=report.decode())

    monkeypatch.setattr(app, "bundled", measured)
    for _ in range(2):
        app.main(["--package", package, *COMPONENT_MODE])
    assert [json.loads(request.body)["component_version"] for request in invoked] == ["2.0.0"] * 2
    left = [registry.get(f"edgeml.model.Tiny/2.0.0/bundle.{kind}", COMPONENTS) for kind in ("zip", "txt")]
    assert left == [b"first", b"first"]


def test_the_artifact_of_a_published_version_is_never_overwritten(
    app: ModuleType, registry: Registry, invoked: list[Request]
) -> None:
    bundle = json.dumps(draft("3.0.0")).encode()
    app.main(["--package", registry.package(archive(bundle_json=bundle)), *COMPONENT_MODE])
    key = "edgeml.model.Tiny/3.0.0/bundle.zip"
    published = registry.get(key, COMPONENTS)
    other = archive(bundle_json=bundle, model_onnx=tiny_model(7.0))
    with pytest.raises(app.ExportError, match=f"{key} exists with other contents"):
        app.main(["--package", registry.package(other), *COMPONENT_MODE])
    assert registry.get(key, COMPONENTS) == published
    assert len(invoked) == 1


def test_the_component_runs_on_both_nuclei_and_links_its_bundle(tmp_path: Path) -> None:
    recipe = publishing.component_recipe("edgeml.model.Tiny", "1.4.0", "s3://b/k/bundle.zip")
    for profile in Profile:
        assert check_recipe(recipe, yaml.safe_dump(recipe).encode(), profile) == []
    script = recipe["Manifests"][0]["Lifecycle"]["run"]["Script"]
    (tmp_path / "artifact" / "bundle").mkdir(parents=True)
    (tmp_path / "artifact" / "bundle" / "model.json").write_text("{}")
    for variable, place in (("artifacts:decompressedPath", "artifact"), ("work:path", "")):
        script = script.replace(f"{{{variable}}}", str(tmp_path / place))
    subprocess.run(["sh", "-c", script], check=True, timeout=5)
    assert (tmp_path / "current").resolve() == tmp_path / "artifact" / "bundle"


@pytest.mark.parametrize(
    ("version", "expected"), [("7", "7.0.0"), ("1.2", "1.2.0"), ("v1.2.3", "1.2.3"), ("1.2-rc.1", "1.2.0-rc.1")]
)
def test_versions_are_filled_up_for_greengrass(version: str, expected: str) -> None:
    assert publishing.component_version(version) == expected
