"""The job document: what the cloud asks for, checked before anything is done about it."""

import base64
from typing import Annotated, Any

import msgspec

from edgeml.bundle import Name, Sha256, version_key
from edgeml.errors import ConfigError
from model_updater.errors import UpdateError

OPERATION = "update_model"
DOCUMENT_VERSION = "1"  # the major version this code understands
KEY_BYTES = 32
URL_PLACEHOLDER = "${aws:iot:s3-presigned-url"
GROUP = r"^[a-zA-Z0-9:_-]{0,128}$(?!\n)"  # AWS IoT's names of thing groups; empty is any


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """`deployment_artifact_path` is a presigned URL of `size` bytes with this sha256: a zip or tar.gz of a bundle."""

    operation: str
    version: str
    model_name: Name
    model_version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    deployment_artifact_path: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=1)]
    onnxruntime_version: str = ""
    thing_group: Annotated[str, msgspec.Meta(pattern=GROUP)] = ""
    allow_downgrade: bool = False
    signature: Annotated[str, msgspec.Meta(max_length=128)] = ""
    signature_v2: Annotated[str, msgspec.Meta(max_length=128)] = ""


def parse(raw: Any) -> Document:
    """A document this device can act on. Raises UpdateError with the reason it cannot, BundleError for its version."""
    if not isinstance(raw, dict):
        raise UpdateError(f"the job document is no object but {type(raw).__name__}")
    if raw.get("operation") != OPERATION:
        raise UpdateError(f"unknown operation {str(raw.get('operation'))[:64]!r}, {OPERATION!r} is known")
    version = str(raw.get("version"))
    if version.split(".")[0] != DOCUMENT_VERSION:
        raise UpdateError(f"unknown document version {version[:64]!r}, {DOCUMENT_VERSION}.x is known")
    try:
        document = msgspec.convert(raw, Document, strict=False)
    except msgspec.ValidationError as error:
        raise UpdateError(f"job document: {error}") from error
    version_key(document.model_version)
    if document.deployment_artifact_path.startswith(URL_PLACEHOLDER):
        raise UpdateError("the presigned URL was not filled in: the job has no presignedUrlConfig, or no access")
    return document


def signed_text(document: Document) -> bytes:
    """What `signature` covers: the content (by its hash) and the name and version it may be installed as."""
    fields = (document.model_name, document.model_version, document.sha256, str(document.size))
    return "\n".join(("edgeml-model", *fields, "")).encode()


def signed_text_v2(document: Document) -> bytes:
    """What `signature_v2` covers: the same, and for which things, and whether it may take a newer version's place.

    The first line names the format. No field can hold a line feed, so that no two documents have one text.
    """
    lines = (
        "edgeml-model-2",
        f"model_name={document.model_name}",
        f"model_version={document.model_version}",
        f"sha256={document.sha256}",
        f"size={document.size}",
        f"thing_group={document.thing_group}",
        f"allow_downgrade={str(document.allow_downgrade).lower()}",
        "",
    )
    return "\n".join(lines).encode()


def key_bytes(public_key: str) -> bytes:
    """The raw key of the configuration's base64. Raises ConfigError."""
    try:
        raw = base64.b64decode(public_key, validate=True)
    except ValueError as error:
        raise ConfigError("public_key", f"not base64: {error}") from error
    if len(raw) != KEY_BYTES:
        raise ConfigError("public_key", f"expected {KEY_BYTES} bytes of an Ed25519 key, found {len(raw)}")
    return raw


def check_signature(document: Document, public_key: str, required: int = 1) -> None:
    """Raises UpdateError unless `document` was signed with the private half of `public_key` (base64).

    The newest signature it carries decides. `required` 2 takes no document that has only the older one.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature, text = document.signature, signed_text(document)
    if document.signature_v2 or required >= 2:
        signature, text = document.signature_v2, signed_text_v2(document)
    if not signature:
        missing = "has no signature_v2, which require_signature demands" if document.signature else "is not signed"
        raise UpdateError(f"the model {missing}, and a public key is configured")
    key = Ed25519PublicKey.from_public_bytes(key_bytes(public_key))
    try:
        key.verify(base64.b64decode(signature, validate=True), text)
    except (InvalidSignature, ValueError) as error:
        raise UpdateError("the signature does not fit the document and the configured key") from error


def may_downgrade(document: Document, public_key: str) -> bool:
    """Whether the job itself says so: where a key is configured, only what a signature covers counts."""
    return document.allow_downgrade and (not public_key or bool(document.signature_v2))


def check_group(document: Document, thing_group: str) -> None:
    """Raises UpdateError for a document that was made for another thing group than the configured one."""
    if document.thing_group and thing_group and document.thing_group != thing_group:
        raise UpdateError(f"the job is for thing group {document.thing_group}, this device is in {thing_group}")
