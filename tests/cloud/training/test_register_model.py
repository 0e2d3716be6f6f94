"""register_model.py against the local cloud's SageMaker registry and S3."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from ota_support import bundle_files, tarred, tiny_model

GROUP = "edgeml-models"
BUCKET = "edgeml-models-123456789012-us-east-1"
METRICS = {"validation_mae": 0.0123, "healthy_mae": {"x": 0.1}, "cuts": 40}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.aws.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture
def app(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    import register_model

    return register_model


def archive(folder: Path, version: str, **changes: Any) -> str:
    manifest = json.loads(bundle_files(version)["model.json"])
    draft = {key: value for key, value in manifest.items() if key not in ("sha256", "files")} | changes
    files = {"model.onnx": tiny_model(), "bundle.json": json.dumps(draft).encode()}
    path = folder / f"{version}.tar.gz"
    path.write_bytes(tarred({**files, "metrics.json": json.dumps(METRICS).encode()}))
    return str(path)


def test_a_model_is_registered_for_approval_with_metrics_and_archive(
    app: ModuleType, cloud: LocalCloud, tmp_path: Path
) -> None:
    path = archive(tmp_path, "1.0.0")
    arn = app.main(["--archive", path, "--group", GROUP])
    found = cloud.aws.client("sagemaker").describe_model_package(ModelPackageName=arn)
    assert (found["ModelPackageGroupName"], found["ModelPackageVersion"]) == (GROUP, 1)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["ModelPackageDescription"] == "Tiny 1.0.0"
    shown = found["CustomerMetadataProperties"]
    assert shown["archive_sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (shown["model_version"], shown["input.shape"], shown["metric.cuts"]) == ("1.0.0", "4", "40")
    (container,) = found["InferenceSpecification"]["Containers"]
    assert "us-east-1" in container["Image"]
    assert read(cloud, container["ModelDataUrl"]) == Path(path).read_bytes()
    assert container["ModelDataUrl"].startswith(f"s3://{BUCKET}/training/Tiny/1.0.0/"), (
        "where data scientists may write"
    )
    statistics = found["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert json.loads(read(cloud, statistics["S3Uri"])) == METRICS
    assert not statistics["S3Uri"].endswith(".json"), "such objects are taken for job documents"


def test_what_is_shown_beside_the_button(app: ModuleType) -> None:
    draft = {
        "name": "WindTurbine",
        "version": "1.0.0",
        "task": "anomaly",
        "input": {"name": "input", "layout": "tensor", "shape": [6, 10, 10]},
        "labels": ["roll", "voltage"],
        "thresholds": {"mae": [0.25, 1.5], "score": 0.5},
    }
    assert app.properties(draft, METRICS, "ab" * 32) == {
        "model_name": "WindTurbine",
        "model_version": "1.0.0",
        "task": "anomaly",
        "archive_sha256": "ab" * 32,
        "input.name": "input",
        "input.layout": "tensor",
        "input.shape": "6 10 10",
        "threshold.mae.roll": "0.25",
        "threshold.mae.voltage": "1.5",
        "threshold.score.0": "0.5",
        "metric.validation_mae": "0.0123",
        "metric.cuts": "40",
    }


def test_properties_keep_to_what_sagemaker_takes(app: ModuleType) -> None:
    labels = [f"label {number}" for number in range(100)]
    draft = {
        "name": "X",
        "version": "1",
        "task": "anomaly",
        "input": {"name": 'a"{b}', "mean": [0.5] * 100},
        "labels": labels,
        "thresholds": {"mae": [0.1] * 100},
    }
    shown = app.properties(draft, {}, "ab")
    assert len(shown) == 50
    assert all(re.fullmatch(r"[\w .:/=+@-]{1,256}", value) for value in shown.values())
    assert shown["input.name"] == "a  b "


def test_labels_become_keys_that_sagemaker_takes_and_that_differ(app: ModuleType) -> None:
    draft = {
        "name": "X",
        "version": "1",
        "task": "classification",
        "input": {},
        "labels": ["tench, Tinca tinca", "tench; Tinca tinca", "x" * 200],
        "thresholds": {"score": [0.1, 0.2, 0.3]},
    }
    shown = {key: value for key, value in app.properties(draft, {}, "ab").items() if key.startswith("threshold.")}
    assert list(shown.values()) == ["0.1", "0.2", "0.3"]
    assert all(re.fullmatch(r"[\w .:/=+@-]{1,128}", key) for key in shown)


@pytest.mark.parametrize(
    ("metrics", "words"), [(b"{", "metrics.json is not JSON"), (b"[1]", "metrics.json is not a JSON object")]
)
def test_metrics_that_are_none_are_refused_before_anything_is_uploaded(
    app: ModuleType, tmp_path: Path, metrics: bytes, words: str
) -> None:
    path = Path(archive(tmp_path, "9.0.0"))
    path.write_bytes(tarred({**app.export_onnx.read_archive(path.read_bytes()), "metrics.json": metrics}))
    with pytest.raises(app.ExportError, match=words):
        app.main(["--archive", str(path), "--group", GROUP, "--bucket", "no-such-bucket"])


def test_an_archive_in_s3_is_registered_where_it_lies(app: ModuleType, cloud: LocalCloud, tmp_path: Path) -> None:
    body = Path(archive(tmp_path, "1.1.0")).read_bytes()
    cloud.aws.client("s3").put_object(Bucket=BUCKET, Key="training/job-1/output/model.tar.gz", Body=body)
    uri = f"s3://{BUCKET}/training/job-1/output/model.tar.gz"
    arn = app.main(["--archive", uri, "--group", GROUP])
    found = cloud.aws.client("sagemaker").describe_model_package(ModelPackageName=arn)
    assert found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == uri


def test_one_version_is_registered_once(app: ModuleType, tmp_path: Path) -> None:
    path = archive(tmp_path, "2.0.0")
    app.main(["--archive", path, "--group", GROUP])
    with pytest.raises(app.ExportError, match=r"Tiny 2\.0\.0 is registered already"):
        app.main(["--archive", path, "--group", GROUP])


def test_a_version_that_devices_could_not_compare_is_refused(app: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="neither a number nor semantic"):
        app.main(["--archive", archive(tmp_path, "newest"), "--group", GROUP])


def read(cloud: LocalCloud, uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bytes(cloud.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
