"""Who asks through AWS IoT Core how the device does is answered: with its state, and pictures where that is allowed.

Whoever may publish to `edgeml/device/<thing>/look` may ask. Requests are bounded in size and rate, and none is answered
twice; what is refused for that gets no answer. An answer is small, more lies in S3 for a day.
"""

import functools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml import messages, ring_look, s3
from edgeml.clock import CLOCK, Clock
from edgeml.component import Context
from edgeml.errors import EdgemlError, RefusedError
from edgeml.ipc import Subscription
from edgeml.log import kv
from monitor import report
from monitor.attempts import Bucket
from monitor.config import Config
from monitor.pictures import WIDTHS, Picture, Pictures
from monitor.state import State

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES, MAX_ANSWER_BYTES = 512, 4000
AGE_S = 300.0  # of a request, by a clock that is set
BURST, EACH_S = 3, 5.0  # requests at once, and one more after so many seconds
MAX_KNOWN = 256  # requests that are remembered, more than can be answered while they are young
MAX_WAITING = 2  # requests
MAX_CAMERAS, MAX_PICTURE_BYTES, PICTURE_S = 16, 200_000, 6.0
MAX_REASON = 60  # characters of a refusal in an answer
UPLOAD_S = 45.0  # for all files of an answer
AGAIN_S = 30.0  # where the topic cannot be heard


class Request(msgspec.Struct, frozen=True):
    """`id` is new for each request, `at` Unix time in seconds. `pictures` asks for one of each camera."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,64}$(?!\n)")]
    at: float
    pictures: bool = False


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a device answers on `edgeml/device/<thing>/look/reply`; at most 4,000 bytes.

    `id` is the request's. `report` is as on `edgeml/device/<thing>/report`. Where `bucket` is given, S3 has for a day,
    as `look/<thing>/<id>/<name>`: `state.json`, as /api/state but for history, and for each camera in `pictures`
    `<camera>.jpg`, captured at that Unix time. `missing` says what is not there, and why.
    """

    id: str
    report: msgspec.Raw
    bucket: str = ""
    pictures: dict[str, float] = {}
    missing: dict[str, str] = {}


class Gate:
    """Which requests are answered. For one thread; `monotonic` in seconds."""

    def __init__(self, clock: Clock = CLOCK, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._bucket = Bucket(BURST, EACH_S, BURST, monotonic())
        self._known: dict[str, None] = {}

    def __len__(self) -> int:
        """How many requests are remembered."""
        return len(self._known)

    def admitted(self, payload: bytes) -> Request | None:
        """The request, if it is one that is to be answered."""
        if len(payload) > MAX_REQUEST_BYTES:
            return None
        try:
            request = msgspec.json.decode(payload, type=Request)
        except (msgspec.MsgspecError, RecursionError):
            return None
        late = abs(self._clock.unix() - request.at) > AGE_S and self._clock.believed()
        if not math.isfinite(request.at) or late or request.id in self._known:
            return None
        if not self._bucket.take(self._monotonic()):
            return None
        self._known[request.id] = None
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return request


def with_report(bare: Answer, state: State) -> bytes:
    """The message of an answer, with as much of the report as there is room for."""
    room = MAX_ANSWER_BYTES - len(messages.encode(msgspec.structs.replace(bare, report=msgspec.Raw(b"{}"))))
    told = report.fitted(report.made(state, "look"), room)
    return messages.encode(msgspec.structs.replace(bare, report=msgspec.Raw(told)))


class Look:
    """Answers until the component stops."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._state = context, state
        self._config = Config()
        self._gate = Gate()
        self._s3 = s3.Client()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._waiting: queue.Queue[Request | None] = queue.Queue(MAX_WAITING)  # None: look at the configuration

    def start(self, config: Config) -> None:
        self._config = config
        self._context.spawn("look", self._answer_for_ever)

    def reconfigure(self, config: Config) -> None:
        self._config = config
        self._wake()

    def ask_to_stop(self) -> None:
        self._wake()

    def _wake(self) -> None:
        with suppress(queue.Full):  # then it is awake
            self._waiting.put_nowait(None)

    def _answer_for_ever(self) -> None:
        while not self._context.stopping.is_set():
            heard = self._hears()
            try:
                request = self._waiting.get(timeout=None if heard else AGAIN_S)
            except queue.Empty:
                continue
            if request is not None and self._config.look != "off" and not self._context.stopping.is_set():
                self._answer(request)

    def _hears(self) -> bool:
        """Subscribe, or no longer; False where that is to be tried again."""
        topic, problems = messages.look(self._context.thing_name), self._context.health.problems
        if self._config.look == "off":
            if self._subscription is not None:
                self._subscription.close()
                self._subscription = None
        elif self._subscription is None:
            try:
                self._subscription = self._context.ipc.subscribe_iot(topic, self._heard)
            except RefusedError as error:
                problems.found("unauthorized", "look", str(error))
                return False
            except EdgemlError as error:
                self._context.health.error(error)
                return False
        problems.cleared("unauthorized", "look")
        return True

    def _heard(self, topic: str, payload: bytes) -> None:
        request = self._gate.admitted(payload)
        try:
            if request is not None:
                self._waiting.put_nowait(request)
        except queue.Full:
            request = None
        self._context.health.count("look.requests" if request is not None else "look.refused")

    def _answer(self, request: Request) -> None:
        config, thing = self._config, self._context.thing_name
        log.info("asked from afar %s", kv(id=request.id, pictures=request.pictures))
        found, missing = self._uploaded(request, config)
        bare = Answer(
            id=request.id, report=msgspec.Raw(b""), bucket=config.look_bucket, pictures=found, missing=missing
        )
        try:
            self._context.ipc.publish_iot(messages.look_reply(thing), with_report(bare, self._state))
        except EdgemlError as error:  # who asked asks again
            self._context.health.error(error)
            log.warning("no answer %s", kv(id=request.id, reason=error))

    def _uploaded(self, request: Request, config: Config) -> tuple[dict[str, float], dict[str, str]]:
        """Cameras whose pictures are in S3, with their times, and what is not there, with the reasons."""
        if not config.look_bucket:
            return {}, {"state.json": "look_bucket is not configured"}
        found, missing, until = {}, {}, time.monotonic() + UPLOAD_S
        state = self._state.snapshot()
        components = [msgspec.structs.replace(component, history={}) for component in state.components]
        data = messages.encode(msgspec.structs.replace(state, components=components))
        missing.update(self._put(config, request, "state.json", data, until))
        if request.pictures and config.look != "pictures":
            missing["pictures"] = f"look is {config.look}"
        elif request.pictures:
            names = [camera.name for camera in state.cameras]
            cameras = [name for name in names if ring_look.can_be(name)][:MAX_CAMERAS]
            pictures = self._pictures(cameras)
            for camera in cameras:
                picture = pictures.get(camera)
                if picture is None:
                    missing[camera] = f"no picture of at most {MAX_PICTURE_BYTES} bytes in {PICTURE_S:g} s"
                elif failed := self._put(config, request, f"{camera}.jpg", picture.jpeg, until):
                    missing[camera] = failed[f"{camera}.jpg"]
                else:
                    found[camera] = round(picture.captured_at, 3)
        return found, missing

    def _put(self, config: Config, request: Request, name: str, data: bytes, until: float) -> dict[str, str]:
        """Put a file into S3; its name and the reason if it is not there."""
        if self._context.stopping.is_set() or time.monotonic() > until:
            return {name: "there was no time"}
        key = f"look/{self._context.thing_name}/{request.id}/{name}"
        what, kind = f"s3://{config.look_bucket}/{key}", "image/jpeg" if name.endswith(".jpg") else "application/json"
        try:
            self._s3.call("put_object", what, Bucket=config.look_bucket, Key=key, Body=data, ContentType=kind)
        except EdgemlError as error:
            self._context.health.error(error)
            log.warning("not uploaded %s", kv(file=what, reason=error))
            text = str(error).removeprefix(f"{what}: ")[:MAX_REASON]
            return {name: "".join(c if " " <= c <= "~" else "?" for c in text)}
        return {}

    def _pictures(self, cameras: list[str]) -> dict[str, Picture]:
        """One picture of each camera that gives one in time, with its boxes, as large as it may be."""
        small: dict[str, Picture] = {}
        changed = threading.Condition()

        def take(picture: Picture) -> None:
            with changed:
                known = small.get(picture.camera)
                if len(picture.jpeg) <= MAX_PICTURE_BYTES and (known is None or known.width < picture.width):
                    small[picture.camera] = picture
                    changed.notify()

        spawn = functools.partial(self._context.spawn, again=False)
        widths = (self._config.max_width, *reversed(WIDTHS))  # the first that is small enough is the best
        with closing(Pictures(self._state, self._context.health, spawn, max_width=self._config.max_width)) as pictures:
            for camera in cameras:
                for width in widths:
                    pictures.watch(camera, width, take, burnt=True)
            with changed:
                changed.wait_for(lambda: len(small) == len(cameras) or self._context.stopping.is_set(), PICTURE_S)
                return dict(small)
