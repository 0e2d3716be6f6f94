"""A model package that somebody approves is exported by the template's build, in a process with the build's role."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import packing
from edgeml import models
from edgeml.variants import runnable, this_processor
from export_support import unzipped
from localdev.cloud import LocalCloud, iam
from localdev.cloud.aws import ACCOUNT, REGION
from localdev.cloud.builds import GUARDED
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import ROOT
from model_updater.document import check_signature, parse
from optimize_support import coloured, colours
from ota_support import bundle_files, tarred, trained
from registry_support import SIGNING_KEY, ModelRegistry

BUILDS_OWN = {"logs:CreateLogStream", "logs:PutLogEvents", "s3:GetObjectVersion"}  # CodeBuild's, for log and source


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:

    @contextmanager
    def starting(**parameters: str) -> Iterator[ModelRegistry]:
        with LocalCloud(TEMPLATE, {"SigningKeySecret": SIGNING_KEY, **parameters}) as cloud:
            for name, value in cloud.environment().items():
                monkeypatch.setenv(name, value)
            yield ModelRegistry(cloud, tmp_path)

    return starting


def test_an_approval_becomes_a_signed_job_and_a_rejection_nothing(started: Any) -> None:
    with started() as registry:
        good, bad = registry.register(bundle_files("1.4.0")), registry.register(bundle_files("1.5.0"))
        registry.decide(bad, "Rejected")
        assert registry.documents() == []
        registry.decide(good, "Approved")
        ((key, document),) = registry.documents()
        (build,) = registry.cloud.aws.client("codebuild").list_builds_for_project(projectName="ExportModelProject")[
            "ids"
        ]
        project, _, number = build.partition(":")
        assert key == f"{number}/{project}/job.json"
        assert document["model_version"] == "1.4.0"
        url = re.fullmatch(r"\$\{aws:iot:s3-presigned-url:(https://.*)\}", document["deployment_artifact_path"])
        assert url is not None
        check_signature(parse(document | {"deployment_artifact_path": url[1]}), registry.signer.public)
        (job,) = registry.jobs()
        assert job.startswith("Tiny-1_4_0-")


def test_an_approval_becomes_a_component_and_its_deployment(started: Any) -> None:
    with started(ExportMode="component") as registry:
        greengrass, target = registry.cloud.aws.client("greengrassv2"), registry.cloud.stack.outputs["ThingGroupArn"]
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": "edgeml.model.Tiny",
            "ComponentVersion": "1.0.0",
        }
        greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
        greengrass.create_deployment(targetArn=target, components={"edgeml.model.Tiny": {"componentVersion": "1.0.0"}})
        registry.decide(registry.register(bundle_files("1.4.0")), "Approved")
        (latest,) = greengrass.list_deployments(targetArn=target)["deployments"]
        components = greengrass.get_deployment(deploymentId=latest["deploymentId"])["components"]
        assert components == {"edgeml.model.Tiny": {"componentVersion": "1.4.0"}}
        assert registry.jobs() == []


def test_samples_of_an_archive_become_a_variant_that_runs(started: Any, tmp_path: Path) -> None:
    """How fast it is here does not count: that is measured, and so another thing each time."""
    files = {path.name: path.read_bytes() for path in colours(tmp_path / "model").iterdir()}
    samples = {"calibration.npy": packing.npy(coloured(1)), "evaluation.npy": packing.npy(coloured(2))}
    with started() as registry:
        environment = registry.cloud.stack.resources["ExportModelProject"].properties["Environment"]
        environment["EnvironmentVariables"].append({"Name": "MIN_GAIN", "Value": "0"})
        registry.decide(registry.register(files | samples), "Approved")
        ((_, document),) = registry.documents()
        place = document["deployment_artifact_path"].partition("amazonaws.com/")[2].removesuffix(".zip}")
        bucket, _, key = place.partition("/")
        s3 = registry.cloud.aws.client("s3")
        artifact, report, plot = (
            s3.get_object(Bucket=bucket, Key=f"{key}.{kind}")["Body"].read() for kind in ("zip", "txt", "png")
        )
        log = registry.log()
    bundle = unzipped(artifact, tmp_path / "bundle")
    (variant,) = runnable(bundle.manifest.variants, this_processor())
    assert variant.precision == "int8"
    assert variant.accuracy["top1_agreement"] == 1
    models.probe(models.open_session(bundle.using(variant.file)), bundle)
    assert not samples.keys() & {path.name for path in bundle.path.iterdir()}
    assert (f": {variant.name}" in report.decode(), report.decode() in log) == (True, True)
    assert plot.startswith(b"\x89PNG")


def test_an_archive_that_is_not_the_registered_one_becomes_nothing(started: Any) -> None:
    with started() as registry:
        package = registry.register(bundle_files("1.4.0"))
        registry.replace_archive(package, tarred({"model.onnx": b"another", "bundle.json": b"{}"}))
        registry.decide(package, "Approved")
        assert "the archive is not the one that was registered" in registry.log()
        assert registry.documents() == registry.jobs() == []


def test_the_build_asks_for_what_its_role_grants_and_for_all_of_it(started: Any) -> None:
    asked: set[str] = set()
    for mode in ("job", "component"):
        with started(ExportMode=mode) as registry:
            registry.decide(registry.register(bundle_files("1.4.0")), "Approved")
            asked |= {action for action, _ in registry.cloud.builds.asked}
            role = registry.cloud.stack.resources["ExportModelRole"].arn
            statements = registry.cloud.stack.statements(role)
            assert [need for need in registry.cloud.builds.asked if not iam.allowed(statements, need, {})] == []
    granted = {action for each in statements for action in as_list(each["Action"])}
    assert granted - asked <= BUILDS_OWN


def test_a_data_scientist_registers_models_with_the_rights_of_that_role(started: Any, tmp_path: Path) -> None:
    archive = tmp_path / "trained.tar.gz"
    archive.write_bytes(trained(bundle_files("1.4.0")))
    with started() as registry:
        statements = registry.cloud.stack.statements(registry.cloud.stack.resources["DataScienceRole"].arn)
        role = {"statements": statements, "region": REGION, "account": ACCOUNT}
        script = ROOT / "cloud" / "training" / "register_model.py"
        done = subprocess.run(
            [sys.executable, "-P", GUARDED, script, "--archive", archive, "--group", "edgeml-models"],
            env={
                **registry.cloud.environment(),
                "LOCAL_ROLE": json.dumps(role),
                "LOCAL_ASKED": str(tmp_path / "asked"),
                "PATH": os.environ["PATH"],
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        package = registry.cloud.aws.client("sagemaker").describe_model_package(ModelPackageName=done.stdout.strip())
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    asked = {action for action, _ in json.loads((tmp_path / "asked").read_text())}
    assert asked == {
        "s3:PutObject",
        "sagemaker:CreateModelPackage",
        "sagemaker:ListModelPackageGroups",
        "sagemaker:ListModelPackages",
    }


def test_a_permission_that_the_role_lacks_fails_the_build(started: Any) -> None:
    with started() as registry:
        role = registry.cloud.stack.resources["ExportModelRole"]
        for statement in registry.cloud.stack.statements(role.arn):
            if "s3:PutObject" in as_list(statement["Action"]):
                statement["Effect"] = "Deny"
        registry.decide(registry.register(bundle_files("1.4.0")), "Approved")
        assert "role does not allow s3:" in registry.log()
        assert registry.documents() == registry.jobs() == []


def test_a_build_in_progress_ends_with_the_cloud(started: Any) -> None:
    with started() as registry:
        package = registry.register(bundle_files("1.4.0"))
        registry.cloud.aws.client("sagemaker").update_model_package(
            ModelPackageArn=package, ModelApprovalStatus="Approved"
        )
        assert registry.cloud.builds.pending == 1
    assert registry.cloud.builds.failed == []


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
