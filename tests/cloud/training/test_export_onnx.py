"""export_onnx.py against the local cloud: from an approved package to what devices are sent."""

import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import arrows
import publishing
from export_support import BUCKET, Registry, archive, draft, unzipped, versioned
from localdev.cloud.aws import Request, Response
from model_updater.document import check_signature, may_downgrade, parse
from ota_support import Signer, load_handler
from support import ROOT
from training_support import needs_training, run

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
    (key, document) = arrived[1:]
    assert document == "7f3a/edgeml-export/job.json"
    job, artifact = json.loads(registry.get(document)), registry.get(key)
    assert key == f"7f3a/edgeml-export/Tiny-1.4.0-{job['sha256'][:16]}.zip"
    place = f"https://s3.us-east-1.amazonaws.com/{BUCKET}/{key}"
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
def test_the_host_is_that_of_the_partition(region: str, host: str) -> None:
    assert publishing.s3_host(region) == host


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


def ending_early(app: ModuleType, package: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that ends between bundle and document."""
    with monkeypatch.context() as dying, pytest.raises(ZeroDivisionError):
        dying.setattr(publishing, "job_document", lambda *_: 1 / 0)
        app.main(["--package", package, "--prefix", prefix])


def test_builds_of_one_approval_leave_one_job_document(
    app: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = registry.package(versioned("1.7.0"))
    ending_early(app, package, "first", monkeypatch)
    for prefix in ("second", "third"):
        app.main(["--package", package, "--prefix", prefix])
    bundle, document = registry.keys("first/")
    assert (bundle.startswith("first/Tiny-1.7.0-"), document) == (True, "first/job.json")
    assert registry.keys("second/") == registry.keys("third/") == []


def test_builds_that_measure_other_things_leave_one_job_document(
    app: ModuleType, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds other variants fast enough, and so has other bytes and another report."""
    reports = [f"table {number}" for number in range(3)]
    package, left = registry.package(versioned("1.7.1")), list(reports)
    bundled = app.bundled

    def measured(*given: Any) -> Any:
        report = left.pop(0)
        return replace(bundled(*given), content=report.encode(), report=report, plot=b"png")

    monkeypatch.setattr(app, "bundled", measured)
    ending_early(app, package, "1st", monkeypatch)
    for prefix in ("2nd", "3rd"):
        app.main(["--package", package, "--prefix", prefix])
    document = json.loads(registry.get("1st/job.json"))
    url = document["deployment_artifact_path"].removesuffix("}")
    bundle = registry.get(url.partition(f"/{BUCKET}/")[2])
    assert (document["sha256"], bundle) == (hashlib.sha256(bundle).hexdigest(), reports[1].encode())
    beside = url.partition(f"/{BUCKET}/")[2].removesuffix(".zip")
    assert (registry.get(f"{beside}.txt"), registry.get(f"{beside}.png")) == (bundle, b"png")
    assert registry.keys("2nd/") == registry.keys("3rd/") == []


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

    monkeypatch.setattr("publishing.time.sleep", lambda seconds: None)
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


def test_the_source_of_the_build_holds_all_that_it_imports() -> None:
    head = (TRAINING / "buildspec.yml").read_text().replace("\\\n#", "")
    (command,) = [line for line in head.splitlines() if "git archive" in line]
    inside = [ROOT / name for name in command.partition(" HEAD ")[2].split()]
    places = {
        path.stem: path
        for top in ("components", "scripts", "cloud/training")
        for path in (ROOT / top).iterdir()
        if path.is_dir() or path.suffix == ".py"
    }
    seen, left = set[str](), {"export_onnx", "optimize"}
    while left:
        seen.add(name := left.pop())
        assert any(places[name].is_relative_to(folder) for folder in inside), f"{name} is not in: {command}"
        files = [places[name]] if places[name].is_file() else places[name].rglob("*.py")
        left |= {imported for file in files for _, imported in arrows.imports(file)} & places.keys() - seen
    assert {"agreement", "bundles", "inferencer", "edgeml", "packing"} <= seen


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
    done = run("torch._dynamo", "-c", EXPORT, tmp_path / "model.pth", json.dumps(bundle))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["batch 1", "batch 7", "batch 64"]
    assert unzipped((tmp_path / "bundle.zip").read_bytes(), tmp_path / "bundle").manifest.name == "WindTurbine"
    assert lines[4].startswith("refused: model.pth holds no weights of the autoencoder: ")
    assert not (tmp_path / "model.pth.run").exists()
    assert lines[-1].startswith("ONNX differs from PyTorch by")
