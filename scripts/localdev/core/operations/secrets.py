"""Secrets of the aws.greengrass.SecretManager component, from a local JSON file.

A secret is its text, or an object with secretString or secretBinary and optionally arn, versionId, versionStage.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from localdev.core.operations.requests import Body, text
from localdev.core.policy import SECRETS, Authorizer
from localdev.core.rpc import not_found, service_error, unauthorized
from localdev.core.server import Handler, Stream

COMPONENT = "aws.greengrass.SecretManager"


def load_secrets(source: Mapping[str, Any] | Path | None, region: str) -> dict[str, Body]:
    """GetSecretValue answers by secret name. OSError or ValueError if a file cannot be used."""
    if isinstance(source, Path):
        source = json.loads(source.read_text())
    if not isinstance(source, Mapping | None):
        raise ValueError("the secrets file must hold one JSON object")
    return {name: _secret(name, value, region) for name, value in (source or {}).items()}


def _secret(name: str, value: Any, region: str) -> Body:
    entry = {"secretString": value} if isinstance(value, str) else dict(value)
    kind = next((kind for kind in ("secretString", "secretBinary") if kind in entry), None)
    if kind is None:
        raise ValueError(f"secret {name!r} has neither secretString nor secretBinary")
    return {
        "secretId": entry.get("arn", f"arn:aws:secretsmanager:{region}:123456789012:secret:{name}-local1"),
        "versionId": entry.get("versionId", "00000000-0000-0000-0000-000000000001"),
        "versionStage": entry.get("versionStage", ["AWSCURRENT"]),
        "secretValue": {kind: entry[kind]},
    }


class Secrets:
    """GetSecretValue, once `deployed()` says that the secret manager component is."""

    def __init__(self, authorizer: Authorizer, secrets: Mapping[str, Body], deployed: Callable[[str], bool]) -> None:
        self._authorizer = authorizer
        self._secrets = secrets
        self._deployed = deployed

    def handlers(self) -> dict[str, Handler]:
        """The one operation."""
        return {"GetSecretValue": self._get}

    def _get(self, stream: Stream, body: Body) -> Body:
        if not self._deployed(COMPONENT):
            raise service_error("Operation aws.greengrass#GetSecretValue is not supported by Greengrass")
        wanted = text(body, "secretId")
        secret = self._secrets.get(wanted) or next(
            (known for known in self._secrets.values() if known["secretId"] == wanted), None
        )
        if secret is None:
            raise not_found(f"Secret not configured {wanted}", resourceType="secret", resourceName=wanted)
        resource = secret["secretId"]
        if not self._authorizer.allows(stream.principal, SECRETS, stream.operation, resource):
            raise unauthorized(
                f"Principal {stream.principal} is not authorized to perform "
                f"{SECRETS}:aws.greengrass#GetSecretValue on resource {resource}"
            )
        if body.get("versionId", secret["versionId"]) != secret["versionId"]:
            raise not_found(f"Secret not found {wanted}", resourceType="secret", resourceName=wanted)
        if body.get("versionStage", secret["versionStage"][0]) not in secret["versionStage"]:
            raise not_found(f"Secret not found {wanted}", resourceType="secret", resourceName=wanted)
        return secret
