"""HTTP APIs: GET <url>?features=<csv>."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

from msgspec import Meta

from edgeml.backoff import Backoff, retry
from edgeml.errors import BackendError, ConfigError, HttpError, HttpRedirectError, HttpUrlError, IpcError, SecretError
from edgeml.messages import ModelRef, Regression
from edgeml.secrets import secret_value
from inferencer.backends.remote import MAX_NAME, Remote, RemoteModel
from inferencer.errors import BusyError
from inferencer.parts import Model, Place
from inferencer.sample import Sample

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.http import Answer
    from inferencer.parts import Pipeline

AGAIN = (429, 500, 502, 503, 504)  # statuses that another attempt may change
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.4, 5.0


class HttpBackend(Remote, frozen=True, kw_only=True, tag="http", tag_field="type"):
    url: Annotated[
        str, Meta(pattern=r"^https?://[^\x00-\x20\x7f]+$(?!\n)", description="Asked as GET <url>?features=<csv>")
    ]
    api_key_secret: Annotated[str, Meta(description="Secret that holds the x-api-key; empty sends none")] = ""

    def check(self, path: str, thing: str) -> None:
        try:
            address(self.url)
        except HttpUrlError as error:
            raise ConfigError(f"{path}.url", str(error)) from error

    def open(self, place: Place) -> Model:
        return HttpModel(self, place.pipeline, place.context, place.prefix)


class HttpModel(RemoteModel):
    """The live-inference API: GET <url>?features=<csv> answers a number, or probabilities."""

    name = "http"
    _settings: HttpBackend

    def __init__(self, settings: HttpBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        from edgeml import http

        super().__init__(settings, pipeline, context, prefix)
        self._url, self._shown = address(settings.url), http.shown(settings.url)
        self._client = http.Client(idle=settings.max_in_flight, proxies=False)
        self._limits = settings.limits
        self._headers = {"Accept": "application/json, text/csv"}
        self._closed = threading.Event()

    def encode(self, sample: Sample) -> bytes:
        from inferencer.backends.bodies import csv

        return csv(sample.values)

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        headers = self._authorised()
        url = f"{self._url}{'&' if '?' in self._url else '?'}{urlencode({'features': body})}"
        answer = retry(  # an hour's Retry-After would stall the pipeline; the circuit is its rest
            lambda: self._asked(url, headers),
            BusyError,
            backoff=Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S),
            stopping=self._closed,
            attempts=self._settings.attempts,
        )
        named = [answer.headers.get(f"x-model-{what}", "")[:MAX_NAME] for what in ("name", "version")]
        return answer.body, ModelRef(named[0] or self._shown, named[1])

    def _asked(self, url: str, headers: dict[str, str]) -> Answer:
        """One attempt. Raises BusyError where another one may change the answer, else BackendError."""
        try:
            answer = self._client.request("GET", url, self._limits, headers=headers)
        except (HttpUrlError, HttpRedirectError) as error:
            raise BackendError(str(error)) from error
        except HttpError as error:
            raise BusyError(str(error)) from error
        if answer.status == 200:
            return answer
        text = f"{self._shown}: status {answer.status}: {answer.body[:200].decode(errors='replace')}"
        raise (BusyError if answer.status in AGAIN else BackendError)(text)

    def _authorised(self) -> dict[str, str]:
        """Headers with the API key, fetched once: with the first question, since secrets may come after the start."""
        secret = self._settings.api_key_secret
        if secret and "x-api-key" not in self._headers:
            try:
                self._headers["x-api-key"] = secret_value(self._context.ipc, secret, "api_key")
            except (IpcError, SecretError) as error:
                raise BackendError(f"{self._shown}: no API key: {error}") from error
        return self._headers

    def decode(self, answer: bytes, sample: Sample) -> Any:
        from inferencer.backends.bodies import number, numbers_of

        try:
            if self._settings.task == "regression":
                return Regression(number(answer))
            return self.ranked(numbers_of(answer))
        except ValueError as error:
            raise BackendError(f"{self._shown}: answer is no {self._settings.task}: {answer[:80]!r}") from error

    def close(self) -> None:
        self._closed.set()
        self._client.close()


def address(url: str) -> str:
    """A configured URL as it is asked for: letters that are not ASCII as %XX. Raises HttpUrlError."""
    from edgeml import http

    found = quote(url, safe="".join(map(chr, range(0x21, 0x7F)))).partition("#")[0]
    http.check_url(found)
    return found
