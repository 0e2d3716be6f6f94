"""The shapes of /api/state, and how they are made of what is known."""

import math

import msgspec

from edgeml import ring_look
from edgeml.messages import CameraMotion, HealthReport, InferenceResult, ModelStatus
from monitor.kept import MAX_NAME, Kept
from monitor.neighbours import Known, Pipeline
from monitor.reports import Attention, ComponentState
from monitor.vitals.check import Vital
from monitor.words import summary

DELIVERS_S = 15.0  # a camera that gave a frame within this time is live
SETTLED_S = 2.0  # a report that is so much younger than a message knows what the message said


class CameraState(msgspec.Struct, frozen=True, kw_only=True):
    """`fps` are frames a second as CameraCapture counts them, `skipped` those that it could not decode in time.

    `private`: a pipeline blurs its pictures, and only what is blurred is shown. `commands` are start, stop.
    `motion`: something moves before it, since `motion_since`, Unix time in seconds; 0 where nobody heard it begin.
    """

    name: str
    live: bool
    fps: float | None = None
    skipped: int = 0
    width: int = 0
    height: int = 0
    private: bool = False
    commands: list[str] = []
    motion: bool = False
    motion_since: float = 0.0


class Place(msgspec.Struct, frozen=True):
    """A zone or a line, in fractions of the picture."""

    name: str
    points: list[list[float]]


class PipelineState(msgspec.Struct, frozen=True, kw_only=True):
    """`fps` are results a second, the latencies from capture or arrival to the result; `last` says what was found.

    `private`: it hides things in pictures. `pictures`: those that requests named may be seen, if they lie below a
    folder of the configuration; never of a private one, for they are not blurred.
    """

    name: str
    camera: str = ""
    task: str = ""
    model: str = ""
    model_version: str = ""
    fps: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    last: str = ""
    at: float = 0.0
    threshold: float = 0.0
    zones: list[Place] = []
    lines: list[Place] = []
    private: bool = False
    pictures: bool = False


class ModelState(msgspec.Struct, frozen=True):
    """What a user of a model, or its updater, said of a version last; `seen` is Unix time in seconds.

    While it is `updating`: the `step`, and which part of a download is there, 0 to 1.
    """

    name: str
    version: str
    status: str
    component: str
    reason: str
    seen: float
    step: str = ""
    progress: float | None = None


class SerialState(msgspec.Struct, frozen=True):
    """`records` since the Monitor began; `seen` is Unix time in seconds, 0: never.

    `device` is what Edge Impulse calls it, empty where it is none of its devices.
    """

    port: str
    format: str
    records: int
    seen: float
    device: str = ""


class EdgeImpulseState(msgspec.Struct, frozen=True):
    """`results` heard while somebody wanted to know, commands and answers among them; `seen` is Unix time, 0: never."""

    source: str
    results: int
    seen: float


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    thing: str
    time: float
    version: str
    auth: str
    attention: list[Attention]
    vitals: dict[str, Vital]
    components: list[ComponentState]
    cameras: list[CameraState]
    pipelines: list[PipelineState]
    models: list[ModelState]
    serial: list[SerialState]
    edge_impulse: list[EdgeImpulseState]


def camera(
    name: str, known: Known, report: HealthReport | None, heard: CameraMotion | None, *, private: bool, commands: bool
) -> CameraState:
    ring = ring_look.look(known.rings, name)
    live = ring is not None and ring.age_s is not None and ring.age_s < DELIVERS_S
    rate = _finite(report.rates.get(f"cameras.{name}.captured")) if report else None
    moves = live and _moves(name, report, heard)
    return CameraState(
        name=name,
        live=live,
        fps=rate if live else 0.0,
        skipped=report.counters.get(f"cameras.{name}.dropped", 0) if report else 0,
        width=ring.width if ring else 0,
        height=ring.height if ring else 0,
        private=private,
        commands=[] if name not in known.cameras or not commands else ["stop"] if ring else ["start"],
        motion=moves,
        motion_since=heard.since if moves and heard is not None and heard.moving else 0.0,
    )


def _moves(name: str, report: HealthReport | None, heard: CameraMotion | None) -> bool:
    """Whether something moves. Who was killed does not tell the end, who began later did not hear the beginning."""
    gauge = report.gauges.get(f"cameras.{name}.moving") if report else None
    if report is not None and gauge is not None and (heard is None or report.at > heard.at + SETTLED_S):
        return gauge == 1
    return heard is not None and heard.moving


def pipeline(
    name: str,
    known: Known,
    report: HealthReport | None,
    heard: InferenceResult | None,
    at: float,
    *,
    private: bool,
    pictures: bool,
) -> PipelineState:
    configured = known.pipelines.get(name) or Pipeline(camera=heard.source.camera if heard else "")
    total = report.latency_ms.get(f"pipelines.{name}.total") if report else None
    return PipelineState(
        name=name,
        camera=configured.camera,
        task=heard.task if heard else "",
        model=heard.model.name[:MAX_NAME] if heard else configured.model,
        model_version=heard.model.version[:MAX_NAME] if heard else "",
        fps=_finite(report.rates.get(f"pipelines.{name}.inferences")) if report else None,
        p50_ms=_finite(total.p50) if total else None,
        p99_ms=_finite(total.p99) if total else None,
        last=summary(heard) if heard else "",
        at=at,
        threshold=configured.threshold,
        zones=[Place(zone, points) for zone, points in configured.zones.items()],
        lines=[Place(line, points) for line, points in configured.lines.items()],
        private=private,
        pictures=pictures,
    )


def model(name: str, status: ModelStatus, seen: float) -> ModelState:
    version, reason = status.version[:MAX_NAME], status.reason[:300]
    step, part = status.step[:MAX_NAME], _finite(status.progress)
    progress = None if part is None else min(1.0, max(0.0, part))
    return ModelState(name, version, status.status, status.component[:MAX_NAME], reason, seen, step, progress)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def serial(heard: dict[str, tuple[str, int, float]], known: Known) -> list[SerialState]:
    """The ports that were heard (format, records, seen), and those that are configured."""
    ports = {**dict.fromkeys(known.ports, ("", 0, 0.0)), **heard}
    devices = {port: topics.device for port, topics in known.ports.items() if topics is not None}
    return [
        SerialState(port, form[:100], records, seen, devices.get(port, ""))
        for port, (form, records, seen) in sorted(ports.items())
    ]


def edge_impulse(heard: Kept[None], known: Known, offset: float) -> list[EdgeImpulseState]:
    """The devices that were heard, and the one that there is. `offset` makes monotonic times Unix times."""
    found = {name: EdgeImpulseState(name, kept.count, kept.at + offset) for name, kept in heard}
    if known.device is not None:
        found.setdefault(known.device.device, EdgeImpulseState(known.device.device, 0, 0.0))
    return list(found.values())
