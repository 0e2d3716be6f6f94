"""export_onnx.py against the local cloud: from an approved package to what devices are sent."""

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from edgeml import models
from edgeml.errors import EdgemlError
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.core import Profile, check_recipe
from model_updater.document import check_signature, may_downgrade, parse
from ota_support import Signer, bundle_files, load_handler, tarred, tiny_model
from support import ROOT
from training_support import PYTHON, needs_training

TRAINING = ROOT / "cloud" / "training"
BUCKET, COMPONENTS = "edgeml-models", "edgeml-components"

EXPORT = """
import pathlib, sys, tempfile
import autoencoder, export_onnx, torch
torch.manual_seed(1)
weights = pathlib.Path(sys.argv[1])
torch.save(autoencoder.Autoencoder().state_dict(), weights)
files = {"bundle.json": sys.argv[2].encode(), "model.pth": weights.read_bytes()}
artifact = export_onnx.bundled(files)
weights.with_name("bundle.zip").write_bytes(artifact.content)
try:
    export_onnx.exported({"model.pth": b"cos\\nsystem\\n(S'touch " + sys.argv[1].encode() + b".run'\\ntR."})
except export_onnx.ExportError as error:
    print("refused:", str(error).splitlines()[0])
export_onnx.MAX_DIFFERENCE = -1.0
try:
    export_onnx.exported(files)
except export_onnx.ExportError as error:
    print(error)
"""


def draft(version: str = "1.4.0", **changes: Any) -> dict[str, Any]:
    """bundle.json of the tiny model: model.json without digests."""
    manifest = json.loads(bundle_files(version)["model.json"])
    return {key: value for key, value in manifest.items() if key not in ("sha256", "files")} | changes


def archive(**files: bytes) -> bytes:
    named = {name.replace("_", "."): content for name, content in files.items()}
    return tarred({"model.onnx": tiny_model(), "bundle.json": json.dumps(draft()).encode(), **named})


def versioned(version: str) -> bytes:
    return archive(bundle_json=json.dumps(draft(version)).encode())


class Registry:
    """S3 and SageMaker of the local cloud, with what the exporter finds there."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.s3, self.sagemaker = cloud.aws.client("s3"), cloud.aws.client("sagemaker")
        for bucket in (BUCKET, COMPONENTS):
            self.s3.create_bucket(Bucket=bucket)
        self.sagemaker.create_model_package_group(ModelPackageGroupName="g")

    def package(self, content: bytes, status: str = "Approved", **properties: str) -> str:
        key = f"training/{hashlib.sha256(content).hexdigest()[:8]}/model.tar.gz"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        made = self.sagemaker.create_model_package(
            ModelPackageGroupName="g",
            ModelApprovalStatus=status,
            CustomerMetadataProperties=properties or {"archive_sha256": hashlib.sha256(content).hexdigest()},
            InferenceSpecification={
                "Containers": [{"Image": "image", "ModelDataUrl": f"s3://{BUCKET}/{key}"}],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        )
        return str(made["ModelPackageArn"])

    def get(self, key: str, bucket: str = BUCKET) -> bytes:
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        """In the order in which they arrived."""
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in sorted(found, key=lambda item: item["LastModified"])]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def registry(cloud: LocalCloud) -> Registry:
    return Registry(cloud)


@pytest.fixture
def app(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CODEBUILD_BUILD_ID", "edgeml-export:7f3a")
    monkeypatch.setenv("BUCKET", BUCKET)
    import export_onnx

    return export_onnx


def unzipped(content: bytes, folder: Path) -> models.Bundle:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        packed.extractall(folder)  # noqa: S202  (the test made it)
    return models.load(folder)


def test_an_approved_package_becomes_a_bundle_and_then_a_job_document(
    app: ModuleType, registry: Registry, tmp_path: Path
) -> None:
    package, arrived = registry.package(archive(mean_npy=b"", labels_txt=b"a\nb\n")), list[str]()

    def watch(request: Request, _: Response) -> None:
        if (request.service, request.method) == ("s3", "PUT"):
            arrived.append(request.path.removeprefix(f"/{BUCKET}/"))

    registry.cloud.aws.observers.append(watch)
    app.main(["--package", package])
    registry.cloud.aws.observers.remove(watch)
    assert arrived[1:] == ["7f3a/edgeml-export/Tiny-1.4.0.zip", "7f3a/edgeml-export/job.json"]
    job = json.loads(registry.get(arrived[-1]))
    artifact = registry.get("7f3a/edgeml-export/Tiny-1.4.0.zip")
    place = f"https://s3.us-east-1.amazonaws.com/{BUCKET}/7f3a/edgeml-export/Tiny-1.4.0.zip"
    assert job["deployment_artifact_path"] == f"${{aws:iot:s3-presigned-url:{place}}}"
    assert (job["operation"], job["version"]) == ("update_model", "1.0.0")
    assert (job["model_name"], job["model_version"]) == ("Tiny", "1.4.0")
    assert (job["sha256"], job["size"]) == (hashlib.sha256(artifact).hexdigest(), len(artifact))
    bundle = unzipped(artifact, tmp_path)
    assert set(bundle.manifest.files) == {"mean.npy", "labels.txt"}
    assert bundle.labels == ("a", "b")


def test_equal_archives_give_equal_artifacts(app: ModuleType) -> None:
    files = app.read_archive(archive())
    assert app.bundled(files).sha256 == app.bundled(files).sha256


def test_the_signature_is_one_that_devices_accept(app: ModuleType, registry: Registry) -> None:
    signer, package = Signer(), registry.package(versioned("1.5.0"))
    registry.cloud.aws.client("secretsmanager").create_secret(Name="signing", SecretString=signer.pem)
    app.main(["--package", package, "--prefix", "signed", "--signing-key-secret", "signing"])
    job = {**json.loads(registry.get("signed/job.json")), "deployment_artifact_path": "https://host/x"}
    check_signature(parse(job), signer.public, 2)
    check_signature(parse({**job, "signature_v2": ""}), signer.public)  # what a device with version 1.0 sees
    assert not may_downgrade(parse(job), signer.public)


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-west-1", "s3.eu-west-1.amazonaws.com"), ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn")],
)
def test_the_host_is_that_of_the_partition(app: ModuleType, region: str, host: str) -> None:
    assert app.s3_host(region) == host


def test_a_rollback_says_so_in_what_is_signed(app: ModuleType, registry: Registry) -> None:
    signer, package = Signer(), registry.package(versioned("1.4.9"))
    registry.cloud.aws.client("secretsmanager").create_secret(Name="signing-2", SecretString=signer.pem)
    options = ["--signing-key-secret", "signing-2", "--thing-group", "turbines", "--allow-downgrade"]
    app.main(["--package", package, "--prefix", "rollback", *options])
    job = {**json.loads(registry.get("rollback/job.json")), "deployment_artifact_path": "https://host/x"}
    check_signature(parse(job), signer.public, 2)
    assert may_downgrade(parse(job), signer.public)
    assert parse(job).thing_group == "turbines"


def test_the_job_document_is_one_that_the_handler_accepts(app: ModuleType, registry: Registry) -> None:
    app.main(["--package", registry.package(versioned("1.6.0")), "--prefix", "accepted"])
    settings = {"THING_GROUP_ARN": "a", "ARTIFACT_BUCKET": BUCKET, "URL_ROLE_ARN": "r", "REQUIRE_SIGNATURE": "false"}
    handler = load_handler("create_iot_job", {**registry.cloud.environment(), **settings})
    assert handler.checked(registry.get("accepted/job.json").decode())["model_name"] == "Tiny"


def test_builds_of_one_approval_leave_one_job_document(
    app: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = registry.package(versioned("1.7.0"))
    with monkeypatch.context() as dying, pytest.raises(ZeroDivisionError):
        dying.setattr(app, "job_document", lambda *_: 1 / 0)  # the first build ends between bundle and document
        app.main(["--package", package, "--prefix", "first"])
    for prefix in ("second", "third"):
        app.main(["--package", package, "--prefix", prefix])
    assert registry.keys("first/") == ["first/Tiny-1.7.0.zip", "first/job.json"]
    assert registry.keys("second/") == registry.keys("third/") == []


def test_another_approval_makes_another_job_document(app: ModuleType, registry: Registry) -> None:
    content = versioned("1.8.0")
    package, kept = registry.package(content), {"archive_sha256": hashlib.sha256(content).hexdigest()}
    app.main(["--package", package, "--prefix", "once"])
    for status in ("Rejected", "Approved"):
        registry.sagemaker.update_model_package(
            ModelPackageArn=package, ModelApprovalStatus=status, CustomerMetadataProperties=kept
        )
    app.main(["--package", package, "--prefix", "again"])
    assert registry.get("once/job.json") != registry.get("again/job.json"), "the place of the bundle differs"


def test_a_write_at_the_same_moment_is_waited_for(
    app: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflict = b"<Error><Code>ConditionalRequestConflict</Code><Message>m</Message></Error>"
    answers = [Response(conflict, 409, {"Content-Type": "application/xml"})]

    def busy(request: Request) -> Response | None:
        return answers.pop() if request.path.startswith(f"/{BUCKET}/exports/") and answers else None

    monkeypatch.setattr(app.time, "sleep", lambda seconds: None)
    registry.cloud.aws.stand_ins.insert(0, busy)
    app.main(["--package", registry.package(versioned("1.9.0")), "--prefix", "busy"])
    registry.cloud.aws.stand_ins.remove(busy)
    assert (answers, registry.keys("busy/")[-1]) == ([], "busy/job.json")


@pytest.mark.parametrize("status", ["PendingManualApproval", "Rejected"])
def test_only_approved_packages_are_exported(app: ModuleType, registry: Registry, status: str) -> None:
    with pytest.raises(app.ExportError, match="not Approved"):
        app.main(["--package", registry.package(archive(), status), "--prefix", status])
    assert registry.keys(f"{status}/") == []


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"archive_sha256": "0" * 64}, "the archive is not the one that was registered"),
        ({"task": "anomaly"}, "no property archive_sha256: register it with register_model.py"),
    ],
)
def test_only_the_registered_archive_is_exported(
    app: ModuleType, registry: Registry, properties: dict[str, str], words: str
) -> None:
    with pytest.raises(app.ExportError, match=words):
        app.main(["--package", registry.package(archive(), **properties), "--prefix", "other"])
    assert registry.keys("other/") == []


def spoilt(content: bytes) -> bytes:
    """An archive with one byte changed in the middle of its data."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def member(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        packed.addfile(entry, io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (member("../evil"), "only plain files"),
        (member("/etc/evil"), "only plain files"),
        (member("model.pth", tarfile.SYMTYPE), "only plain files"),
        (member("model.pth", tarfile.LNKTYPE), "only plain files"),
        (b"no archive", "damaged"),
        pytest.param(archive()[:100], "damaged", id="cut short"),
        pytest.param(spoilt(archive()), "damaged", id="spoilt"),
    ],
)
def test_an_archive_that_is_unsafe_or_damaged_is_refused(app: ModuleType, content: bytes, words: str) -> None:
    with pytest.raises(app.ExportError, match=words):
        app.read_archive(content)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.onnx": b"x"}, "the archive has no bundle.json"),
        ({"bundle.json": b"{"}, "bundle.json is not JSON: Expecting"),
        ({"bundle.json": b"[]"}, "bundle.json has no name"),
        ({"bundle.json": b'{"name": "A", "version": 1}'}, "bundle.json has no version"),
        ({"bundle.json": json.dumps(draft("newest")).encode()}, "newest"),
    ],
)
def test_an_archive_that_does_not_say_what_model_it_holds_is_refused(
    app: ModuleType, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises((app.ExportError, EdgemlError), match=words):
        app.read_draft(files)


def test_an_archive_that_is_too_large_is_refused(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_UNPACKED_BYTES", 100_000)
    app.read_archive(archive())
    for content in (tarred({"model.onnx": bytes(100_001)}), member("name" * 50_000)):  # files and headers
        with pytest.raises(app.ExportError, match="unpacks to more than 100000 bytes"):
            app.read_archive(content)


@pytest.fixture
def invoked(registry: Registry) -> Iterator[list[Request]]:
    """Invocations of Lambda functions."""
    requests: list[Request] = []

    def function(request: Request) -> Response | None:
        if request.service != "lambda":
            return None
        requests.append(request)
        return Response(b"", 202)

    registry.cloud.aws.stand_ins.insert(0, function)
    yield requests
    registry.cloud.aws.stand_ins.remove(function)


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
    app: ModuleType, registry: Registry, invoked: list[Request]
) -> None:
    package = registry.package(archive(bundle_json=json.dumps(draft("2.0.0")).encode()))
    for _ in range(2):
        app.main(["--package", package, *COMPONENT_MODE])
    assert [json.loads(request.body)["component_version"] for request in invoked] == ["2.0.0"] * 2


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


def test_the_component_runs_on_both_nuclei_and_links_its_bundle(app: ModuleType, tmp_path: Path) -> None:
    recipe = app.component_recipe("edgeml.model.Tiny", "1.4.0", "s3://b/k/bundle.zip")
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
def test_versions_are_filled_up_for_greengrass(app: ModuleType, version: str, expected: str) -> None:
    assert app.component_version(version) == expected


def test_the_buildspec_runs_what_is_there() -> None:
    spec = yaml.safe_load((TRAINING / "buildspec.yml").read_text())
    commands = [command for phase in spec["phases"].values() for command in phase["commands"]]
    named = [word for command in commands for word in command.split() if word.startswith("cloud/")]
    assert "cloud/training/export_onnx.py" in named
    assert all((ROOT / name).exists() for name in named)
    assert all(
        any(word in command for word in ("--require-hashes", "--no-index", "torch=="))
        for command in commands
        if "pip install" in command
    )
    (pinned,) = set(re.findall(r"torch==[\d.]+", (ROOT / "scripts" / "train").read_text()))
    assert any(pinned in command for command in commands), "the build exports with the PyTorch that trains"


@needs_training
def test_weights_are_exported_and_compared_with_pytorch_and_never_unpickled(tmp_path: Path) -> None:
    shape = [6, 10, 10]
    bundle = draft(
        name="WindTurbine",
        input={"name": "input", "layout": "tensor", "shape": shape},
        output={"decoder": "anomaly", "shapes": {"reconstruction": [-1, *shape]}},
    )
    command = [str(PYTHON), "-c", EXPORT, str(tmp_path / "model.pth"), json.dumps(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["batch 1", "batch 7", "batch 64"]
    assert unzipped((tmp_path / "bundle.zip").read_bytes(), tmp_path / "bundle").manifest.name == "WindTurbine"
    assert lines[3].startswith("refused: model.pth holds no weights of the autoencoder: ")
    assert not (tmp_path / "model.pth.run").exists()
    assert lines[-1].startswith("ONNX differs from PyTorch by")
