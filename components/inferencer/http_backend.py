"""HTTP APIs: GET <url>?features=<csv>."""

from typing import Any
from urllib.parse import urlencode

from edgeml import redact
from edgeml.component import Context
from edgeml.errors import BackendError, IpcError
from edgeml.messages import ModelRef, Regression
from edgeml.secrets import api_key
from inferencer.config import HttpBackend, Pipeline
from inferencer.remote import MAX_ANSWER_BYTES, RemoteModel, csv, number
from inferencer.sample import Sample


class HttpModel(RemoteModel):
    """The live-inference API: GET <url>?features=<csv> answers a number, or probabilities."""

    name = "http"
    _settings: HttpBackend

    def __init__(self, settings: HttpBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        super().__init__(settings, pipeline, context, prefix)
        import urllib3

        retries = urllib3.Retry(
            settings.attempts - 1,
            backoff_factor=0.2,
            backoff_jitter=0.2,
            backoff_max=5,
            status_forcelist=(429, 500, 502, 503, 504),
            redirect=0,
            respect_retry_after_header=False,  # an hour's wait would stall the pipeline; the circuit is its rest
        )
        timeout = urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s)
        self._pool = urllib3.PoolManager(maxsize=settings.max_in_flight, retries=retries, timeout=timeout)
        self._headers = {"Accept": "application/json, text/csv"}

    def encode(self, sample: Sample) -> bytes:
        return csv(sample.values)

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        import urllib3

        url, shown = self._settings.url, redact.url(self._settings.url)
        headers = self._authorised()
        try:
            response = self._pool.request(
                "GET", f"{url}?{urlencode({'features': body})}", headers=headers, preload_content=False
            )
            try:
                answer = response.read(MAX_ANSWER_BYTES)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise BackendError(f"{shown}: {redact.text(str(error), url)}") from error
        if response.status != 200:
            raise BackendError(f"{shown}: status {response.status}: {answer[:200].decode(errors='replace')}")
        return answer, ModelRef(
            response.headers.get("x-model-name", shown), response.headers.get("x-model-version", "")
        )

    def _authorised(self) -> dict[str, str]:
        """Headers with the API key, fetched once: with the first question, since secrets may come after the start."""
        secret = self._settings.api_key_secret
        if secret and "x-api-key" not in self._headers:
            try:
                self._headers["x-api-key"] = api_key(self._context.ipc, secret, "api_key")
            except IpcError as error:
                raise BackendError(f"{redact.url(self._settings.url)}: no API key: {error}") from error
        return self._headers

    def decode(self, answer: bytes, sample: Sample) -> Any:
        try:
            if self._settings.task == "regression":
                return Regression(number(answer))
            return self.ranked([float(value) for value in answer.replace(b"[", b"").replace(b"]", b"").split(b",")])
        except ValueError as error:
            raise BackendError(
                f"{redact.url(self._settings.url)}: answer is no {self._settings.task}: {answer[:80]!r}"
            ) from error

    def close(self) -> None:
        self._pool.clear()
