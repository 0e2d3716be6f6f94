"""Edge Impulse Studio as a device sees it: REST API, remote management, ingestion. It records the wire.

    python -m localdev.simulators.studio --host 127.0.0.1

Its ports are the fixed ones of a Studio named by IP address (EI_HOST). Several can run beside each other, each on a
loopback address of its own.
"""

import argparse
import email
import email.policy
import hashlib
import hmac
import json
import random
import signal
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

API_PORT, REMOTE_MANAGEMENT_PORT, INGESTION_PORT = 4800, 4802, 4810
_ZEROS = "0" * 64


@dataclass
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Upload:
    """A sample that was taken: `content` is a JPEG's bytes or the data acquisition document."""

    path: str
    label: str
    file_name: str
    content: Any
    headers: dict[str, str] = field(repr=False)


class FakeStudio:
    """Runs while its block runs. One project, one API key, one device connection at a time.

    `requests`, `uploads` and `heard` (messages of the device) hold the wire, in order. `refusal` is what a hello is
    answered with instead of a welcome, `upload_error` what uploads are.
    """

    def __init__(self, host: str = "", *, api_key: str = "ei_test", project: int = 42) -> None:
        self.host = host or f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        self.api_key, self.project, self.hmac_key = api_key, project, "f" * 32
        self.requests: list[Request] = []
        self.uploads: list[Upload] = []
        self.heard: list[dict[str, Any]] = []
        self.connections = 0
        self.devices: dict[str, str] = {}
        self.refusal = self.upload_error = ""
        self._device: ServerConnection | None = None

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"studio": self})
        self._http = [ThreadingHTTPServer((self.host, port), handler) for port in (API_PORT, INGESTION_PORT)]
        self._ws = serve(self._remote_management, self.host, REMOTE_MANAGEMENT_PORT, max_size=16 << 20)
        self._threads = [
            *(threading.Thread(target=server.serve_forever, args=[0.02], name="studio http") for server in self._http),
            threading.Thread(target=self._ws.serve_forever, name="studio remote management"),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()
        for server in self._http:
            server.shutdown()
            server.server_close()
        self._ws.shutdown()
        for thread in self._threads:
            thread.join()

    @property
    def connected(self) -> bool:
        """Whether a device has been welcomed and not left yet."""
        return self._device is not None

    def hello(self) -> dict[str, Any]:
        """The latest hello of the device."""
        hellos = [message["hello"] for message in self.heard if "hello" in message]
        return dict(hellos[-1])

    def ask(self, message: dict[str, Any]) -> None:
        """Send `message` to the device."""
        if self._device is None:
            raise ConnectionError("no device is connected")
        self._device.send(json.dumps(message))

    def sample(self, sensor: str, label: str, *, length: float = 0, interval: float = 0, **changes: Any) -> None:
        """Ask for a sample, as the button in Studio does."""
        request = {
            "label": label,
            "length": length,
            "path": "/api/training/data",
            "hmacKey": self.hmac_key,
            "interval": interval,
            "sensor": sensor,
        }
        self.ask({"sample": {**request, **changes}})

    def drop(self) -> None:
        """Close the connection to the device."""
        if self._device is not None:
            self._device.close()

    def heard_keys(self) -> list[str]:
        """The first key of each message of the device, without the frames of the live view."""
        return [next(iter(message)) for message in list(self.heard) if "snapshotFrame" not in message]

    def _remote_management(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            for text in connection:
                message = json.loads(text)
                self.heard.append(message)
                if "hello" in message:
                    self._welcome(connection, message["hello"])
        except ConnectionClosed:
            pass
        finally:
            if self._device is connection:
                self._device = None

    def _welcome(self, connection: ServerConnection, hello: dict[str, Any]) -> None:
        problem = self.refusal or ("" if hello["apiKey"] == self.api_key else "Invalid API key")
        if problem:
            connection.send(json.dumps({"hello": False, "err": problem}))
            return
        connection.send(json.dumps({"hello": True, "serverTimestamp": 1}))
        self._device = connection

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON body (or text) for an HTTP request."""
        self.requests.append(request)
        if request.headers.get("x-api-key") != self.api_key:
            return 401, {"success": False, "error": "Invalid API key"}
        if request.path.startswith("/api/"):
            return self._ingest(request)
        return self._rest(request.method, request.path.removeprefix("/v1/api/"), request)

    def _rest(self, method: str, path: str, request: Request) -> tuple[int, Any]:
        project = f"{self.project}/"
        if (method, path) == ("GET", "projects"):
            return 200, {"success": True, "projects": [{"id": self.project, "name": "fake"}]}
        if (method, path) == ("GET", f"{project}devkeys/hmac"):
            return 200, {"success": True, "hmacKey": self.hmac_key}
        if (method, path) == ("POST", f"{project}devices/create"):
            device = request.json()["deviceId"]
            self.devices.setdefault(device, device)
            return 200, {"success": True}
        if method == "GET" and path.startswith(f"{project}device/"):
            device = unquote(path.rpartition("/")[2])
            if device in self.devices:
                return 200, {"success": True, "device": {"deviceId": device, "name": self.devices[device]}}
        if method == "POST" and path.startswith(f"{project}devices/") and path.endswith("/rename"):
            self.devices[unquote(path.split("/")[2])] = request.json()["name"]
            return 200, {"success": True}
        return 404, {"success": False, "error": f"no such path {path}"}

    def _ingest(self, request: Request) -> tuple[int, Any]:
        if self.upload_error:
            return 200, {"success": False, "files": [{"success": False, "error": self.upload_error}]}
        label, headers = unquote(request.headers["x-label"]), request.headers
        if request.path.endswith("/files"):
            name, content = _file(request)
            self.uploads.append(Upload(request.path, label, name, content, headers))
            return 200, {"success": True, "files": [{"fileName": name, "success": True}]}
        if not self._is_signed(request.body):
            return 400, "the signature is wrong"
        name = unquote(headers["x-file-name"])
        self.uploads.append(Upload(request.path, label, name, request.json(), headers))
        return 200, name

    def _is_signed(self, body: bytes) -> bool:
        signature = str(json.loads(body)["signature"])
        unsigned = body.replace(signature.encode(), _ZEROS.encode(), 1)
        expected = hmac.new(self.hmac_key.encode(), unsigned, hashlib.sha256).hexdigest()
        return hmac.compare_digest(signature, expected)


class _Handler(BaseHTTPRequestHandler):
    studio: FakeStudio

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, answer = self.studio.answer(Request(self.command, self.path, headers, body))
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _file(request: Request) -> tuple[str, bytes]:
    """Name and content of the file `data` of a multipart form."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    (part,) = form.iter_parts()
    if part.get_param("name", header="content-disposition") != "data":
        raise ValueError("the form has no field `data`")
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        raise ValueError("the file is a form itself")
    return unquote(str(part.get_filename())), content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--api-key", default="ei_test")
    arguments = parser.parse_args()
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with FakeStudio(arguments.host, api_key=arguments.api_key) as studio:
        print(f"Studio on EI_HOST={studio.host}, API key {studio.api_key}", flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
