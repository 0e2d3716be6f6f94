"""Registers a trained model in a SageMaker model package group, where somebody has to approve it.

    .venv-training/bin/python cloud/training/register_model.py --archive model.tar.gz --group edgeml-models

The archive is what training leaves behind; a local one is uploaded first. Its bundle.json and metrics.json become the
package's description: metrics, input and thresholds are what whoever approves it decides by.
"""

import argparse
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

import export_onnx
from edgeml.errors import EdgemlError
from publishing import ExportError

CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
MAX_PROPERTIES, MAX_KEY, MAX_VALUE = 50, 128, 256  # of customer metadata, and characters of one, in SageMaker
NOT_ALLOWED = re.compile(r"[^\w .:/=+@-]")
IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Registers a model archive as a model package.")
    parser.add_argument("--archive", required=True, help="model.tar.gz: a file or s3://bucket/key")
    parser.add_argument("--group", required=True, help="model package group; made if there is none")
    parser.add_argument(
        "--bucket", default=os.environ.get("MODEL_BUCKET", ""), help="for a local archive; default: the stack's bucket"
    )
    parser.add_argument("--project", default=os.environ.get("PROJECT", "edgeml"), help="of the stack")
    parser.add_argument("--image", default=IMAGE, help="container that could serve it; SageMaker demands one")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> str:
    """ARN of the package, PendingManualApproval. Raises ExportError for an archive that cannot be registered."""
    options = parsed(arguments)
    content = read(options.archive)
    files = export_onnx.read_archive(content)
    draft, metrics = export_onnx.read_draft(files), files.get("metrics.json", b"{}")
    shown = properties(draft, read_metrics(metrics), hashlib.sha256(content).hexdigest())
    sagemaker = boto3.client("sagemaker", config=CONFIG)
    title = f"{draft['name']} {draft['version']}"
    make_group(sagemaker, options.group, title)
    bucket = options.bucket or stack_bucket(options.project)
    prefix = f"training/{draft['name']}/{draft['version']}/{shown['archive_sha256'][:16]}"
    # No .json at the end: objects named so are taken for job documents.
    archive_uri, metrics_uri = options.archive, put(bucket, f"{prefix}/metrics", metrics)
    if not archive_uri.startswith("s3://"):
        archive_uri = put(bucket, f"{prefix}/model.tar.gz", content)
    image = options.image.format(region=sagemaker.meta.region_name)
    made = sagemaker.create_model_package(
        ModelPackageGroupName=options.group,
        ModelPackageDescription=title,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{"Image": image, "ModelDataUrl": archive_uri}],
            "SupportedContentTypes": ["application/json", "text/csv"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelMetrics={"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": metrics_uri}}},
        CustomerMetadataProperties=shown,
    )
    print(made["ModelPackageArn"], flush=True)
    return str(made["ModelPackageArn"])


def read_metrics(content: bytes) -> dict[str, Any]:
    try:
        metrics = json.loads(content)
    except ValueError as error:
        raise ExportError(f"metrics.json is not JSON: {error}") from error
    if not isinstance(metrics, dict):
        raise ExportError("metrics.json is not a JSON object")
    return metrics


def read(archive: str) -> bytes:
    where = urlsplit(archive)
    if where.scheme != "s3":
        return Path(archive).read_bytes()
    found = boto3.client("s3", config=CONFIG).get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))
    if found["ContentLength"] > export_onnx.MAX_ARCHIVE_BYTES:
        raise ExportError(f"{archive} has {found['ContentLength']} bytes")
    return bytes(found["Body"].read())


def make_group(sagemaker: Any, group: str, title: str) -> None:
    """Raises ExportError when the group holds this version of this model already: devices would refuse a second one."""
    pages = sagemaker.get_paginator("list_model_package_groups").paginate(NameContains=group)
    if all(found["ModelPackageGroupName"] != group for page in pages for found in page["ModelPackageGroupSummaryList"]):
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
        return
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    for found in (found for page in pages for found in page["ModelPackageSummaryList"]):
        if found.get("ModelPackageDescription") == title:
            raise ExportError(f"{title} is registered already: {found['ModelPackageArn']}")


def stack_bucket(project: str) -> str:
    """Where the stack of cloud/template.yaml keeps models."""
    sts = boto3.client("sts", config=CONFIG)
    return f"{project}-models-{sts.get_caller_identity()['Account']}-{sts.meta.region_name}"


def put(bucket: str, key: str, content: bytes) -> str:
    boto3.client("s3", config=CONFIG).put_object(Bucket=bucket, Key=key, Body=content)
    return f"s3://{bucket}/{key}"


def properties(draft: dict[str, Any], metrics: dict[str, Any], digest: str) -> dict[str, str]:
    """What is shown beside the button: model, input, thresholds by label, single metrics."""
    shown = {
        "model_name": draft["name"],
        "model_version": draft["version"],
        "task": draft["task"],
        "archive_sha256": digest,
    }
    for name, value in draft["input"].items():
        shown[f"input.{name}"] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    labels = draft.get("labels", [])
    for kind, value in draft.get("thresholds", {}).items():
        values = value if isinstance(value, list) else [value]
        names = labels if len(labels) == len(values) > 1 else range(len(values))
        shown |= {f"threshold.{kind}.{name}": f"{each:.6g}" for name, each in zip(names, values, strict=True)}
    shown |= {f"metric.{name}": f"{value:.6g}" for name, value in metrics.items() if isinstance(value, int | float)}
    clean = {clean_key(key): NOT_ALLOWED.sub(" ", value)[:MAX_VALUE] or "-" for key, value in shown.items()}
    return dict(list(clean.items())[:MAX_PROPERTIES])


def clean_key(key: str) -> str:
    """At most MAX_KEY of the characters that SageMaker allows; what had to change is told apart by a digest."""
    clean = NOT_ALLOWED.sub(" ", key)
    if clean == key and len(key) <= MAX_KEY:
        return key
    return f"{clean[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    try:
        main()
    except (ExportError, EdgemlError) as problem:
        raise SystemExit(f"not registered: {problem}") from problem
