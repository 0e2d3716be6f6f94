"""Secrets from the Greengrass core, or from AWS Secrets Manager where the core has none to give.

Nucleus Lite has no GetSecretValue, and the Java nucleus knows only secrets that were deployed to it. The device's
own credentials (the token exchange service, found by botocore) then fetch the secret directly.
"""

import json
import logging
from typing import Any

from edgeml.asking import Ipc, secret_text
from edgeml.credentials import AwsClient
from edgeml.errors import DisconnectedError, IpcError, SecretError
from edgeml.log import kv

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 5, 10, 3


def secret_value(ipc: Ipc, secret_id: str, key: str) -> str:
    """The value of `key` in a secret that is a JSON object; a secret that is plain text as a whole.

    Raises SecretError when there is no such secret or key, or nobody could be asked.
    """
    return _value(_text(ipc, secret_id), secret_id, key)


def secret_fields(ipc: Ipc, secret_id: str) -> dict[str, Any]:
    """A secret that is a JSON object. Raises SecretError when it is none, or nobody could be asked."""
    fields = _fields(_text(ipc, secret_id))
    if not isinstance(fields, dict):
        raise SecretError(f"secret {secret_id}: expected a JSON object")
    return fields


def _text(ipc: Ipc, secret_id: str) -> str:
    try:
        return ipc.secret(secret_id)
    except DisconnectedError:
        raise
    except (IpcError, SecretError) as refusal:
        log.info("asking Secrets Manager, the core has no such secret %s", kv(secret=secret_id, reason=refusal))
        return _from_secrets_manager(secret_id, refusal)


def _from_secrets_manager(secret_id: str, refusal: Exception) -> str:
    client = AwsClient(
        "secretsmanager",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS},
    )
    try:
        answer: dict[str, Any] = client.get().get_secret_value(SecretId=secret_id) or {}
    except Exception as error:  # botocore, urllib3 and parsers share no base class
        raise SecretError(f"secret {secret_id}: {error}; the core: {refusal}") from error
    return secret_text(secret_id, answer.get("SecretString"), answer.get("SecretBinary"))


def _value(text: str, secret_id: str, key: str) -> str:
    value: Any = text
    fields = _fields(text)
    if isinstance(fields, dict):
        if key not in fields:
            raise SecretError(f"secret {secret_id}: it has no key {key!r}")
        value = fields[key]
    if isinstance(value, str | int | float) and str(value).strip():
        return str(value).strip()
    raise SecretError(f"secret {secret_id}: expected text for {key!r}, found nothing that is one")


def _fields(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
