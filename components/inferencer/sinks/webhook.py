"""Results as HTTPS POST."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.errors import ConfigError, HttpError, HttpUrlError, RefusedError, SinkError
from edgeml.secrets import secret_value
from edgeml.spool import Item
from inferencer.parts import Place, Sink
from inferencer.sinks.spooled import SpooledSettings, SpooledSink

if TYPE_CHECKING:
    from edgeml import http

SIGNATURE = "X-Edgeml-Signature-256"
MAX_ANSWER_BYTES = 64 << 10
LATER = (302, 303, 307, 408, 425, 429)  # answers that another attempt may change, as all from 500 are
DENIED = (401, 403)  # perhaps for a key that is another by now


class WebhookSink(SpooledSettings, frozen=True, kw_only=True, tag="webhook", tag_field="type"):
    url: Annotated[
        str, Meta(max_length=2048, pattern=r"^https://[!-~]+$(?!\n)", description="Where results are posted as JSON")
    ]
    hmac_secret: Annotated[
        str, Meta(description="Secret whose `hmac_key` signs each body (X-Edgeml-Signature-256); empty signs none")
    ] = ""
    deadline_s: Annotated[float, Meta(gt=0, le=70, description="Limit for one attempt as a whole")] = 10.0
    ca_file: Annotated[str, Meta(description="CA certificates (PEM); empty takes the system's")] = ""

    def check(self, path: str, thing: str) -> None:
        from edgeml import http

        try:
            http.check_url(self.url, ("https",))
        except HttpUrlError as error:
            raise ConfigError(f"{path}.url", str(error)) from error

    def open(self, place: Place) -> Sink | None:
        return WebhookResults(self, place)


class WebhookResults(SpooledSink):
    """One attempt a call; no redirect is followed."""

    def __init__(self, settings: WebhookSink, place: Place) -> None:
        from edgeml.http import Limits, shown

        self._settings, self._shown = settings, shown(settings.url)
        self._limits = Limits(total_s=settings.deadline_s, max_bytes=MAX_ANSWER_BYTES)
        self._client: http.Client | None = None
        self._key = b""
        super().__init__(settings, place, "webhook")

    def send(self, item: Item, payload: bytes) -> None:
        headers = {"Content-Type": "application/json", **self._signature(payload)}
        try:
            answer = self._ready().request(
                "POST", self._settings.url, self._limits, headers=headers, body=payload, redirects=None
            )
        except HttpError as error:
            raise SinkError(str(error)) from error
        if 200 <= answer.status < 300:
            return
        if answer.status in DENIED:
            self._key = b""
        told = f"{self._shown}: status {answer.status}"
        raise (SinkError if answer.status in LATER or answer.status >= 500 else RefusedError)(told)

    def close(self) -> None:
        super().close()
        if self._client is not None:
            self._client.close()

    def _ready(self) -> http.Client:
        if self._client is None:
            import ssl

            from edgeml import http

            try:
                context = ssl.create_default_context(cafile=self._settings.ca_file) if self._settings.ca_file else None
            except (OSError, ValueError) as error:
                raise SinkError(f"CA certificates {self._settings.ca_file}: {error}") from error
            self._client = http.Client(idle=1, context=context)
        return self._client

    def _signature(self, payload: bytes) -> dict[str, str]:
        """HMAC-SHA256 (RFC 2104) of the body. Raises SecretError when the key cannot be had."""
        secret = self._settings.hmac_secret
        if not secret:
            return {}
        if not self._key:
            self._key = secret_value(self._context.ipc, secret, "hmac_key").encode()
        return {SIGNATURE: "sha256=" + hmac.new(self._key, payload, hashlib.sha256).hexdigest()}
