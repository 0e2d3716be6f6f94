"""What the configurations of other components say, which a core tells each component.

Unlike reports they are there before anything runs, and say what must not be shown whether it runs or not.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeml import ring_look
from edgeml.edge_impulse.device import DEFAULT_PREFIX, Topics, board_topics, default_mac, device_name
from edgeml.errors import ConfigError, EdgemlError, NotFoundError
from edgeml.ipc import Ipc

CAMERAS, PIPELINES = "edgeml.CameraCapture", "edgeml.Inferencer"
MODELS, PORTS = "edgeml.EdgeImpulseRunner", "edgeml.SerialScraper"
DEVICE_NAME = "MyEdgeImpulseDevice"  # where Parameters say none
MAX_NAMES, MAX_PLACES, MAX_POINTS = 64, 32, 64
MAX_BOARDS = 8  # whose commands are heard: AWS IoT Core takes 50 subscriptions of a device


@dataclass(frozen=True)
class Pipeline:
    """One pipeline as it is configured. `private`: it hides things in pictures of its camera."""

    camera: str = ""
    model: str = ""
    threshold: float = 0.0
    private: bool = False
    zones: dict[str, list[list[float]]] = field(default_factory=dict)
    lines: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """Cameras that CameraCapture has, pipelines that the Inferencer has, by name; where the frame rings lie.

    `device` are the topics of the device that EdgeImpulseRunner is to Edge Impulse, `ports` SerialScraper's ports with
    those of the devices that they are to it, None where a port is none.
    `complete` once the pipelines are known, as none where there is no Inferencer: before that no picture is shown.
    """

    rings: Path = Path("/dev/shm")  # noqa: S108  (as CameraCapture)
    cameras: tuple[str, ...] = ()
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    complete: bool = False
    device: Topics | None = None
    ports: dict[str, Topics | None] = field(default_factory=dict)

    def camera_names(self) -> list[str]:
        """Those that are configured, and others whose ring is there, which take no configured one's place."""
        return _some(self.cameras, ring_look.cameras(self.rings, MAX_NAMES))

    def pipeline_names(self, heard: Iterable[str]) -> list[str]:
        """Those that are configured, and others that were heard, likewise."""
        return _some(self.pipelines, heard)

    def private(self, camera: str) -> set[str]:
        """The pipelines without whose results a picture of the camera may not be shown."""
        return {name for name, pipeline in self.pipelines.items() if pipeline.private and pipeline.camera == camera}


def _some(first: Iterable[str], others: Iterable[str]) -> list[str]:
    return sorted(list(dict.fromkeys([*first, *others]))[:MAX_NAMES])


class Neighbours:
    """What is known now; thread-safe."""

    def __init__(self, rings: Path = Path("/dev/shm")) -> None:  # noqa: S108
        self._lock = threading.Lock()
        self._known = Known(rings)

    def known(self) -> Known:
        with self._lock:
            return self._known

    def place(self, rings: Path) -> None:
        """Look for frame rings in `rings`."""
        with self._lock:
            self._known = replace(self._known, rings=rings)

    def ask(self, ipc: Ipc) -> None:
        """Read the configurations anew. What cannot be read now stays as it is known."""
        cameras, pipelines = _table(ipc, CAMERAS, "cameras"), _table(ipc, PIPELINES, "pipelines")
        device, ports = _device(ipc), _ports(ipc)
        with self._lock:
            known = self._known
            if cameras is not None:
                known = replace(known, cameras=tuple(cameras)[:MAX_NAMES])
            if pipelines is not None:
                found = {name: _pipeline(raw) for name, raw in pipelines.items()}
                known = replace(known, pipelines=found, complete=True)
            self._known = replace(known, device=device, ports=ports)


def _table(ipc: Ipc, component: str, key: str) -> dict[str, dict[str, Any]] | None:
    """The named things in a component's configuration; none where there is no such component, None: not known."""
    try:
        found = ipc.configuration(component).get(key)
    except NotFoundError:
        return {}
    except EdgemlError:
        return None
    return {name: raw for name, raw in found.items() if isinstance(raw, dict)} if isinstance(found, dict) else {}


def _device(ipc: Ipc) -> Topics | None:
    try:
        raw = ipc.configuration(MODELS)
    except EdgemlError:
        return None
    return _usable(Topics(device_name(_common_name(raw), default_mac()), _prefix(raw)))


def _ports(ipc: Ipc) -> dict[str, Topics | None]:
    """Where no port is configured there is one, with Edge Impulse firmware. Of many boards the first ones are heard."""
    try:
        raw = ipc.configuration(PORTS)
    except EdgemlError:
        return {}
    ports = list((_object(raw.get("ports")) or {"mcu": {}}).items())[:MAX_NAMES]
    boards = {
        name: str(_object(port).get("device_name") or "")
        for name, port in ports
        if _object(port).get("format", "edge_impulse") == "edge_impulse"
    }
    topics = list(board_topics(boards, _common_name(raw), default_mac(), _prefix(raw)).items())[:MAX_BOARDS]
    return {**dict.fromkeys(name for name, _ in ports), **{name: _usable(each) for name, each in topics}}


def _common_name(raw: dict[str, Any]) -> str:
    return str(_object(raw.get("Parameters")).get("device_name", DEVICE_NAME))


def _prefix(raw: dict[str, Any]) -> str:
    prefix = raw.get("topic_prefix")
    return prefix if isinstance(prefix, str) and prefix else DEFAULT_PREFIX


def _usable(topics: Topics) -> Topics | None:
    try:
        topics.check("topic_prefix")
    except ConfigError:  # which the component itself tells
        return None
    return topics


def _pipeline(raw: dict[str, Any]) -> Pipeline:
    """What a pipeline's configuration says, as leniently as its own reader takes it."""
    source, backend, events = (_object(raw.get(key)) for key in ("source", "backend", "events"))
    return Pipeline(
        camera=str(source.get("camera", "")),
        model=str(backend.get("model", "")),
        threshold=_number(raw.get("score_threshold")),
        private=raw.get("privacy") is not None,
        zones=_places(events.get("zones")),
        lines=_places(events.get("lines")),
    )


def _places(raw: object) -> dict[str, list[list[float]]]:
    found = {}
    for name, place in list(_object(raw).items())[:MAX_PLACES]:
        points = _object(place).get("points")
        if isinstance(points, list | tuple):
            corners = [[_number(x) for x in point][:2] for point in points if isinstance(point, list | tuple)]
            found[name] = [corner for corner in corners if len(corner) == 2][:MAX_POINTS]
    return found


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
