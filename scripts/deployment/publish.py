"""Built components become component versions in AWS: artifacts in S3, then CreateComponentVersion.

A version is published once. `gdk component publish` uploads first and then learns that the version exists, which
leaves devices with ARTIFACT_CHECKSUM_MISMATCH; here nothing that a published version refers to is ever overwritten.
"""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployment import DeployError

READY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Built:
    """What greengrass-build/ of one component holds."""

    name: str
    version: str
    recipe: dict[str, Any]
    artifacts: dict[str, Path]  # by file name


def find(components: Path) -> dict[str, Built]:
    """Every built component below `components`, by name. Raises DeployError for a build that is incomplete."""
    found = {}
    for path in sorted(components.glob("**/greengrass-build/recipes/*.yaml")):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        name, version = recipe["ComponentName"], str(recipe["ComponentVersion"])
        folder = path.parents[1] / "artifacts" / name / version
        artifacts = {file.name: file for file in sorted(folder.glob("*"))}
        wanted = {artifact["Uri"].rpartition("/")[2] for artifact in _artifacts(recipe)}
        if wanted - set(artifacts):
            raise DeployError(
                f"{name} {version}: {folder} lacks {', '.join(wanted - set(artifacts))}; run scripts/build"
            )
        found[name] = Built(name, version, recipe, {file: artifacts[file] for file in wanted})
    return found


class Publisher:
    """Publishes into one account and region; artifacts go to `bucket`."""

    def __init__(self, session: Any, bucket: str) -> None:
        self._greengrass = session.client("greengrassv2")
        self._s3 = session.client("s3")
        self._bucket = bucket
        identity = session.client("sts").get_caller_identity()
        partition = identity["Arn"].split(":")[1]
        self._arn = f"arn:{partition}:greengrass:{session.region_name}:{identity['Account']}:components"

    def versions(self, name: str) -> set[str]:
        """Versions of a component that are published."""
        pages = self._greengrass.get_paginator("list_component_versions").paginate(arn=f"{self._arn}:{name}")
        try:
            return {item["componentVersion"] for page in pages for item in page["componentVersions"]}
        except self._greengrass.exceptions.ResourceNotFoundException:
            return set()

    def check(self, built: Built) -> bool:
        """Whether the version is still to be published. Raises DeployError when it exists with other artifacts."""
        if built.version not in self.versions(built.name):
            return True
        arn = f"{self._arn}:{built.name}:versions:{built.version}"
        recipe = json.loads(self._greengrass.get_component(recipeOutputFormat="JSON", arn=arn)["recipe"])
        published = {a["Uri"].rpartition("/")[2]: a.get("Digest") for a in _artifacts(recipe)}
        ours = {name: _digest(path.read_bytes()) for name, path in built.artifacts.items()}
        if published != ours:
            raise DeployError(
                f"{built.name} {built.version} is published with other contents: "
                f"raise the version in gdk-config and build again"
            )
        return False

    def publish(self, built: Built) -> None:
        """Uploads the artifacts and creates the version, and waits until it can be deployed. Raises DeployError."""
        for name, path in built.artifacts.items():
            self._upload(f"{built.name}/{built.version}/{name}", path.read_bytes())
        recipe = json.dumps(_addressed(built, self._bucket)).encode()
        try:
            created = self._greengrass.create_component_version(inlineRecipe=recipe)
        except (
            self._greengrass.exceptions.ConflictException,
            self._greengrass.exceptions.ValidationException,
        ) as error:
            raise DeployError(f"{built.name} {built.version}: {error.response['Error']['Message']}") from error
        self._wait(created["arn"])

    def _upload(self, key: str, data: bytes) -> None:
        """Never overwrites: an object of that name must be the same, left by a publish that was interrupted."""
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*", ChecksumSHA256=_digest(data))
        except self._s3.exceptions.NoSuchBucket as error:
            raise DeployError(
                f"there is no bucket {self._bucket}: deploy cloud/template.yaml, or name --bucket"
            ) from error
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            there = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            if there != data:
                raise DeployError(f"s3://{self._bucket}/{key} exists with other contents: raise the version") from error

    def _wait(self, arn: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (status := self._greengrass.describe_component(arn=arn)["status"])["componentState"] != "DEPLOYABLE":
            if status["componentState"] == "FAILED" or time.monotonic() > deadline:
                raise DeployError(
                    f"{arn} is {status['componentState']}: {status.get('message')} {status.get('errors')}"
                )
            time.sleep(1)


def _addressed(built: Built, bucket: str) -> dict[str, Any]:
    """The recipe with the artifacts' real addresses."""
    text = json.dumps(built.recipe)
    placeholder = r"s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/"
    return dict(json.loads(re.sub(placeholder, f"s3://{bucket}/{built.name}/{built.version}/", text)))


def _artifacts(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    return [artifact for manifest in recipe["Manifests"] for artifact in manifest.get("Artifacts", [])]


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
