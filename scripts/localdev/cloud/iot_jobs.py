"""AWS IoT Jobs beside moto: moto keeps jobs, this gives them executions, a rollout and the devices' MQTT API.

CreateJob is checked as AWS checks it (moto takes anything), thing groups are expanded, executions are rolled out at
the job's rate, timed out, and aborted at its thresholds. Devices talk to it on `$aws/things/<thing>/jobs/...`. Not
here: schedules, retries, things that leave the target of a continuous job, job templates, `iot-jobs-data` over HTTP.

https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
"""

import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import unquote

import paho.mqtt.client as mqtt
from moto.core.utils import utcnow
from moto.iot.models import FakeJobExecution, iot_backends
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud.aws import ACCOUNT, REGION, LocalAws, Request, Response
from localdev.cloud.iot_jobs_model import ENDED, OPEN, Execution, Job
from localdev.cloud.iot_jobs_rules import DEFAULT_EXPIRY_S, refusal
from localdev.mqtt_end import let_go

log = logging.getLogger(__name__)

REPORTED = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED")  # what a device may say
TOPICS = ("start-next", "get", "+/get", "+/update")
TICK_S = 0.05
CONNECT_TIMEOUT_S = 10.0
PLACEHOLDER = re.compile(
    r"\$\{aws:iot:s3-presigned-url(?:-v2)?:https://(?:([a-z0-9.-]+)\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
    r"/([^}]+)\}"
)
_TOPIC = re.compile(r"\$aws/things/([^/]+)/jobs/(?:([^/]+)/)?(start-next|get|update)")


class IotJobs:
    """`with IotJobs(aws, host, port):`. `minute_s` is how long a minute of rollouts and timeouts lasts."""

    def __init__(self, aws: LocalAws, host: str, port: int, *, minute_s: float = 60.0) -> None:
        self._aws, self._address, self._minute_s = aws, (host, port), minute_s
        self._jobs: dict[str, Job] = {}
        self._names: set[str] = set()  # of jobs that exist or are just being made
        self._queued = 0
        self._offered: dict[str, str] = {}  # thing -> job that notify-next named last
        self._lock = threading.RLock()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._s3 = self._aws.client("s3")
        self._backend = iot_backends[ACCOUNT][REGION]
        self._aws.stand_ins.append(self.check)
        self._aws.observers.append(self.observe)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1000)
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe([(f"$aws/things/+/jobs/{t}", 1) for t in TOPICS])
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._message
        self._client.connect(*self._address)
        self._client.loop_start()
        if not subscribed.wait(CONNECT_TIMEOUT_S):
            raise TimeoutError(f"no MQTT broker answers at {self._address}")
        self._thread = threading.Thread(target=self._tick_for_ever, name="iot-jobs", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5)
        let_go(self._client)
        self._aws.stand_ins.remove(self.check)
        self._aws.observers.remove(self.observe)

    # --- the HTTP API ---

    def check(self, request: Request) -> Response | None:
        """Stands in for CreateJob where AWS would refuse it, and for ListJobs with filters, which moto passes over."""
        if (
            request.service == "iot"
            and (request.method, request.path) == ("GET", "/jobs")
            and "status" in request.query
        ):
            with self._lock:
                return self._listed(request.query)
        if request.service == "iot" and request.method == "PUT" and re.fullmatch(r"/jobs/[^/]*", request.path):
            job_id = request.path.removeprefix("/jobs/")
            with self._lock:
                taken = job_id in self._names
                refused = refusal(job_id, json.loads(request.body or b"{}"), taken, self._known_target)
                if refused is None:
                    self._names.add(job_id)
                return refused
        return None

    def _listed(self, query: dict[str, str]) -> Response:
        found, group = [], query.get("thingGroupName")
        for job in self._jobs.values():
            if self._status(job) != query["status"]:
                continue
            record, selection = self._backend.jobs[job.job_id], job.request.get("targetSelection", "SNAPSHOT")
            made = record.created_at.timestamp()
            summary = {"jobId": job.job_id, "status": record.status, "targetSelection": selection}
            aimed = group is None or any(arn.endswith(f":thinggroup/{group}") for arn in job.request["targets"])
            if aimed and all(query.get(key, value) == value for key, value in summary.items()):
                found.append({**summary, "createdAt": made, "lastUpdatedAt": made})
        newest = sorted(found, key=lambda each: -each["createdAt"])[: int(query.get("maxResults", 250))]
        return Response(json.dumps({"jobs": newest}).encode(), 200, {"Content-Type": "application/json"})

    def observe(self, request: Request, response: Response) -> None:
        if request.service != "iot":
            return
        parts = request.path.strip("/").split("/")
        with self._lock:
            if request.method == "PUT" and parts[0] == "jobs" and len(parts) == 2:
                self._created(parts[1], json.loads(request.body))
            elif request.method == "PUT" and parts[0] == "jobs" and parts[2:] == ["cancel"]:
                self._cancel(self._jobs[parts[1]], force=request.query.get("force") == "true")
            elif request.method == "DELETE" and parts[0] == "jobs" and len(parts) == 2:
                self._jobs.pop(parts[1], None)
                self._names.discard(parts[1])

    def _status(self, job: Job) -> str:
        known = self._backend.jobs.get(job.job_id)  # absent: deleted, or not entered yet
        return known.status if known else ""

    def _known_target(self, arn: str) -> bool:
        kind, _, name = arn.rpartition(":")[2].partition("/")
        if kind == "thing":
            return any(thing.thing_name == name for thing in self._backend.things.values())
        return any(group.thing_group_name == name for group in self._backend.thing_groups.values())

    def _created(self, job_id: str, request: dict[str, Any]) -> None:
        for arn in request["targets"]:  # moto takes a group for a thing
            self._backend.job_executions.pop((job_id, arn.rpartition("/")[2]), None)
        things = dict.fromkeys(thing for arn in request["targets"] for thing in self._expanded(arn))
        self._jobs[job_id] = Job(job_id, request, deque(things))
        self._backend.jobs[job_id].status = "IN_PROGRESS"
        self._refresh(self._jobs[job_id])

    def _expanded(self, arn: str) -> Iterator[str]:
        """The things of a target; those of a group's subgroups belong to it."""
        kind, _, name = arn.rpartition(":")[2].partition("/")
        if kind == "thing":
            yield name
            return
        for group in self._backend.thing_groups.values():
            if group.thing_group_name == name:
                yield from (thing.thing_name for thing in group.things.values())
            elif group.parent_group_name == name:
                yield from self._expanded(group.arn)

    def _cancel(self, job: Job, *, force: bool) -> None:
        job.waiting.clear()
        for execution in job.executions.values():
            if execution.status == "QUEUED" or (force and execution.status == "IN_PROGRESS"):
                execution.change("CANCELED")
        self._backend.jobs[job.job_id].status = "CANCELED"
        self._refresh(job)

    # --- time ---

    def _tick_for_ever(self) -> None:
        last = time.monotonic()
        while not self._stopping.wait(TICK_S):
            now = time.monotonic()
            with self._lock:
                for job in list(self._jobs.values()):
                    if job.settled and self._status(job) != "IN_PROGRESS":
                        continue
                    self._join(job)
                    self._roll_out(job, (now - last) / self._minute_s)
                    self._time_out(job, now)
            last = now

    def _join(self, job: Job) -> None:
        """Things that came into a target of a continuous job since."""
        if job.continuous and self._status(job) == "IN_PROGRESS":
            things = dict.fromkeys(thing for arn in job.request["targets"] for thing in self._expanded(arn))
            job.waiting.extend(thing for thing in things if thing not in job.executions and thing not in job.waiting)

    def _roll_out(self, job: Job, minutes: float) -> None:
        if not job.waiting:
            return
        job.credit = min(job.credit + job.rate() * minutes, float(len(job.waiting)))
        while job.credit >= 1 or not job.executions:
            job.credit = max(0.0, job.credit - 1)
            thing = job.waiting.popleft()
            record = FakeJobExecution(job.job_id, f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{thing}")
            record.execution_number, record.version_number = 1, 1
            self._backend.job_executions[(job.job_id, thing)] = record
            self._queued += 1
            job.executions[thing] = Execution(job, thing, record, self._queued)
        self._refresh(job)

    def _time_out(self, job: Job, now: float) -> None:
        minutes = (job.request.get("timeoutConfig") or {}).get("inProgressTimeoutInMinutes")
        late = [
            execution
            for execution in job.executions.values()
            if minutes and execution.status == "IN_PROGRESS" and now - execution.started > minutes * self._minute_s
        ]
        for execution in late:
            execution.change("TIMED_OUT")
        if late:
            self._ended(job)

    def _ended(self, job: Job) -> None:
        """After one of the job's executions has ended."""
        if job.must_abort():
            self._cancel(job, force=False)
        else:
            self._refresh(job)

    def _refresh(self, job: Job) -> None:
        """Make moto show the counts, and tell things whose next job has become another one."""
        record, counts = self._backend.jobs[job.job_id], job.counts()
        names = {"QUEUED": "Queued", "IN_PROGRESS": "InProgress", "TIMED_OUT": "TimedOut"}
        for status in (*OPEN, *ENDED):
            record.job_process_details[f"numberOf{names.get(status, status.title())}Things"] = counts[status]
        if record.status == "IN_PROGRESS" and job.ended:
            record.status, record.completed_at = "COMPLETED", utcnow()  # type: ignore[assignment]
        for thing in job.executions:
            self._notify(thing)

    def _notify(self, thing: str) -> None:
        upcoming = self._next(thing)
        name = upcoming.job.job_id if upcoming else ""
        if self._offered.get(thing, "") == name:
            return
        self._offered[thing] = name
        body = {"execution": self._described(upcoming)} if upcoming else {}
        self._publish(f"$aws/things/{thing}/jobs/notify-next", body)

    # --- the MQTT API ---

    def _message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        found = _TOPIC.fullmatch(message.topic)
        if found is None:
            return
        thing, job_id, request = found[1], found[2] or "", found[3]
        try:
            body = json.loads(message.payload or b"{}")
        except ValueError:
            self._publish(f"{message.topic}/rejected", {"code": "InvalidJson", "message": "not JSON"})
            return
        token = {"clientToken": body["clientToken"]} if "clientToken" in body else {}
        answers: dict[str, Callable[[str, str, dict[str, Any]], dict[str, Any]]] = {
            "start-next": self._start_next,
            "get": self._get if job_id else self._list,
            "update": self._update,
        }
        try:
            with self._lock:
                answer = answers[request](thing, job_id, body)
        except Rejected as rejected:
            problem = {"code": rejected.code, "message": str(rejected), **rejected.state}
            self._publish(f"{message.topic}/rejected", {**problem, **token})
        else:
            self._publish(f"{message.topic}/accepted", {**answer, **token})

    def _start_next(self, thing: str, job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        upcoming = self._next(thing)
        if upcoming is None:
            return {}
        if upcoming.status == "QUEUED":
            upcoming.change("IN_PROGRESS", body.get("statusDetails"))
            self._refresh(upcoming.job)
        return {"execution": self._described(upcoming)}

    def _get(self, thing: str, job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        if job_id == "$next":
            upcoming = self._next(thing)
            return {"execution": self._described(upcoming)} if upcoming else {}
        return {"execution": self._described(self._find(thing, job_id), body.get("includeJobDocument", True))}

    def _list(self, thing: str, job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        lists = {"inProgressJobs": "IN_PROGRESS", "queuedJobs": "QUEUED"}
        mine = [e for e in self._of(thing) if e.status in OPEN]
        return {name: [self._described(e, False) for e in mine if e.status == status] for name, status in lists.items()}

    def _update(self, thing: str, job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        execution = self._find(thing, job_id)
        status = body.get("status")
        if status not in REPORTED:
            raise Rejected("InvalidRequest", f"status {status!r} is not one of {', '.join(REPORTED)}")
        for key, value in (body.get("statusDetails") or {}).items():
            if (
                not re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", key)
                or not str(value).isprintable()
                or not 0 < len(value) <= 1024
            ):
                raise Rejected("InvalidRequest", f"statusDetails: {key}")
        if execution.status in ENDED:
            raise Rejected("InvalidStateTransition", f"the execution is {execution.status}", _state(execution))
        if body.get("expectedVersion") not in (None, execution.version):
            raise Rejected("VersionMismatch", f"the version is {execution.version}", _state(execution))
        if body.get("executionNumber") not in (None, execution.record.execution_number):
            raise Rejected("ResourceNotFound", f"no execution {body['executionNumber']}")
        execution.change(status, body.get("statusDetails"))
        if status in ENDED:
            self._ended(execution.job)
        else:
            self._refresh(execution.job)
        return _state(execution) if body.get("includeJobExecutionState") else {}

    def _of(self, thing: str) -> list[Execution]:
        return [job.executions[thing] for job in self._jobs.values() if thing in job.executions]

    def _find(self, thing: str, job_id: str) -> Execution:
        try:
            return self._jobs[job_id].executions[thing]
        except KeyError:
            raise Rejected("ResourceNotFound", f"no execution of {job_id} for {thing}") from None

    def _next(self, thing: str) -> Execution | None:
        """In progress before queued, then the order in which they were queued."""
        mine = [execution for execution in self._of(thing) if execution.status in OPEN]
        return min(mine, key=lambda execution: (execution.status == "QUEUED", execution.number), default=None)

    def _described(self, execution: Execution, document: bool = True) -> dict[str, Any]:
        described = {
            "jobId": execution.job.job_id,
            "thingName": execution.thing,
            "status": execution.status,
            "statusDetails": execution.details,
            "queuedAt": int(execution.queued_at),
            "lastUpdatedAt": int(execution.updated_at),
            "versionNumber": execution.version,
            "executionNumber": execution.record.execution_number,
        }
        if execution.started_at:
            described["startedAt"] = int(execution.started_at)
        if document:
            described["jobDocument"] = self._document(execution.job)
        return described

    def _document(self, job: Job) -> Any:
        """The document with presigned URLs, made at the moment a device asks."""
        expires = job.request.get("presignedUrlConfig", {}).get("expiresInSec", DEFAULT_EXPIRY_S)

        def url(found: re.Match[str]) -> str:
            bucket, key = (found[1], found[2]) if found[1] else found[2].split("/", 1)
            where = {"Bucket": bucket, "Key": unquote(key)}
            return json.dumps(self._s3.generate_presigned_url("get_object", Params=where, ExpiresIn=expires))[1:-1]

        return json.loads(PLACEHOLDER.sub(url, job.request["document"]))

    def _publish(self, topic: str, body: dict[str, Any]) -> None:
        self._client.publish(topic, json.dumps({"timestamp": int(time.time()), **body}), qos=1)


class Rejected(Exception):  # noqa: N818  (the API's own word)
    def __init__(self, code: str, message: str, state: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.state = code, state or {}


def _state(execution: Execution) -> dict[str, Any]:
    state = {"status": execution.status, "statusDetails": execution.details, "versionNumber": execution.version}
    return {"executionState": state}
