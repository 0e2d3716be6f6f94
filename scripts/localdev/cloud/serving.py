"""HTTP/1.1 for WSGI applications on the loopback: a thread per connection, which stays open for the next request.

Werkzeug's own server closes each connection after its answer. A new one for every call costs both sides as much as
half of the call does, and most calls here come from boto3 clients that would keep theirs.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import BytesIO
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024 * 1024
POLL_S = 0.05  # how long stop() may wait for the thread that accepts
BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(ThreadedWSGIServer):
    """Serves from the moment it is made, at 127.0.0.1:`server_port`, in a thread called `name`."""

    def __init__(self, application: Application, port: int = 0, *, name: str) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__("127.0.0.1", port, application, handler=Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=[POLL_S], name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Frees the port and ends all connections."""
        self.shutdown()
        self.server_close()
        self._thread.join(5)
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # its thread may be closing it
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._connections.discard(request)


class Handler(MotoRequestHandler):
    """Reads each request to its end and gives each answer its length, as connections that stay open need."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def make_environ(self) -> dict[str, Any]:
        """With the whole body in memory, whether or not the application reads it."""
        environ: dict[str, Any] = super().make_environ()
        size = MAX_BODY_BYTES if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return environ

    def run_wsgi(self) -> None:
        if int(self.headers.get("Content-Length") or 0) > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self.environ = self.make_environ()
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            started[:] = [int(status.split()[0]), headers]

        try:
            chunks = self.server.app(self.environ, start_response)
            body = b"".join(chunks)
        except Exception:
            log.exception("%s %s", self.command, self.path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        status, headers = started
        self._send(status, headers, body)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        names = {name.lower() for name, _ in headers}
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        has_body = self.command != "HEAD" and status not in BODILESS
        if has_body and "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def log(self, type: str, message: str, *args: Any) -> None:
        log.debug(message, *args)
