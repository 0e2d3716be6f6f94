"""What tests of the export share: archives of a model, and where the exporter finds and leaves them."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from edgeml import models
from localdev.cloud import LocalCloud
from ota_support import bundle_files, tarred, tiny_model

BUCKET, COMPONENTS = "edgeml-models", "edgeml-components"


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


def unzipped(content: bytes, folder: Path) -> models.Bundle:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        packed.extractall(folder)
    return models.load(folder)
