"""AWS's HTTP APIs on the loopback: moto, with the services that moto lacks answered by stand-ins beside it.

moto is a store without events: it keeps an object but tells nobody. Here every successful call is shown to
observers, which is how a PUT becomes an S3 notification. Nothing inside moto is changed; requests are sorted by
what boto3 signed them for. moto keeps its state in module globals: one LocalAws per process, emptied on exit.
"""

import http.client
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from io import BytesIO
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from localdev.cloud.serving import Server

ACCOUNT = "123456789012"  # moto's
REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
}
_SIGNED_FOR = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Request:
    """One call of AWS. `service` is what it was signed for; presigned and unsigned calls count as "s3"."""

    service: str
    method: str
    path: str  # unquoted
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def operation(self) -> str:
        """`PutEvents` from the X-Amz-Target header of JSON protocols, "" for the others."""
        return self.headers.get("x-amz-target", "").rpartition(".")[2]


@dataclass(frozen=True)
class Response:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


StandIn = Callable[[Request], Response | None]  # None: not mine, ask the next one, in the end moto
Observer = Callable[[Request, Response], None]  # after a call that succeeded; must not block


class LocalAws:
    """`with LocalAws() as aws: aws.client("s3").create_bucket(...)`; processes get `aws.environment()`."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.stand_ins: list[StandIn] = []
        self.observers: list[Observer] = []
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._moto = _Moto(create_backend_app)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """All that boto3, in this or any process, needs to come here instead of to AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **CREDENTIALS,
        }

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud, whatever the process' environment says; made once, fit for all threads."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = boto3.client(
                    service,
                    endpoint_url=self.url,
                    region_name=REGION,
                    aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                    config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 2}),
                )
            return self._clients[service]

    def start(self) -> Self:
        self._server = Server(self._wsgi, self.port, name="local-aws")
        self.port = self._server.server_port
        self.reset()  # moto's state is the process', and an earlier server may have left some
        return self

    def stop(self) -> None:
        self.reset()
        for client in self._clients.values():
            client.close()  # its connections would stay half open until it is collected
        self._server.stop()

    def reset(self) -> None:
        """Empties every service of moto."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = _read(environ)
        for stand_in in self.stand_ins:
            answer = stand_in(request)
            if answer is not None:
                break
        else:
            answer = self._ask_moto(environ)
        if answer.status < 300:
            for observer in self.observers:
                observer(request, answer)
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        if request.method == "HEAD":
            headers = answer.headers
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(headers.items()))
        return [answer.body]

    def _ask_moto(self, environ: dict[str, Any]) -> Response:
        started: list[Any] = []
        chunks = self._moto(environ, lambda status, headers, exc_info=None: started.extend((status, headers)))
        try:
            body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return Response(body, int(started[0].split()[0]), dict(started[1]))


class _Moto(DomainDispatcherApplication):
    # Without this, moto lists its own package's folder for every request: a quarter of the time it takes.
    get_backend_for_host = cache(DomainDispatcherApplication.get_backend_for_host)


def _read(environ: dict[str, Any]) -> Request:
    """The request, its body put back for moto."""
    body = environ["wsgi.input"].read()
    environ["wsgi.input"] = BytesIO(body)
    headers = {k[5:].replace("_", "-").lower(): str(v) for k, v in environ.items() if k.startswith("HTTP_")}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    signed = _SIGNED_FOR.search(headers.get("authorization", ""))
    return Request(
        service=signed[1] if signed else "s3",
        method=environ["REQUEST_METHOD"],
        path=unquote(environ.get("RAW_URI", environ["PATH_INFO"]).partition("?")[0]),
        query=dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)),
        headers=headers,
        body=body,
    )
