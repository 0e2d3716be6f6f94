"""What the Monitor knows of its device: STATE of /api/state. Bounded, for anybody may publish on the core."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from edgeml import messages
from edgeml.json_limits import too_deep
from edgeml.messages import CameraMotion, CameraReply, Event, HealthReport, InferenceResult, ModelStatus, Problem
from monitor import views
from monitor.kept import Kept
from monitor.neighbours import Neighbours
from monitor.reports import Attention, Reports
from monitor.views import CameraState, DeviceState, PipelineState
from monitor.vitals.check import Vital

MAX_MESSAGE_BYTES, MAX_DEPTH = 16384, 16
MAX_RECORD_BYTES = 128 << 10  # of a result of an Edge Impulse model, which may hold its picture
RESULTS, EVENTS, RECORDS = 60, 50, 100  # messages kept of each pipeline, port, device
MOTION_S = 86400.0  # a motion that goes on is told once, at its beginning

DeviceKind = Literal["serial", "edge_impulse"]
What = Literal["said", "command", "answer"]
Heard = Callable[[str, str, Any, bytes], None]  # kind, name, what it says, the message for a page


class Record(msgspec.Struct, frozen=True):
    """What SerialScraper publishes of a port."""

    port: str
    at: float
    format: str
    record: Any


class _Told(msgspec.Struct, frozen=True):
    """A message to pages with a pipeline's result."""

    result: InferenceResult


class State:
    """What was heard, by name; thread-safe.

    `own` are the Monitor's problems, `vitals` the device's values; `clock` is monotonic.
    """

    def __init__(
        self,
        thing: str,
        version: str,
        own: Callable[[], Sequence[Problem]],
        clock: Callable[[], float] = time.monotonic,
        vitals: Callable[[], dict[str, Vital]] = dict,
    ) -> None:
        self._thing, self._version, self._clock, self._vitals = thing, version, clock, vitals
        self.auth = "password"
        self.has_request_dirs = False
        self.neighbours = Neighbours()
        self.records_wanted = 0  # by so many pages
        self.asked = threading.Event()  # set when that has changed
        self._lock = threading.Lock()
        self._reports = Reports(own, clock)
        self._results: Kept[InferenceResult] = Kept(RESULTS, clock)
        self._events: Kept[Event] = Kept(EVENTS, clock)
        self._models: Kept[ModelStatus] = Kept(0, clock, forgotten_s=math.inf)
        self._serial: Kept[Record] = Kept(RECORDS, clock)
        self._motion: Kept[CameraMotion] = Kept(0, clock, forgotten_s=MOTION_S)
        self._edge_impulse: Kept[None] = Kept(RECORDS, clock)
        self._commands: Kept[None] = Kept(RECORDS, clock)  # of ports that are Edge Impulse devices, and answers
        self._listeners: list[Heard] = []

    def topics(self) -> dict[str, Callable[[str, bytes], bool]]:
        """The local topics to hear, each with who takes its messages and says whether they were any."""
        return {
            messages.health("+"): self.heard,
            messages.inference("+"): self.result,
            messages.event("+"): self.event,
            messages.model_status("+"): self.model,
            messages.serial_record("+"): self.serial,
            messages.camera_reply("+"): self.reply,
            messages.camera_motion("+"): self.motion,
        }

    def listen(self, heard: Heard) -> None:
        """Have `heard` told of each result, event and record, on the thread that brought it."""
        with self._lock:
            self._listeners = [*self._listeners, heard]

    def unlisten(self, heard: Heard) -> None:
        with self._lock:
            self._listeners = [known for known in self._listeners if known != heard]

    def heard(self, topic: str, payload: bytes) -> bool:
        """Take a component's report; whether it was one."""
        with self._lock:
            return self._reports.take(topic.rpartition("/")[2], payload)

    def result(self, topic: str, payload: bytes) -> bool:
        """Take a pipeline's result; whether it was one."""
        name = topic.rpartition("/")[2]
        result = _decoded(payload, InferenceResult)
        if result is None:
            return False
        message = _message(type="result", pipeline=name, result=result)
        with self._lock:
            taken = self._results.put(name, result, message)
        return taken and self._tell("result", name, result, message)

    def event(self, topic: str, payload: bytes) -> bool:
        """Take what happened to a pipeline's objects; whether it was an event."""
        name = topic.rpartition("/")[2]
        event = _decoded(payload, Event)
        if event is None:
            return False
        message = _message(type="event", pipeline=name, event=event)
        with self._lock:
            taken = self._events.put(name, event, message)
        return taken and self._tell("event", name, event, message)

    def model(self, topic: str, payload: bytes) -> bool:
        """Take what a model's user says of a version; whether it was that."""
        status = _decoded(payload, ModelStatus)
        with self._lock:
            return status is not None and self._models.put(topic.split("/")[-2], status)

    def serial(self, topic: str, payload: bytes) -> bool:
        """Take a serial port's record; whether it was one."""
        name = topic.split("/")[-2]
        record = _decoded(payload, Record)
        if record is None or not math.isfinite(record.at):
            return False
        shown = {"at": record.at, **record.record} if isinstance(record.record, dict) else record.record
        message = _message(type="record", kind="serial", source=name, what="said", record=shown)
        with self._lock:
            taken = self._serial.put(name, record, message)
        return taken and self._tell("record", name, record, message)

    def reply(self, topic: str, payload: bytes) -> bool:
        """Take a camera's answer to a command, which is not kept; whether it was one."""
        reply, name = _decoded(payload, CameraReply), topic.split("/")[-2]
        return reply is not None and self._tell("reply", name, reply, _message(type="reply", camera=name, reply=reply))

    def motion(self, topic: str, payload: bytes) -> bool:
        """Take that motion before a camera begins or ends; whether it was that, of a camera that there is."""
        motion, name = _decoded(payload, CameraMotion), topic.split("/")[-2]
        if motion is None or not (math.isfinite(motion.at) and math.isfinite(motion.since)):
            return False
        if name not in self.neighbours.known().camera_names():  # others would be kept for a day
            return False
        with self._lock:
            return self._motion.put(name, motion)

    def edge_impulse(self, kind: DeviceKind, source: str, what: What, payload: bytes) -> bool:
        """Take what an Edge Impulse device said or was told; whether it was that. `source` is its name or its port."""
        record = _decoded(payload, dict[str, Any], MAX_RECORD_BYTES)
        if record is None:
            return False
        record.pop("image", None)  # as large as all the rest
        message = _message(type="record", kind=kind, source=source, what=what, record=record)
        if len(message) > MAX_MESSAGE_BYTES:
            return False
        with self._lock:
            taken = (self._commands if kind == "serial" else self._edge_impulse).put(source, None, message)
        return taken and self._tell("record", source, record, message)

    def followed(self, pipeline: str) -> list[bytes]:
        """The newest results and events of a pipeline as messages for a page, the oldest first."""
        with self._lock:
            return [*self._results.recent(pipeline), *self._events.recent(pipeline)]

    def requested(self, pipeline: str, at: float) -> str:
        """The file that the request named whose result was made `at`, of the newest ones; empty where there is none."""
        with self._lock:
            told = self._results.recent(pipeline)
        for message in reversed(told):
            with suppress(msgspec.ValidationError):  # a time that JSON has no number for
                source = msgspec.json.decode(message, type=_Told).result.source
                if source.captured_at == at:
                    return source.file
        return ""

    def shows_requested(self, pipeline: str) -> bool:
        """Whether pictures of its requests may be seen: not where it hides something, or nobody knows that yet."""
        return self.has_request_dirs and self.neighbours.known().complete and not self._hides(pipeline)

    def _hides(self, pipeline: str) -> bool:
        """Whether it hides something in pictures, by configuration or report."""
        configured = self.neighbours.known().pipelines.get(pipeline)
        with self._lock:
            report = self._reports.report("Inferencer")
        told = {each.pipeline for each in report.privacy} if report else set()
        return pipeline in told or (configured is not None and configured.private)

    def records(self) -> list[bytes]:
        """The newest records of all devices as messages for a page."""
        with self._lock:
            return [
                *self._serial.all_recent(),
                *self._commands.all_recent(),
                *self._edge_impulse.all_recent(),
            ]

    def want_records(self, pages: int) -> None:
        """So many pages more, or fewer, want the records of devices."""
        with self._lock:
            self.records_wanted += pages
        self.asked.set()

    def reports(self) -> dict[str, HealthReport]:
        """The last report of each component that is not silent, by its name without `edgeml.`."""
        with self._lock:
            return self._reports.reports()

    def attention(self) -> list[Attention]:
        """All problems, the oldest first, those of a component that says nothing any more as one."""
        with self._lock:
            return self._reports.attention()

    def cameras(self) -> list[CameraState]:
        """Cameras that CameraCapture has, and others whose ring is there."""
        with self._lock:
            report = self._reports.report("CameraCapture")
            motion = {name: kept.last for name, kept in self._motion}
        known = self.neighbours.known()
        may_act = self.auth != "off"  # else any local user could start and stop cameras
        return [
            views.camera(
                name, known, report, motion.get(name), private=self.private(name) != frozenset(), commands=may_act
            )
            for name in known.camera_names()
        ]

    def private(self, camera: str) -> frozenset[str] | None:
        """The pipelines that hide something in its pictures, by configuration or report; None: not yet known."""
        known = self.neighbours.known()
        with self._lock:
            report = self._reports.report("Inferencer")
        told = {each.pipeline for each in report.privacy if each.camera == camera} if report else set()
        return frozenset(known.private(camera) | told) if known.complete else None

    def pipelines(self) -> list[PipelineState]:
        with self._lock:
            report, heard = self._reports.report("Inferencer"), {name: kept.last for name, kept in self._results}
            times = {name: time.time() - (self._clock() - kept.at) for name, kept in self._results}
        known = self.neighbours.known()
        names = known.pipeline_names(heard)
        return [
            views.pipeline(
                name,
                known,
                report,
                heard.get(name),
                times.get(name, 0.0),
                private=self._hides(name),
                pictures=self.shows_requested(name),
            )
            for name in names
        ]

    def snapshot(self) -> DeviceState:
        """All of it, as JSON may say it."""
        cameras, pipelines, known = self.cameras(), self.pipelines(), self.neighbours.known()
        with self._lock:
            offset = time.time() - self._clock()
            return DeviceState(
                thing=self._thing,
                time=time.time(),
                version=self._version,
                auth=self.auth,
                attention=self._reports.attention(),
                vitals=self._vitals(),
                components=self._reports.components(),
                cameras=cameras,
                pipelines=pipelines,
                models=[views.model(name, kept.last, kept.at + offset) for name, kept in self._models],
                serial=views.serial(
                    {name: (kept.last.format, kept.count, kept.at + offset) for name, kept in self._serial}, known
                ),
                edge_impulse=views.edge_impulse(self._edge_impulse, known, offset),
            )

    def _tell(self, kind: str, name: str, told: Any, message: bytes) -> bool:
        for listener in self._listeners:
            listener(kind, name, told, message)
        return True


def _decoded(payload: bytes, kind: type[Any], most: int = MAX_MESSAGE_BYTES) -> Any:
    """A message of a kind; None for what is none, or is larger or deeper than any of ours."""
    if len(payload) > most or too_deep(payload, MAX_DEPTH):
        return None
    try:
        return messages.decode(payload, kind)
    except msgspec.MsgspecError:
        return None


def _message(**fields: Any) -> bytes:
    return messages.encode(fields)
