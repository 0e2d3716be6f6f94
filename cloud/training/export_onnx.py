"""An approved model package -> a model bundle that devices can be sent. What the CodeBuild project runs.

    .venv-training/bin/python cloud/training/export_onnx.py --package ARN --bucket BUCKET --mode job

The archive of the package is fetched and unpacked safely, its model exported to ONNX and compared with PyTorch, and the
bundle packed and uploaded. In mode `job` the job document follows, last, because its arrival is what makes the IoT job;
in mode `component` a new version of edgeml.model.<Name> is made and the function that deploys it is asked to.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import os
import pickle  # only its error: weights are loaded as tensors and nothing else
import tarfile
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
from botocore.config import Config

import packing
from edgeml.bundle import version_key
from edgeml.errors import EdgemlError
from edgeml.onnx_session import runtime

MAX_ARCHIVE_BYTES = 512 * 2**20
MAX_UNPACKED_BYTES = 1024 * 2**20
MAX_FILES = 64
MAX_DIFFERENCE = 1e-4  # between PyTorch and ONNX Runtime, of outputs near one
BATCHES = (1, 7, 64)
PUT_ATTEMPTS = 5
CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4})
NO_COPY = ("model.pth", "model.onnx", "bundle.json", "metrics.json")  # of the archive, into the bundle


class ExportError(Exception):
    """The package cannot become a bundle; the text says why."""


@dataclass(frozen=True)
class Artifact:
    """A packed bundle."""

    name: str
    version: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exports an approved model package as a model bundle.")
    project, _, build = os.environ.get("CODEBUILD_BUILD_ID", "edgeml:local").partition(":")
    for name, variable, default in (
        ("--package", "MODEL_PACKAGE_ARN", None),
        ("--bucket", "BUCKET", None),
        ("--component-bucket", "COMPONENT_BUCKET", ""),
        ("--update-function", "UPDATE_FUNCTION", ""),
        ("--signing-key-secret", "SIGNING_KEY_SECRET", ""),
        ("--thing-group", "THING_GROUP", ""),
    ):
        given = os.environ.get(variable, default)
        parser.add_argument(name, default=given, required=given is None, help=f"default: ${variable}")
    parser.add_argument("--mode", choices=("job", "component"), default=os.environ.get("MODE", "job"))
    parser.add_argument(
        "--allow-downgrade",
        action="store_true",
        default=os.environ.get("ALLOW_DOWNGRADE") == "true",
        help="a rollback: devices that have a newer version take this one, too",
    )
    parser.add_argument("--prefix", default=f"{build}/{project}", help="of the keys in the bucket")
    options = parser.parse_args(arguments)
    if options.mode == "component" and not (options.component_bucket and options.update_function):
        parser.error("--mode component needs --component-bucket and --update-function")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    package = describe(options.package)
    artifact = bundled(read_archive(fetch(package)))
    print(f"{artifact.name} {artifact.version}: {len(artifact.content)} bytes, sha256 {artifact.sha256}", flush=True)
    if options.mode == "job":
        publish_job(artifact, approval(package), options)
    else:
        publish_component(artifact, options)


def describe(package: str) -> dict[str, Any]:
    """The package. Raises ExportError unless it is approved: the event that started us may be an old one."""
    found = boto3.client("sagemaker", config=CONFIG).describe_model_package(ModelPackageName=package)
    if found.get("ModelApprovalStatus") != "Approved":
        raise ExportError(f"{package} is {found.get('ModelApprovalStatus')}, not Approved")
    return dict(found)


def approval(package: dict[str, Any]) -> str:
    """The same for every event of one approval, another for the next: when the package was changed last."""
    changed = package.get("LastModifiedTime") or package["CreationTime"]
    return f"{changed.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def fetch(package: dict[str, Any]) -> bytes:
    """The package's model.tar.gz, compared with the sha256 it was registered with."""
    (container, *_) = package["InferenceSpecification"]["Containers"]
    where = urlsplit(container["ModelDataUrl"])
    found = boto3.client("s3", config=CONFIG).get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))
    if found["ContentLength"] > MAX_ARCHIVE_BYTES:
        raise ExportError(f"the archive has {found['ContentLength']} bytes, {MAX_ARCHIVE_BYTES} are allowed")
    content = bytes(found["Body"].read())
    registered = package.get("CustomerMetadataProperties", {}).get("archive_sha256")
    if not registered:  # anything could have been put in its place after it was approved
        raise ExportError("the package has no property archive_sha256: register it with register_model.py")
    if registered != hashlib.sha256(content).hexdigest():
        raise ExportError("the archive is not the one that was registered")
    return content


def read_archive(content: bytes) -> dict[str, bytes]:
    """The files of a model.tar.gz, in memory. Raises ExportError for paths, links, duplicates and what is too large."""
    files: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            unpacked = stream.read(MAX_UNPACKED_BYTES + 1)  # headers included: they have sizes of their own
        if len(unpacked) > MAX_UNPACKED_BYTES:
            raise ExportError(f"the archive unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                if entry.isdir() and name in ("", "."):
                    continue
                if not entry.isreg() or "/" in name or "\\" in name or name in ("", ".", "..") or name in files:
                    raise ExportError(
                        f"the archive holds {entry.name[:200]!r}: only plain files, each once, are allowed"
                    )
                if len(files) == MAX_FILES:
                    raise ExportError(f"the archive has more than {MAX_FILES} files")
                reader = archive.extractfile(entry)
                files[name] = reader.read() if reader else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ExportError(f"the archive is damaged: {error}") from error
    return files


def read_draft(files: dict[str, bytes]) -> dict[str, Any]:
    """bundle.json: the manifest without digests. Raises ExportError unless it says what model this is."""
    if "bundle.json" not in files:
        raise ExportError("the archive has no bundle.json")
    try:
        draft = json.loads(files["bundle.json"])
    except ValueError as error:
        raise ExportError(f"bundle.json is not JSON: {error}") from error
    for name, kind in (("name", str), ("version", str), ("task", str), ("input", dict), ("output", dict)):
        if not isinstance(draft, dict) or not isinstance(draft.get(name), kind):
            raise ExportError(f"bundle.json has no {name}")
    version_key(draft["version"])
    return dict(draft)


def bundled(files: dict[str, bytes]) -> Artifact:
    """The bundle, verified, loaded and tried as a device does it, and packed: equal models give equal bytes."""
    draft = read_draft(files)
    extras = {name: content for name, content in files.items() if name not in NO_COPY}
    with tempfile.TemporaryDirectory() as folder:
        packing.write_bundle(Path(folder), draft, exported(files), extras)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).iterdir()):
                entry = zipfile.ZipInfo(path.name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return Artifact(draft["name"], draft["version"], packed.getvalue())


def exported(files: dict[str, bytes]) -> bytes:
    """The model as ONNX: as the archive has it, or made from PyTorch weights and compared with what PyTorch gives."""
    if "model.onnx" in files:
        return files["model.onnx"]
    if "model.pth" not in files:
        raise ExportError("the archive has neither model.pth nor model.onnx")
    import torch

    import autoencoder  # PyTorch takes seconds to load and is not needed for models that come as ONNX

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(files["model.pth"])
        file.flush()
        try:
            model = autoencoder.load(Path(file.name))
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            raise ExportError(f"model.pth holds no weights of the autoencoder: {error}") from error
    content = autoencoder.to_onnx(model)
    session = runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    random = np.random.default_rng(0)
    for batch in BATCHES:
        values = random.standard_normal((batch, *declared.shape[1:]), dtype=np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(values)).numpy()
        (found,) = session.run(None, {declared.name: values})
        difference = float(np.abs(expected - found).max())
        print(f"batch {batch}: ONNX differs from PyTorch by {difference:.2e}", flush=True)
        if not difference <= MAX_DIFFERENCE:  # not a number is no agreement either
            raise ExportError(f"ONNX differs from PyTorch by {difference:.2e}, {MAX_DIFFERENCE:.0e} are allowed")
    return content


def publish_job(artifact: Artifact, approved: str, options: argparse.Namespace) -> None:
    """Upload the bundle, then the job document.

    SageMaker may tell of one approval more than once, and a build may be repeated: all builds for one approval use the
    folder that the first of them claimed, and only the first job document there counts. To send a model once more,
    approve it once more.
    """
    s3 = boto3.client("s3", config=CONFIG)
    claim = f"exports/{artifact.name}/{artifact.version}/{artifact.sha256}/{approved}"
    if put_new(s3, options.bucket, claim, options.prefix.encode(), "text/plain"):
        prefix = options.prefix
    else:
        prefix = s3.get_object(Bucket=options.bucket, Key=claim)["Body"].read().decode()
    key = f"{prefix}/{artifact.name}-{artifact.version}.zip"
    put_new(s3, options.bucket, key, artifact.content, "application/zip")
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


def put_new(s3: Any, bucket: str, key: str, content: bytes, content_type: str) -> bool:
    """Whether there was no such object yet; one that is there is left as it is."""
    for attempt in range(PUT_ATTEMPTS):
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type, IfNoneMatch="*")
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


def publish_component(artifact: Artifact, options: argparse.Namespace) -> None:
    """Upload the bundle as a component's artifact, make the component version, ask for its deployment.

    A build that is repeated goes on where the last one stopped. Raises ExportError when the version has other contents.
    """
    name, version = f"edgeml.model.{artifact.name}", component_version(artifact.version)
    key = f"{name}/{version}/bundle.zip"
    upload_once(options.component_bucket, key, artifact.content)
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


def upload_once(bucket: str, key: str, content: bytes) -> None:
    """Never overwrites: a published version refers to the artifact's digest."""
    s3 = boto3.client("s3", config=CONFIG)
    new = put_new(s3, bucket, key, content, "application/zip")
    if not new and s3.get_object(Bucket=bucket, Key=key)["Body"].read() != content:
        raise ExportError(f"s3://{bucket}/{key} exists with other contents: register a new version")


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


if __name__ == "__main__":
    try:
        main()
    except (ExportError, EdgemlError) as problem:
        raise SystemExit(f"not exported: {problem}") from problem
