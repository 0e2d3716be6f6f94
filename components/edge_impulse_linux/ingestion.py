"""Uploads to Studio's ingestion service: images as files, sensor values in the signed data acquisition format.

Format: https://docs.edgeimpulse.com/reference/data-acquisition-format
"""

import hashlib
import hmac
import json
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from typing import Any

from edge_impulse_linux.identity import DEVICE_TYPE, Identity
from edgeml import http, json_limits
from edgeml.edge_impulse.studio import OK, SHOWN_BYTES, without
from edgeml.errors import HttpError, StudioError

TIMEOUT_S = 120.0  # for a whole upload and its answer
_MAX_ANSWER_BYTES = 65_536
_EMPTY_SIGNATURE = "0" * 64


@dataclass(frozen=True)
class Target:
    """Where a sample goes and what it is called there; `path` is as Studio asked, `/api/training/data`."""

    path: str
    label: str


@dataclass(frozen=True)
class Ingestion:
    """Raises StudioError when an upload is not taken."""

    base: str
    api_key: str = field(repr=False)
    identity: Identity

    def image(self, target: Target, jpeg: bytes, metadata: dict[str, str]) -> None:
        """One file to `/api/<category>/files`; the answer tells of each file."""
        boundary = uuid.uuid4().hex
        name = urllib.parse.quote(target.label, safe=" ") or "unknown"
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="data"; filename="{name}.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode()
        body += jpeg + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "x-disallow-duplicates": "1",
            "x-metadata": json.dumps(metadata),
        }
        answer = self._post(target.path.removesuffix("data") + "files", target.label, body, headers)
        try:
            parsed = json_limits.loads(answer)
            files = parsed["files"]
            refusals = [file.get("error", "no reason given") for file in files if not file["success"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudioError(
                f"upload: the answer is not understood: {without(self.api_key, repr(answer[:200]))}"
            ) from error
        if refusals or not parsed.get("success"):
            said = ", ".join(map(str, refusals)) or parsed.get("error", answer[:200])
            raise StudioError(f"upload refused: {without(self.api_key, str(said)[:500])}")

    def values(
        self,
        target: Target,
        hmac_key: str,
        interval_ms: float,
        sensors: list[dict[str, str]],
        values: list[list[float]],
    ) -> None:
        """`sensors` name the columns of `values`: `{"name", "units"}`."""
        payload = {
            "device_name": self.identity.id,
            "device_type": DEVICE_TYPE,
            "interval_ms": interval_ms,
            "sensors": sensors,
            "values": values,
        }
        headers = {
            "content-type": "application/json",
            "x-file-name": urllib.parse.quote(f"{target.label}.json", safe=" "),
        }
        self._post(target.path, target.label, signed(payload, hmac_key, time.time()), headers)

    def _post(self, path: str, label: str, body: bytes, headers: dict[str, str]) -> bytes:
        common = {
            "x-api-key": self.api_key,
            # Header values are ASCII; Studio decodes labels.
            "x-label": urllib.parse.quote(label, safe=" "),
            "x-add-date-id": "1",
            "x-upload-source": DEVICE_TYPE,
            "x-device-type": DEVICE_TYPE,
        }
        limits = http.Limits(total_s=TIMEOUT_S, max_bytes=_MAX_ANSWER_BYTES)
        try:
            answer = http.request("POST", self.base + path, limits, headers={**common, **headers}, body=body)
        except HttpError as error:
            raise StudioError(f"upload to {path}: {without(self.api_key, str(error))}") from error
        if answer.status != OK:
            said = without(self.api_key, repr(answer.body[:SHOWN_BYTES]))
            raise StudioError(f"upload to {path}: HTTP {answer.status} {said}")
        return answer.body


def signed(payload: dict[str, Any], hmac_key: str, at: float) -> bytes:
    """The document with its signature: HMAC-SHA256 over the very bytes that it has with a signature of zeros."""
    document = {
        "protected": {"ver": "v1", "alg": "HS256", "iat": int(at)},
        "signature": _EMPTY_SIGNATURE,
        "payload": payload,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    signature = hmac.new(hmac_key.encode(), text, hashlib.sha256).hexdigest()
    return text.replace(_EMPTY_SIGNATURE.encode(), signature.encode(), 1)
