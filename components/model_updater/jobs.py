"""AWS IoT Jobs over the core's connection: the device half of the MQTT API.

https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
"""

import logging
import queue
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from edgeml import messages
from edgeml.ipc import Ipc
from edgeml.log import kv
from model_updater.errors import InvalidRequest, JobGone, JobsError

log = logging.getLogger(__name__)

REPLY_TIMEOUT_S = 15.0
UNANSWERED = 3  # requests in a row, after which the subscriptions may be the reason
REQUESTS = ("start-next", "+/get", "+/update")
MAX_DEPTH = 32  # of what the cloud sends; whatever somebody nested deeper is read as null
MAX_DETAIL = 1024  # characters of one value of statusDetails
GONE = ("InvalidStateTransition", "ResourceNotFound", "TerminalStateReached")  # cancelled, timed out, deleted, finished


class Execution(msgspec.Struct, frozen=True, rename="camel"):
    """One job on this thing. `execution_number` tells a repeated attempt at the same job from the first."""

    job_id: str
    status: str = "QUEUED"
    execution_number: int = 1
    job_document: Any = None


class Jobs:
    """Asks for jobs and reports on them. `on_change` is called when the next job may have become another one."""

    def __init__(self, ipc: Ipc, thing: str, on_change: Callable[[], None]) -> None:
        self._ipc, self._base, self._on_change = ipc, f"$aws/things/{thing}/jobs", on_change
        self._lock = threading.Lock()
        self._waiting: dict[str, queue.SimpleQueue[tuple[bool, dict[str, Any]]]] = {}
        self._subscribed: set[str] = set()
        self._unanswered = 0

    def _subscribe(self) -> None:
        """To what is not subscribed to yet. Raises IpcError; the Java nucleus waits for a connection to the cloud."""
        replies = [f"{request}/{verdict}" for request in REQUESTS for verdict in ("accepted", "rejected")]
        for topic, handler in [*((reply, self._replied) for reply in replies), ("notify-next", self._notified)]:
            if topic not in self._subscribed:
                self._ipc.subscribe_iot(f"{self._base}/{topic}", handler)
                self._subscribed.add(topic)

    def start_next(self) -> Execution | None:
        """The job in progress, or else the oldest queued one, now in progress. Raises JobsError, IpcError."""
        return self._execution(self._ask("start-next", {}))

    def get(self, job_id: str) -> Execution:
        """The job with a fresh presigned URL. Raises JobsError, IpcError."""
        execution = self._execution(self._ask(f"{job_id}/get", {"includeJobDocument": True}))
        if execution is None:
            raise JobGone(f"job {job_id}: the cloud sent no execution")
        return execution

    def update(self, execution: Execution, status: str, details: dict[str, str]) -> None:
        """Report. Raises JobGone when the job is no longer ours, JobsError or IpcError when there was no answer."""
        request = f"{execution.job_id}/update"
        body = {"status": status, "executionNumber": execution.execution_number}
        try:
            self._ask(request, {**body, "statusDetails": {key: _detail(value) for key, value in details.items()}})
        except InvalidRequest as error:  # a report that is refused for its text must not hold up all further jobs
            log.error("reporting without details %s", kv(job=execution.job_id, error=error, **details))
            self._ask(request, body)

    def close(self) -> None:
        """Whoever waits for an answer gets a JobsError now."""
        with self._lock:
            for reply in self._waiting.values():
                reply.put((False, {"code": "Stopping"}))

    def _execution(self, reply: dict[str, Any]) -> Execution | None:
        if not reply.get("execution"):
            return None
        try:
            return msgspec.convert(reply["execution"], Execution, strict=False)
        except msgspec.ValidationError as error:
            raise JobsError(f"job execution not understood: {error}") from error

    def _ask(self, request: str, body: dict[str, Any]) -> dict[str, Any]:
        self._subscribe()
        token, reply = secrets.token_hex(8), queue.SimpleQueue[tuple[bool, dict[str, Any]]]()
        with self._lock:
            self._waiting[token] = reply
        try:
            # At most once: what is not answered is asked again, and must not pile up in the core while it is offline.
            self._ipc.publish_iot(f"{self._base}/{request}", messages.encode({**body, "clientToken": token}), qos=0)
            accepted, answer = reply.get(timeout=REPLY_TIMEOUT_S)
            self._unanswered = 0
        except queue.Empty:
            self._unanswered += 1
            if self._unanswered % UNANSWERED == 0:  # Nucleus Lite loses subscriptions and tells nobody
                self._subscribed.clear()
            raise JobsError(f"AWS IoT Jobs: no answer to {request} in {REPLY_TIMEOUT_S:g} s") from None
        finally:
            with self._lock:
                del self._waiting[token]
        if accepted:
            return answer
        code = answer.get("code")
        kind = JobGone if code in GONE else InvalidRequest if code == "InvalidRequest" else JobsError
        raise kind(f"AWS IoT Jobs refused {request}: {code}, {answer.get('message', '')}")

    def _notified(self, topic: str, payload: bytes) -> None:
        self._on_change()

    def _replied(self, topic: str, payload: bytes) -> None:
        try:
            answer = messages.decode(shallow(payload, MAX_DEPTH), dict[str, Any])
        except msgspec.MsgspecError as error:
            log.warning("reply not understood %s", kv(topic=topic, error=error))
            return
        with self._lock:
            reply = self._waiting.get(str(answer.get("clientToken")))
        if reply is not None:  # otherwise it came too late, or is the answer to another client of this thing
            reply.put((topic.endswith("/accepted"), answer))


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def shallow(data: bytes, depth: int) -> bytes:
    """The JSON `data` with null for what is nested deeper than `depth`: decoders end on deep ones with an error.

    A job whose document cannot be decoded could not be refused either, and would hold up all others.
    """
    pieces, level, kept = [], 0, 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            level += 1
            if level == depth + 1:
                pieces += [data[kept : token.start()], b"null"]
        elif token[0] in (b"}", b"]"):
            level -= 1
            if level == depth:
                kept = token.end()
    return b"".join([*pieces, data[kept:]]) if level <= depth else data


def _detail(value: str) -> str:
    """What the API takes as a value: some characters, none of Unicode's class "other" in whichever Unicode it knows."""
    text = "".join(character if character.isprintable() else " " for character in value).strip()
    return text.encode("ascii", "backslashreplace").decode()[:MAX_DETAIL] or "-"
