"""export_onnx.py against the local cloud: from an approved package to what devices are sent."""

import hashlib
import json
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from export_support import BUCKET, Registry, archive, draft, unzipped, versioned
from localdev.cloud.aws import Request, Response
from model_updater.document import check_signature, may_downgrade, parse
from ota_support import Signer, load_handler
from support import ROOT
from training_support import PYTHON, needs_training

TRAINING = ROOT / "cloud" / "training"

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
    words = shlex.split((ROOT / "scripts" / "train").read_text(), comments=True)
    (pinned,) = {word.partition("+")[0] for word in words if word.startswith("torch==")}
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
