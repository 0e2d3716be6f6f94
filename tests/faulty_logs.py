"""A CloudWatch Logs that enforces every documented limit, and fails as it is told."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from support import eventually

DAY_MS = 86_400_000


class Event(NamedTuple):
    group: str
    stream: str
    timestamp: int
    message: str


class Request(NamedTuple):
    """`operation` as PutLogEvents, `headers` with lower-case names."""

    operation: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def group(self) -> str:
        return str(self.body.get("logGroupName", ""))


class Fault(NamedTuple):
    """An error answer; status 0 closes the connection without one, `stored` after taking the events."""

    status: int
    error: str = ""
    message: str = "made up by the test"
    stored: bool = False


class FaultySink:
    """CloudWatch Logs that enforces every documented limit. `fault` is asked for each request what is to go wrong."""

    def __init__(self) -> None:
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.events: list[Event] = []
        self.enforce_age = False  # off, so that tests may use any date
        self.keeps_ms = 0  # what is older has expired; 0: for ever
        self.answers_html = False  # with status 200 to whatever `fault` gives such an answer
        self.retention: dict[str, int] = {}
        self.refused: list[str] = []
        self._streams: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def messages(self, group: str = "") -> list[str]:
        with self._lock:
            return [event.message for event in self.events if event.group.endswith(group)]

    def counted(self, group: str = "") -> Counter[str]:
        return Counter(self.messages(group))

    def wait_for(self, count: int, group: str = "", timeout: float = 15.0) -> list[str]:
        """Messages, once there are at least `count`."""
        return eventually(
            lambda: found if len(found := self.messages(group)) >= count else [], timeout, f"{count} events"
        )

    def answer(self, request: Request) -> tuple[int, dict[str, Any]] | None:
        with self._lock:
            self.requests.append(request)
        fault = self.fault(request)
        if fault is not None and not fault.stored:
            return (fault.status, {"__type": fault.error, "message": fault.message}) if fault.status else None
        with self._lock:
            status, body = self._perform(request)
            if status >= 400:
                self.refused.append(f"{request.operation}: {body}")
        return (status, body) if fault is None else None

    def _perform(self, request: Request) -> tuple[int, dict[str, Any]]:
        group, stream = request.group, str(request.body.get("logStreamName", ""))
        if request.operation == "CreateLogGroup":
            if group in self._streams:
                return 400, {"__type": "ResourceAlreadyExistsException"}
            self._streams[group] = set()
        elif request.operation == "PutRetentionPolicy":
            self.retention[group] = request.body["retentionInDays"]
        elif group not in self._streams:
            return 400, {"__type": "ResourceNotFoundException", "message": "The specified log group does not exist."}
        elif request.operation == "CreateLogStream":
            self._streams[group].add(stream)
        elif stream not in self._streams[group]:
            return 400, {"__type": "ResourceNotFoundException", "message": "The specified log stream does not exist."}
        elif problem := _problem(request.body["logEvents"]):
            return 400, {"__type": "InvalidParameterException", "message": problem}
        else:
            kept, answer = self._aged(request.body["logEvents"])
            self.events += [Event(group, stream, event["timestamp"], event["message"]) for event in kept]
            return 200, answer
        return 200, {}

    def _aged(self, events: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The events that are neither too old nor too new, and the answer that tells of the others."""
        now = time.time() * 1000
        expired = sum(event["timestamp"] < now - self.keeps_ms for event in events) if self.keeps_ms else 0
        if expired:
            return events[expired:], {"rejectedLogEventsInfo": {"expiredLogEventEndIndex": expired}}
        first = sum(event["timestamp"] < now - 14 * DAY_MS for event in events)
        last = sum(event["timestamp"] <= now + 7_200_000 for event in events)
        if not self.enforce_age or (first, last) == (0, len(events)):
            return events, {}
        info = {"tooOldLogEventEndIndex": first} if first else {}
        info |= {"tooNewLogEventStartIndex": last} if last < len(events) else {}
        return events[first:last], {"rejectedLogEventsInfo": info}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                data = self.rfile.read(size)
                if len(data) < size:
                    raise ConnectionResetError("the shipper was killed in the middle of a request")
                body = json.loads(data)
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.answer(Request(operation, body, headers))
                if answer is None:
                    self.close_connection = True
                    return
                html = receiver.answers_html and answer[0] == 200 and "__type" in answer[1]
                text = b"<html>Log in</html>" if html else json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


def _problem(events: list[dict[str, Any]]) -> str:
    """What AWS would refuse a batch for."""
    times = [event["timestamp"] for event in events]
    sizes = [len(event["message"].encode()) for event in events]
    if not 1 <= len(events) <= 10_000:
        return f"{len(events)} events"
    if min(sizes) < 1 or max(sizes) + 26 > 1_000_000:
        return f"a message of {min(sizes)} or {max(sizes)} bytes"
    if sum(sizes) + 26 * len(events) > 1_048_576:
        return f"a batch of {sum(sizes) + 26 * len(events)} bytes"
    if times != sorted(times):
        return "not chronological"
    if times[-1] - times[0] > DAY_MS:
        return "more than 24 h"
    return ""
