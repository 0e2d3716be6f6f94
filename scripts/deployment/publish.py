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

from deployment import DeployError, UsageError
from deployment.aws import Aws
from deployment.recipes import Recipe, artifacts, differences, file_name, normalised

READY_TIMEOUT_S = 60.0
PENDING = ("REQUESTED", "INITIATED")
NOT_YET = {"componentState": PENDING[0]}
SHOWN = 3  # differences between recipes
LISTED = 5  # published versions


@dataclass(frozen=True)
class Built:
    """What greengrass-build/ of one component holds."""

    name: str
    version: str
    recipe: Recipe
    artifacts: dict[str, Path]  # by file name

    def digests(self) -> dict[str, str]:
        return {name: _digest(path.read_bytes()) for name, path in self.artifacts.items()}


def find(components: Path) -> dict[str, Built]:
    """Every built component below `components`, by name. Raises DeployError for a build that is incomplete."""
    if not components.is_dir():
        raise UsageError(f"--builds {components}: there is no such folder")
    built = (_built(path) for path in sorted(components.glob("**/greengrass-build/recipes/*.yaml")))
    return {component.name: component for component in built}


def _built(path: Path) -> Built:
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        name, version = recipe["ComponentName"], str(recipe["ComponentVersion"])
        wanted = {file_name(artifact) for artifact in artifacts(recipe)}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise DeployError(f"{path} is not a recipe: {type(error).__name__} {error}; run scripts/build") from error
    folder = path.parents[1] / "artifacts" / name / version
    if missing := [file for file in sorted(wanted) if not (folder / file).is_file()]:
        raise DeployError(f"{name} {version}: {folder} lacks {', '.join(missing)}; run scripts/build")
    return Built(name, version, recipe, {file: folder / file for file in wanted})


class Publisher:
    """Publishes into one account and region; artifacts go to `bucket`."""

    def __init__(self, aws: Aws, bucket: str | None) -> None:
        self._greengrass = aws.client("greengrassv2")
        self._s3 = aws.client("s3")
        self._partition, self._account = aws.identity
        self._region = aws.region
        self.bucket = bucket or f"edgeml-components-{aws.region}-{self._account}"

    def check(self, built: Built) -> bool:
        """Whether the version is still to be published. Raises DeployError when it exists with other contents."""
        arn = self._arn(built.name, built.version)
        if self._status(arn) is None:
            return True
        self._wait(arn)
        published = json.loads(self._greengrass.get_component(recipeOutputFormat="JSON", arn=arn)["recipe"])
        found = list(differences(normalised(published, {}), normalised(built.recipe, built.digests())))
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise DeployError(
                f"{built.name} {built.version} is published with other contents ({'; '.join(found[:SHOWN])}{more}): "
                f"raise the version in gdk-config and build again"
            )
        return False

    def require(self, name: str, version: str) -> None:
        """Raises UsageError unless the version is published here or is one of AWS' own."""
        states = (self._status(self._arn(name, version, owner)) for owner in (self._account, "aws"))
        status = next((status for status in states if status is not None), None)
        if status is None:
            published = self._versions(name)
            older = f" and {len(published) - LISTED} older" if len(published) > LISTED else ""
            known = (
                f"published are {', '.join(published[:LISTED])}{older}" if published else "it has no published version"
            )
            raise UsageError(f"there is no component {name} {version} in {self._region}: {known}")
        if status.get("componentState") in (*PENDING, "FAILED"):
            raise DeployError(f"{name} {version} cannot be deployed: {_described(status)}")

    def require_bucket(self) -> None:
        """Raises UsageError unless there is the bucket, in the region: Greengrass takes artifacts from nowhere else."""
        try:
            region = self._s3.head_bucket(Bucket=self.bucket).get("BucketRegion", self._region)
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":  # who may not look may still put
                return
            raise UsageError(
                f"there is no bucket {self.bucket}: deploy cloud/template.yaml, or name --bucket"
            ) from error
        if region != self._region:
            raise UsageError(f"the bucket {self.bucket} is in {region}: name one in {self._region} with --bucket")

    def publish(self, built: Built) -> None:
        """Uploads the artifacts and creates the version, and waits until it can be deployed. Raises DeployError."""
        for name, path in built.artifacts.items():
            self._upload(f"{built.name}/{built.version}/{name}", path.read_bytes())
        recipe = json.dumps(_addressed(built, self.bucket), default=str).encode()
        try:
            created = self._greengrass.create_component_version(inlineRecipe=recipe)
        except (
            self._greengrass.exceptions.ConflictException,
            self._greengrass.exceptions.ValidationException,
        ) as error:
            raise DeployError(f"{built.name} {built.version}: {error.response['Error']['Message']}") from error
        self._wait(created["arn"])

    def _arn(self, name: str, version: str, owner: str = "") -> str:
        owner = owner or self._account
        return f"arn:{self._partition}:greengrass:{self._region}:{owner}:components:{name}:versions:{version}"

    def _status(self, arn: str) -> dict[str, Any] | None:
        try:
            return dict(self._greengrass.describe_component(arn=arn)["status"])
        except self._greengrass.exceptions.ResourceNotFoundException:
            return None

    def _versions(self, name: str) -> list[str]:
        arn = self._arn(name, "").removesuffix(":versions:")
        pages = self._greengrass.get_paginator("list_component_versions").paginate(arn=arn)
        try:
            return [item["componentVersion"] for page in pages for item in page["componentVersions"]]
        except self._greengrass.exceptions.ResourceNotFoundException:
            return []

    def _upload(self, key: str, data: bytes) -> None:
        """Never overwrites: an object of that name must be the same, left by a publish that was interrupted."""
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", ChecksumSHA256=_digest(data))
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            there = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            if there != data:
                raise DeployError(f"s3://{self.bucket}/{key} exists with other contents: raise the version") from error

    def _wait(self, arn: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (status := self._status(arn) or NOT_YET)["componentState"] in PENDING and time.monotonic() < deadline:
            time.sleep(1)
        if status["componentState"] in (*PENDING, "FAILED"):
            raise DeployError(
                f"{arn} cannot be deployed: {_described(status)}; raise the version, or delete this one: "
                f"aws greengrassv2 delete-component --arn {arn}"
            )


def _described(status: dict[str, Any]) -> str:
    return " ".join(str(status[key]) for key in ("componentState", "message", "errors") if status.get(key))


def _addressed(built: Built, bucket: str) -> Recipe:
    """The recipe with the artifacts' real addresses."""
    text = json.dumps(built.recipe, default=str)
    placeholder = r"s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/"
    return dict(json.loads(re.sub(placeholder, f"s3://{bucket}/{built.name}/{built.version}/", text)))


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
