"""A bundle on its way to devices: as a job document, or as a version of its component.

In mode `job` the document comes last, because its arrival is what makes the IoT job; in mode `component` a new version
of edgeml.model.<Name> is made and the function that deploys it is asked to.
"""

import argparse
import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from edgeml.onnx_session import runtime

PUT_ATTEMPTS = 5
CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})


class ExportError(Exception):
    """The package cannot become a bundle; the text says why."""


@dataclass(frozen=True)
class Artifact:
    """A packed bundle, and what was tried to make it faster, as text and picture.

    An archive with samples may become other bytes next time: how fast variants are is measured.
    """

    name: str
    version: str
    content: bytes
    report: str = ""
    plot: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def publish_job(artifact: Artifact, approved: str, options: argparse.Namespace) -> None:
    """Upload the bundle, then the job document.

    SageMaker may tell of one approval more than once, and a build may be repeated: all builds for one approval use the
    folder that the first of them claimed, and only the first job document there counts, which names the bundle of its
    own build. To send a model once more, approve it once more.
    """
    s3 = boto3.client("s3", config=CONFIG)
    claim = f"exports/{artifact.name}/{artifact.version}/{approved}"
    if put_new(s3, options.bucket, claim, options.prefix.encode(), "text/plain"):
        prefix = options.prefix
    else:
        prefix = s3.get_object(Bucket=options.bucket, Key=claim)["Body"].read().decode()
    place = f"{prefix}/{artifact.name}-{artifact.version}-{artifact.sha256[:16]}"
    key = f"{place}.zip"
    put_new(s3, options.bucket, key, artifact.content, "application/zip")
    put_report(s3, options.bucket, place, artifact)
    document = job_document(artifact, f"https://{s3_host(s3.meta.region_name)}/{options.bucket}/{key}", options)
    if options.signing_key_secret:
        document |= signatures(document, options.signing_key_secret)
    body = json.dumps(document, indent=2).encode()
    made = put_new(s3, options.bucket, f"{prefix}/job.json", body, "application/json")
    print(f"s3://{options.bucket}/{prefix}/job.json{'' if made else ' is there already'}", flush=True)


def s3_host(region: str) -> str:
    """AWS IoT signs URLs of S3's own host, wherever the SDK finds S3 in this build."""
    suffix = ".cn" if boto3.session.Session().get_partition_for_region(region) == "aws-cn" else ""
    return f"s3.{region}.amazonaws.com{suffix}"


def put_report(s3: Any, bucket: str, place: str, artifact: Artifact) -> None:
    """What was tried to make the bundle faster, beside it."""
    if artifact.report:
        put_new(s3, bucket, f"{place}.txt", artifact.report.encode(), "text/plain; charset=utf-8")
    if artifact.plot:
        put_new(s3, bucket, f"{place}.png", artifact.plot, "image/png")


def put_new(s3: Any, bucket: str, key: str, content: bytes, content_type: str, **metadata: str) -> bool:
    """Whether there was no such object yet; one that is there is left as it is."""
    given = {"Body": content, "ContentType": content_type, "Metadata": metadata}
    for attempt in range(PUT_ATTEMPTS):
        try:
            s3.put_object(Bucket=bucket, Key=key, IfNoneMatch="*", **given)
        except s3.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "PreconditionFailed":
                return False
            if code != "ConditionalRequestConflict" or attempt == PUT_ATTEMPTS - 1:
                raise
            time.sleep(1)  # another build is writing it: it will be there, or not
        else:
            return True
    raise AssertionError("unreachable")


def job_document(artifact: Artifact, url: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "operation": "update_model",
        "version": "1.0.0",
        "model_name": artifact.name,
        "model_version": artifact.version,
        "onnxruntime_version": runtime().__version__,
        "deployment_artifact_path": f"${{aws:iot:s3-presigned-url:{url}}}",
        "sha256": artifact.sha256,
        "size": len(artifact.content),
        "thing_group": options.thing_group,
        "allow_downgrade": options.allow_downgrade,
    }


def signatures(document: dict[str, Any], secret: str) -> dict[str, str]:
    """Both Ed25519 signatures that edgeml.ModelUpdater checks. The secret is a key in PEM.

    Devices with version 1.0 know the first one alone; the second covers the thing group and downgrades, too.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = boto3.client("secretsmanager", config=CONFIG).get_secret_value(SecretId=secret)["SecretString"]
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(f"secret {secret} holds no Ed25519 key")
    names = ("model_name", "model_version", "sha256", "size")
    first = ["edgeml-model", *(str(document[name]) for name in names), ""]
    second = ["edgeml-model-2", *(f"{name}={document[name]}" for name in names)]
    second += [f"thing_group={document['thing_group']}"]
    second += [f"allow_downgrade={str(document['allow_downgrade']).lower()}", ""]
    return {
        name: base64.b64encode(key.sign("\n".join(lines).encode())).decode()
        for name, lines in (("signature", first), ("signature_v2", second))
    }


def publish_component(artifact: Artifact, origin: str, options: argparse.Namespace) -> None:
    """Upload the bundle as a component's artifact, make the component version, ask for its deployment.

    A build that is repeated goes on where the last one stopped, with the bundle of that one. Raises ExportError when
    the version has other contents, not made of the archive whose sha256 is `origin`.
    """
    name, version = f"edgeml.model.{artifact.name}", component_version(artifact.version)
    key = f"{name}/{version}/bundle.zip"
    s3 = boto3.client("s3", config=CONFIG)
    if upload_once(s3, options.component_bucket, key, artifact.content, origin):
        put_report(s3, options.component_bucket, key.removesuffix(".zip"), artifact)
    recipe = json.dumps(component_recipe(name, version, f"s3://{options.component_bucket}/{key}")).encode()
    greengrass = boto3.client("greengrassv2", config=CONFIG)
    try:
        print(greengrass.create_component_version(inlineRecipe=recipe)["arn"], flush=True)
    except greengrass.exceptions.ConflictException:
        print(f"{name} {version} exists, with this bundle", flush=True)
    event = json.dumps({"component_name": name, "component_version": version}).encode()
    boto3.client("lambda", config=CONFIG).invoke(
        FunctionName=options.update_function, InvocationType="Event", Payload=event
    )


def upload_once(s3: Any, bucket: str, key: str, content: bytes, origin: str) -> bool:
    """Whether it is uploaded now. Never overwrites: a published version refers to the artifact's digest."""
    if put_new(s3, bucket, key, content, "application/zip", origin=origin):
        return True
    found = s3.get_object(Bucket=bucket, Key=key)
    if found["Metadata"].get("origin") != origin and found["Body"].read() != content:
        raise ExportError(f"s3://{bucket}/{key} exists with other contents: register a new version")
    print(f"s3://{bucket}/{key} is there already", flush=True)
    return False


def component_version(version: str) -> str:
    """Greengrass wants three numbers: `7` becomes 7.0.0."""
    numbers, separator, rest = version.removeprefix("v").partition("-")
    parts = numbers.split(".")
    if len(parts) > 3:
        raise ExportError(f"version {version} has more than three numbers")
    return ".".join([*parts, *["0"] * (3 - len(parts))]) + separator + rest


def component_recipe(name: str, version: str, uri: str) -> dict[str, Any]:
    folder = "{artifacts:decompressedPath}/bundle"
    script = (
        f'test -f "{folder}/model.json" && ln -sfn "{folder}" "{{work:path}}/next"'
        ' && mv -T "{work:path}/next" "{work:path}/current"'
    )
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": f"The model bundle {name.removeprefix('edgeml.model.')} {version}.",
        "ComponentPublisher": "greengrass-edge-ml",
        "Manifests": [
            {
                "Platform": {"os": "linux", "runtime": "*"},
                "Lifecycle": {"run": {"Script": script}},
                "Artifacts": [{"Uri": uri, "Unarchive": "ZIP", "Permission": {"Read": "ALL"}}],
            }
        ],
    }
