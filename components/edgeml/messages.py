"""Every message that crosses a component border, and its topic.

Messages travel as JSON in binary IPC payloads: integers stay integers on the Java nucleus, and Nucleus Lite's
limit on the number of objects in a JSON message does not apply. Receivers ignore fields they do not know.
"""

from typing import Any, Literal, TypeVar

import msgspec

M = TypeVar("M")
Method = Literal["blur", "pixelate", "box"]  # of making something unrecognisable
Region = tuple[int, int, int, int]  # x, y, width, height in pixels

MAX_IPC_BYTES = 7000  # Nucleus Lite closes the connection on larger messages (10,000 with base64 and headers)


def camera_frame(camera: str) -> str:
    return f"edgeml/camera/{camera}/frame"


def camera_motion(camera: str) -> str:
    return f"edgeml/camera/{camera}/motion"


def camera_command(camera: str) -> str:
    return f"edgeml/camera/{camera}/command"


def camera_reply(camera: str) -> str:
    return f"edgeml/camera/{camera}/reply"


def inference(pipeline: str) -> str:
    return f"edgeml/inference/{pipeline}"


def event(pipeline: str) -> str:
    return f"edgeml/event/{pipeline}"


def serial_record(port: str) -> str:
    return f"edgeml/serial/{port}/record"


def model_activate(model: str) -> str:
    return f"edgeml/model/{model}/activate"


def model_status(model: str) -> str:
    return f"edgeml/model/{model}/status"


def health(component: str) -> str:
    return f"edgeml/health/{component}"


def device_report(thing: str) -> str:
    return f"edgeml/device/{thing}/report"


def look(thing: str) -> str:
    return f"edgeml/device/{thing}/look"


def look_reply(thing: str) -> str:
    return f"edgeml/device/{thing}/look/reply"


class Percentiles(msgspec.Struct, frozen=True):
    """Of the most recent observations, in milliseconds."""

    p50: float
    p99: float


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong now. `code` is a key of edgeml.problems.ADVICE, `since` Unix time in seconds."""

    code: str
    subject: str
    text: str
    since: float


class Privacy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a pipeline makes unrecognisable in pictures of `camera`: objects of `labels`, of any where there are none.

    No other picture of the camera is to be shown than of a frame whose result is there, without what it hides.
    """

    pipeline: str
    camera: str
    method: Method
    labels: tuple[str, ...] = ()


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Published by every component on `edgeml/health/<component>`. `at` is Unix time in seconds.

    `variants` are those that run, and why, by part; absent where no model has any.
    """

    component: str
    version: str
    at: float
    uptime_s: float
    counters: dict[str, int]
    rates: dict[str, float]
    latency_ms: dict[str, Percentiles]
    gauges: dict[str, float]
    notes: dict[str, str]
    last_error: str | None
    problems: tuple[Problem, ...] = ()
    privacy: tuple[Privacy, ...] = ()
    variants: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class FrameReady(msgspec.Struct, frozen=True, kw_only=True):
    """A frame lies in the ring `edgeml-<camera>`; whoever reads the ring itself does not need this message."""

    camera: str
    frame_id: int
    width: int
    height: int
    pixel_format: str
    captured_at: float


class CameraMotion(msgspec.Struct, frozen=True, kw_only=True):
    """Something begins to move in front of a camera, or nothing does any more. Times are Unix time, in seconds.

    `since` is when it began, also in the message of its end; `area` the part of the picture that changed at the
    beginning, 0 to 1.
    """

    camera: str
    moving: bool
    at: float
    since: float
    area: float = 0.0


class CameraCommand(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` answers with a JPEG's path, `stop` and `start` release and reopen the source."""

    command: Literal["snapshot", "start", "stop"]
    request_id: str | int = ""


class ClipCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a camera, on the topic of its commands, to keep or send a clip of now under `key`."""

    command: Literal["clip"] = "clip"
    before_s: float
    after_s: float
    key: str
    request_id: str = ""


class StillCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a camera to send, as `key`, what `box`, in fractions of the frame, showed in its large stream then."""

    command: Literal["still"] = "still"
    captured_at: float
    box: tuple[float, float, float, float]
    key: str
    request_id: str = ""


class CameraReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer to a CameraCommand, ClipCommand or StillCommand. `error` says why there is nothing.

    `path` is the JPEG that a snapshot wrote, or a clip that is kept; `seconds` is what a clip covers from `captured_at`
    on. When a still or a clip is answered `ok`, it waits durably for S3, or is kept.
    """

    camera: str
    command: str
    request_id: str = ""
    ok: bool = True
    path: str = ""
    frame_id: int = 0
    captured_at: float = 0.0
    seconds: float = 0.0
    error: str = ""


class ModelRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model answered. Where there was a choice, also which of its files, and why: `int8 x86_64_vnni`, or
    `fp16 CUDA` on a GPU.
    """

    name: str
    version: str
    variant: str = ""
    why: str = ""


class SampleRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a result was computed from: a camera's frame, or what arrived on a topic, be it the name of a `file`.

    In a chain `pipeline` is the one whose detection `index` of that frame was looked at, `region` where it was cut out
    of the picture that this pipeline saw, and `track` whose it is.
    """

    camera: str = ""
    topic: str = ""
    file: str = ""
    frame_id: int = 0
    captured_at: float = 0.0
    pipeline: str = ""
    index: int = 0
    track: int = 0
    region: Region | None = None


class LatencyMs(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went: `queue` runs from capture or arrival to the start of preprocessing."""

    queue: float
    preprocess: float
    inference: float
    postprocess: float


class Classification(msgspec.Struct, frozen=True):
    label: str
    score: float


class Detection(msgspec.Struct, frozen=True, omit_defaults=True):
    """`box` is [x, y, width, height] in source pixels, `landmarks` are [x, y] in source pixels.

    `visibility` from 0 to 1 has one number for each landmark where the model tells, `outlines` are polygons of [x, y]
    in source pixels around the parts of the object, the largest first.

    Where objects are followed, `track` is the object's number, `since` when it was first seen (Unix time), `speed` that
    of its centre in source pixels per second, and `stationary` that it has not moved for a while.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    landmarks: list[tuple[float, float]] = []
    track: int = 0
    since: float = 0.0
    speed: float = 0.0
    stationary: bool = False
    visibility: list[float] = []
    outlines: list[list[tuple[float, float]]] = []


class Anomaly(msgspec.Struct, frozen=True, omit_defaults=True):
    """Per feature: is it anomalous, its mean absolute error, the threshold that decided, and its name if it has one."""

    anomalies: list[bool]
    values: list[float]
    thresholds: list[float]
    features: list[str] = []


class Regression(msgspec.Struct, frozen=True, omit_defaults=True):
    """A predicted value; where the true one is known too, it and `error` = value - measured."""

    value: float
    measured: float | None = None
    error: float | None = None


class Hidden(msgspec.Struct, frozen=True):
    """Regions of the source that pictures of it show only after edgeml.privacy.hide. They hold margins already."""

    method: Method
    regions: tuple[Region, ...]


class InferenceResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """One answer of one pipeline. `backend` says which backend answered when a pipeline has a fallback.

    `truncated` results were left out, the least sure ones, because a message would have been too long. `hidden` stands
    there, be it without regions, where the pipeline has privacy. What is beside the fields is no part of the message.
    """

    pipeline: str
    model: ModelRef
    source: SampleRef
    task: Literal["classification", "detection", "anomaly", "regression"]
    results: Any  # by task; a union of two list types cannot be decoded, so readers convert it
    latency_ms: LatencyMs
    device: str
    backend: str = ""
    request_id: str = ""
    error: str = ""
    truncated: int = 0
    hidden: Hidden | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened to an object that is followed, or in a zone. Times are Unix time, in seconds.

    `id` is this event's own; `begun` is that of the event that it ends: `left` ends `appeared`, `left_zone` ends
    `entered`, `interrupted` either of them, when the component ended before it could see the end. `since` is when the
    object was first seen, `seconds` how long what ended or goes on has lasted. `position` and `start`, where it is and
    where it was first seen, are fractions of the picture; `box` is in source pixels. `count_changed` has no track.
    `picture` is the key of the object's best picture, which may be sent later than the event; `said` is what pipelines
    that look at the object said of it last, by their names. `clip` is the key of a clip that the camera was asked for.
    """

    event: Literal[
        "appeared",
        "left",
        "entered",
        "left_zone",
        "crossed",
        "dwelled",
        "stopped",
        "count_changed",
        "interrupted",
    ]
    id: str
    pipeline: str
    device: str
    at: float
    begun: str = ""
    track: int = 0
    label: str = ""
    score: float = 0.0
    since: float = 0.0
    seconds: float = 0.0
    zone: str = ""
    line: str = ""
    direction: Literal["", "left", "right"] = ""
    count: int | None = None
    position: tuple[float, float] | None = None
    start: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    source: SampleRef | None = None
    picture: str = ""
    clip: str = ""
    said: dict[str, str] = {}


class ModelActivate(msgspec.Struct, frozen=True, kw_only=True):
    """`current` of a model's folder was switched to `version`: load it now and answer with a ModelStatus."""

    model: str
    version: str
    path: str
    request_id: str


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user of a model says of a version it was told to activate, or of one it found by itself.

    The updater says how it gets on: `updating` with its `step`, and of a download which part is there, 0 to 1; at the
    end `installed`, or `failed`. These answer no activation.
    """

    model: str
    version: str
    status: Literal["accepted", "refused", "updating", "installed", "failed"]
    component: str
    reason: str = ""
    request_id: str = ""
    step: str = ""
    progress: float | None = None


_encoder = msgspec.json.Encoder()


def encode(message: Any) -> bytes:
    """JSON bytes of a message struct or plain data. Text that is no Unicode becomes `\\udc80` and its like."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _encoder.encode(_real(msgspec.to_builtins(message)))


def _real(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_real(key): _real(item) for key, item in value.items()}
    return [_real(item) for item in value] if isinstance(value, list | tuple) else value


def decode(payload: bytes, kind: type[M]) -> M:
    """A message from JSON bytes, scalars converted leniently. Raises msgspec.MsgspecError (a ValueError)."""
    try:
        return msgspec.json.decode(payload, type=kind, strict=False)
    except RecursionError as error:  # of a field that nobody asked for, too
        raise msgspec.DecodeError("nested too deeply") from error
