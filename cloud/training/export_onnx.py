"""An approved model package -> a model bundle that devices can be sent. What the CodeBuild project runs.

    .venv-training/bin/python cloud/training/export_onnx.py --package ARN --bucket BUCKET --mode job

The archive of the package is fetched and unpacked safely, its model exported to ONNX and compared with PyTorch, made
faster where samples came with it (optimizing.py), and the bundle packed and published, as a job document or as a
component (publishing.py).
"""

import argparse
import gzip
import hashlib
import io
import json
import math
import os
import pickle  # only its error: weights are loaded as tensors and nothing else
import tarfile
import tempfile
import zipfile
import zlib
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np

import optimizing
import packing
from edgeml.bundle import version_key
from edgeml.errors import EdgemlError
from edgeml.onnx_session import runtime
from publishing import CONFIG, Artifact, ExportError, publish_component, publish_job

MAX_ARCHIVE_BYTES = 512 * 2**20
MAX_UNPACKED_BYTES = 1024 * 2**20
MAX_FILES = 64
MAX_DIFFERENCE = 1e-4  # between PyTorch and ONNX Runtime, of outputs near one
BATCHES = (1, 7, 64)
# What of the archive is not copied into the bundle:
NO_COPY = ("model.pth", "model.onnx", "bundle.json", "metrics.json", optimizing.CALIBRATION, optimizing.EVALUATION)


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
    for name, variable, number, told in (
        ("--max-loss", "MAX_LOSS", "0.01", "of agreement with fp32, for an INT8 variant; 0 makes none"),
        ("--min-gain", "MIN_GAIN", "1.05", "so many times as fast as fp32 a variant has to be"),
    ):
        parser.add_argument(name, type=float, default=os.environ.get(variable, number), help=told)
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
    if not (0 <= options.max_loss <= 1 and 0 <= options.min_gain < math.inf):
        parser.error("--max-loss is a share from 0 to 1, --min-gain a number from 0 on")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    package = describe(options.package)
    artifact = bundled(read_archive(fetch(package)), options.max_loss, options.min_gain)
    print(f"{artifact.name} {artifact.version}: {len(artifact.content)} bytes, sha256 {artifact.sha256}", flush=True)
    if options.mode == "job":
        publish_job(artifact, approval(package), options)
    else:
        publish_component(artifact, archive_sha256(package), options)


def describe(package: str) -> dict[str, Any]:
    """The package. Raises ExportError unless it is approved: the event that started us may be an old one."""
    found = boto3.client("sagemaker", config=CONFIG).describe_model_package(ModelPackageName=package)
    if found.get("ModelApprovalStatus") != "Approved":
        raise ExportError(f"{package} is {found.get('ModelApprovalStatus')}, not Approved")
    return dict(found)


def approval(package: dict[str, Any]) -> str:
    """The same for every event of one approval, another for the next: what it holds, and when it was changed last."""
    changed = package.get("LastModifiedTime") or package["CreationTime"]
    return f"{archive_sha256(package)}/{changed.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def archive_sha256(package: dict[str, Any]) -> str:
    """Of the registered archive. Raises ExportError where nobody has said it: anything could have taken its place."""
    registered = package.get("CustomerMetadataProperties", {}).get("archive_sha256")
    if not registered:
        raise ExportError("the package has no property archive_sha256: register it with register_model.py")
    return str(registered)


def fetch(package: dict[str, Any]) -> bytes:
    """The package's model.tar.gz, compared with the sha256 it was registered with."""
    (container, *_) = package["InferenceSpecification"]["Containers"]
    where = urlsplit(container["ModelDataUrl"])
    found = boto3.client("s3", config=CONFIG).get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))
    if found["ContentLength"] > MAX_ARCHIVE_BYTES:
        raise ExportError(f"the archive has {found['ContentLength']} bytes, {MAX_ARCHIVE_BYTES} are allowed")
    content = bytes(found["Body"].read())
    if archive_sha256(package) != hashlib.sha256(content).hexdigest():
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


def bundled(files: dict[str, bytes], max_loss: float = 0.0, min_gain: float = 1.0) -> Artifact:
    """The bundle, verified, loaded and tried as a device does it, and packed: equal folders give equal bytes.

    Its variants lose at most `max_loss` of their agreement with fp32 (0: there are none) and are `min_gain` times as
    fast.
    """
    draft = read_draft(files)
    extras = {name: content for name, content in files.items() if name not in NO_COPY}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        packing.write_bundle(folder, draft, exported(files), extras)
        tried = optimizing.with_variants(folder, files, max_loss, min_gain, Path(scratch))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(tried.folder.iterdir()):
                entry = zipfile.ZipInfo(path.name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return Artifact(draft["name"], draft["version"], packed.getvalue(), tried.report, tried.plot)


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


if __name__ == "__main__":
    try:
        main()
    except (ExportError, EdgemlError) as problem:
        raise SystemExit(f"not exported: {problem}") from problem
