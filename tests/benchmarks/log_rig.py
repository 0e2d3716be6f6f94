"""The real LogShipper process on a folder of logs, and a CloudWatch Logs of our own that is strict and can fail."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from support import eventually

DAY_MS = 86_400_000


class Shipper:
    """One LogShipper in --standalone mode. `logs` is its logs folder; `start` may be called again after `kill`."""

    def __init__(self, folder: Path, config: dict[str, Any], **environment: str) -> None:
        self.logs = folder / "logs"
        self.work = folder / "work" / "edgeml.LogShipper"
        self.logs.mkdir(parents=True)
        self.work.mkdir(parents=True)
        self.config = folder / "config.json"
        self.output = folder / "output"
        self.configure(config)
        self.environment = {
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_IOT_THING_NAME": "thing-1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, config: dict[str, Any]) -> None:
        self.config.write_text(
            json.dumps({"region": "eu-west-1", "periodicUploadIntervalSec": 0.05, "maxRetryDelaySec": 0.2, **config})
        )

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "log_shipper", "--standalone", "--config", str(self.config)]
        command += ["--work", str(self.work)]
        self.process = subprocess.Popen(
            command,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,))
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout, self.output.open("ab", buffering=0) as output:
            for line in process.stdout:
                output.write(line)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as the core does; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=10)
        finally:
            process.kill()
            self._reader.join()
            if process.stdin is not None:
                process.stdin.close()

    def send(self, topic: str, payload: dict[str, Any]) -> None:
        """A message on a local topic."""
        assert self.process is not None
        assert self.process.stdin is not None
        line = json.dumps({"channel": "local", "topic": topic, "payload": payload})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """All whole lines it has printed, over all starts."""
        return self.output.read_text().rpartition("\n")[0] if self.output.exists() else ""

    def published(self, channel: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith('{"channel"')]
        return [line for line in lines if line["channel"] == channel]

    def memory_mb(self, field: str = "VmRSS") -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_file_size(self, size: int) -> None:
        """Writes beyond `size` bytes into a file fail from now on: a full disk, as far as a process can tell."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def shipper(folder: Path, config: dict[str, Any], **environment: str) -> Iterator[Shipper]:
    """A LogShipper that is started, and stopped after the block."""
    made = Shipper(folder, config, **environment)
    made.start()
    try:
        yield made
    finally:
        made.stop()


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
