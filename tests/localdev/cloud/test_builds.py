"""A model package that somebody approves is exported by the template's build, in a process with the build's role."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from localdev.cloud import LocalCloud, iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import ROOT
from model_updater.document import check_signature, parse
from ota_support import Signer, bundle_files, tarred, tiny_model

SECRET, GROUP = "model-signing-key", "edgeml-models"
BUILDS_OWN = {"logs:CreateLogStream", "logs:PutLogEvents", "s3:GetObjectVersion"}  # CodeBuild's, for log and source


class Registry:
    """What data scientists and engineers do with models in a local cloud."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        import register_model

        self.cloud, self.signer = cloud, Signer()
        self._main, self._folder = register_model.main, folder
        self._sagemaker, self._s3 = cloud.aws.client("sagemaker"), cloud.aws.client("s3")
        pem = self.signer.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        cloud.aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=pem.decode())

    def register(self, version: str) -> str:
        """The package's ARN."""
        draft = {key: value for key, value in self._manifest(version).items() if key not in ("sha256", "files")}
        archive = self._folder / f"{version}.tar.gz"
        archive.write_bytes(tarred({"model.onnx": tiny_model(), "bundle.json": json.dumps(draft).encode()}))
        return str(self._main(["--archive", str(archive), "--group", GROUP]))

    def decide(self, package: str, status: str) -> None:
        kept = self._sagemaker.describe_model_package(ModelPackageName=package)["CustomerMetadataProperties"]
        self._sagemaker.update_model_package(  # moto forgets properties that an update does not repeat; AWS keeps them
            ModelPackageArn=package, ModelApprovalStatus=status, CustomerMetadataProperties=kept
        )
        self.cloud.drain()

    def documents(self) -> list[tuple[str, dict[str, Any]]]:
        """Key and content of every job document."""
        bucket = self._output("ModelBucketName")
        found = self._s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        keys = [each["Key"] for each in found if each["Key"].endswith(".json")]
        return [(key, json.loads(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())) for key in keys]

    def replace_archive(self, package: str, content: bytes) -> None:
        description = self._sagemaker.describe_model_package(ModelPackageName=package)
        url = description["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def jobs(self) -> list[str]:
        return [job["jobId"] for job in self.cloud.aws.client("iot").list_jobs()["jobs"]]

    def log(self) -> str:
        """Of the build that failed."""
        assert self.cloud.builds is not None
        (failed,) = self.cloud.builds.failed
        return self.cloud.builds.log_file(failed).read_text()

    def _manifest(self, version: str) -> dict[str, Any]:
        return dict(json.loads(bundle_files(version)["model.json"]))

    def _output(self, name: str) -> str:
        assert self.cloud.stack is not None
        return str(self.cloud.stack.outputs[name])


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "cloud" / "training")

    @contextmanager
    def starting(**parameters: str) -> Iterator[Registry]:
        with LocalCloud(TEMPLATE, {"SigningKeySecret": SECRET, **parameters}) as cloud:
            for name, value in cloud.environment().items():
                monkeypatch.setenv(name, value)
            yield Registry(cloud, tmp_path)

    return starting


def test_an_approval_becomes_a_signed_job_and_a_rejection_nothing(started: Any) -> None:
    with started() as registry:
        good, bad = registry.register("1.4.0"), registry.register("1.5.0")
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
        registry.decide(registry.register("1.4.0"), "Approved")
        (latest,) = greengrass.list_deployments(targetArn=target)["deployments"]
        components = greengrass.get_deployment(deploymentId=latest["deploymentId"])["components"]
        assert components == {"edgeml.model.Tiny": {"componentVersion": "1.4.0"}}
        assert registry.jobs() == []


def test_an_archive_that_is_not_the_registered_one_becomes_nothing(started: Any) -> None:
    with started() as registry:
        package = registry.register("1.4.0")
        registry.replace_archive(package, tarred({"model.onnx": b"another", "bundle.json": b"{}"}))
        registry.decide(package, "Approved")
        assert "the archive is not the one that was registered" in registry.log()
        assert registry.documents() == registry.jobs() == []


def test_the_build_asks_for_what_its_role_grants_and_for_all_of_it(started: Any) -> None:
    asked: set[str] = set()
    for mode in ("job", "component"):
        with started(ExportMode=mode) as registry:
            registry.decide(registry.register("1.4.0"), "Approved")
            asked |= {action for action, _ in registry.cloud.builds.asked}
            role = registry.cloud.stack.resources["ExportModelRole"].arn
            statements = registry.cloud.stack.statements(role)
            assert [need for need in registry.cloud.builds.asked if not iam.allowed(statements, need, {})] == []
    granted = {action for each in statements for action in as_list(each["Action"])}
    assert granted - asked <= BUILDS_OWN


def test_a_permission_that_the_role_lacks_fails_the_build(started: Any) -> None:
    with started() as registry:
        role = registry.cloud.stack.resources["ExportModelRole"]
        for statement in registry.cloud.stack.statements(role.arn):
            if "s3:PutObject" in as_list(statement["Action"]):
                statement["Effect"] = "Deny"
        registry.decide(registry.register("1.4.0"), "Approved")
        assert "role does not allow s3:" in registry.log()
        assert registry.documents() == registry.jobs() == []


def test_a_build_in_progress_ends_with_the_cloud(started: Any) -> None:
    with started() as registry:
        package = registry.register("1.4.0")
        registry.cloud.aws.client("sagemaker").update_model_package(
            ModelPackageArn=package, ModelApprovalStatus="Approved"
        )
        assert registry.cloud.builds.pending == 1
    assert registry.cloud.builds.failed == []


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
