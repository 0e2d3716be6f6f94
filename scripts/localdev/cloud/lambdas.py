"""Lambda: every function of a stack in processes of its own, invoked at once or through a queue with retries."""

import contextlib
import json
import logging
import os
import queue
import select
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localdev.cloud import iam
from localdev.cloud.aws import ACCOUNT, REGION, LocalAws
from localdev.cloud.template import Resource, Stack

log = logging.getLogger(__name__)

popen = subprocess.Popen  # what starts a process of a function
WORKER = Path(__file__).with_name("worker.py")
QUEUE_LIMIT = 100_000
STOP_TIMEOUT_S = 5.0


class FunctionError(Exception):
    """A handler raised, timed out or its process died. `payload` is what Lambda reports of it."""

    def __init__(self, payload: dict[str, Any]) -> None:
        super().__init__(f"{payload['errorType']}: {payload['errorMessage']}")
        self.payload = payload


@dataclass(frozen=True)
class Setting:
    """What a worker process is started with, from the template."""

    name: str
    arn: str
    folder: str
    handler: str
    memory: int
    timeout_s: float
    environment: dict[str, str]
    statements: list[dict[str, Any]]
    attempts: int
    on_failure: str  # ARN of an SQS queue, or ""


def setting(stack: Stack, function: Resource) -> Setting:
    p = function.properties
    invoke = [
        r.properties
        for r in stack.of_type("AWS::Lambda::EventInvokeConfig")
        if r.properties["FunctionName"] == function.name
    ]
    asynchronous = invoke[0] if invoke else {}
    return Setting(
        name=function.name,
        arn=function.arn,
        folder=str(stack.folder / p["Code"]["S3Key"]),
        handler=p["Handler"],
        memory=int(p.get("MemorySize", 128)),
        timeout_s=float(p.get("Timeout", 3)),
        environment={name: str(value) for name, value in p.get("Environment", {}).get("Variables", {}).items()},
        statements=stack.statements(p["Role"]),
        attempts=1 + int(asynchronous.get("MaximumRetryAttempts", 2)),
        on_failure=asynchronous.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", ""),
    )


class Worker:
    """One process, one invocation at a time; started on first use and again after it died."""

    def __init__(self, setting: Setting, environment: dict[str, str], on_line: Callable[[str], None]) -> None:
        self._setting = setting
        self._environment = environment
        self._on_line = on_line
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.asked: set[iam.Need] = set()

    @property
    def pid(self) -> int | None:
        """Its process, None before the first use."""
        return self._process.pid if self._process else None

    def invoke(self, event: Any, request_id: str) -> Any:
        """The handler's answer. Raises FunctionError."""
        with self._lock:
            line = self._ask(json.dumps({"id": request_id, "event": event}) + "\n")
            if not line:
                self._clean_up()
        if line is None:
            seconds = f"{self._setting.timeout_s:.2f}"
            raise FunctionError(
                {"errorType": "Sandbox.Timedout", "errorMessage": f"Task timed out after {seconds} seconds"}
            )
        if not line:
            raise FunctionError({"errorType": "Runtime.ExitError", "errorMessage": "the process ended"})
        answer = json.loads(line)
        self.asked |= {(action, resource) for action, resource in answer["asked"]}
        if "error" in answer:
            raise FunctionError(answer["error"])
        return answer["result"]

    def stop(self) -> None:
        """May be called while another thread is in `invoke`, which then fails."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._clean_up()

    def _ask(self, call: str) -> str | None:
        """The answer's line, "" when the process ended, None when it took too long."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  (both are pipes)
        try:
            process.stdin.write(call)
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([process.stdout], [], [], self._setting.timeout_s)
        return process.stdout.readline() if ready else None

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what it did not read is lost with it
                    pipe.close()

    def _start(self) -> subprocess.Popen[str]:
        s = self._setting
        process = popen(
            [sys.executable, "-I", "-S", "-B", str(WORKER), sysconfig.get_path("purelib")],
            env={
                "PATH": os.environ["PATH"],
                **self._environment,
                **s.environment,
                "AWS_LAMBDA_FUNCTION_NAME": s.name,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(s.memory),
                "AWS_LAMBDA_LOG_FORMAT": "JSON",
                "LAMBDA_TASK_ROOT": s.folder,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever started us, who then calls stop()
        )
        self._process = process
        self._reader = threading.Thread(target=self._read, args=[process], name=f"log-{s.name}", daemon=True)
        self._reader.start()
        first: dict[str, Any] = {"statements": s.statements, "region": REGION, "account": ACCOUNT, "arn": s.arn}
        first |= {
            "handler": s.handler,
            "folder": s.folder,
            "name": s.name,
            "memory": s.memory,
            "timeout_s": s.timeout_s,
        }
        assert process.stdin is not None  # noqa: S101  (a pipe)
        process.stdin.write(json.dumps(first) + "\n")
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # noqa: S101  (a pipe)
        for line in process.stderr:
            self._on_line(line)


class Function:
    """A function with `concurrency` workers: `invoke` waits for the answer, `send` queues an event."""

    def __init__(self, setting: Setting, aws: LocalAws, log_file: Path, concurrency: int, retry_delay_s: float) -> None:
        self.setting = setting
        self.log_file = log_file
        self.on_metrics: Callable[[dict[str, Any]], None] | None = None
        self._aws = aws
        self._retry_delay_s = retry_delay_s
        self._events: queue.Queue[Any] = queue.Queue(QUEUE_LIMIT)
        self._stopping = threading.Event()
        self._workers = [Worker(setting, aws.environment(), self._line) for _ in range(concurrency)]
        self._idle: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = [
            threading.Thread(target=self._consume, name=f"lambda-{setting.name}", daemon=True)
            for _ in range(concurrency)
        ]
        for thread in self._threads:
            thread.start()

    def invoke(self, event: Any) -> Any:
        """The handler's answer to one event. Raises FunctionError."""
        worker = self._idle.get(timeout=self.setting.timeout_s + 30)
        try:
            return worker.invoke(event, str(uuid.uuid4()))
        finally:
            self._idle.put(worker)

    def send(self, event: Any) -> None:
        """Asynchronous invocation: tried again when it fails, in the end handed to the on-failure destination."""
        self._events.put_nowait(event)

    @property
    def pending(self) -> int:
        """Events sent and not yet done with."""
        return self._events.unfinished_tasks

    @property
    def pids(self) -> list[int]:
        """Its workers' processes, as far as there are any."""
        return [worker.pid for worker in self._workers if worker.pid]

    @property
    def asked(self) -> set[iam.Need]:
        """Actions and resources that the handler has asked for, granted or not."""
        return set().union(*(worker.asked for worker in self._workers))

    def stop(self) -> None:
        self._stopping.set()
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._events.put_nowait(self._stopping)
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _consume(self) -> None:
        while (event := self._events.get()) is not self._stopping and not self._stopping.is_set():
            try:
                self._try(event)
            finally:
                self._events.task_done()

    def _try(self, event: Any) -> None:
        for attempt in range(1, self.setting.attempts + 1):
            try:
                self.invoke(event)
                return
            except FunctionError as error:
                if self._stopping.is_set():
                    return
                log.warning("%s failed, attempt %d: %s", self.setting.name, attempt, error)
                if attempt == self.setting.attempts:
                    self._give_up(event, error, attempt)
                elif self._stopping.wait(self._retry_delay_s):
                    return

    def _give_up(self, event: Any, error: FunctionError, attempts: int) -> None:
        destination = self.setting.on_failure
        if not destination or not iam.allowed(self.setting.statements, ("sqs:SendMessage", destination), {}):
            log.error("%s gave an event up, it is lost: %s", self.setting.name, error)
            return
        record = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestContext": {
                "requestId": str(uuid.uuid4()),
                "functionArn": f"{self.setting.arn}:$LATEST",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": attempts,
            },
            "requestPayload": event,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": error.payload,
        }
        name = destination.rpartition(":")[2]
        sqs = self._aws.client("sqs")
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=json.dumps(record))

    def _line(self, line: str) -> None:
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line)
        if line.startswith('{"_aws"') and self.on_metrics is not None:
            self.on_metrics(json.loads(line))
