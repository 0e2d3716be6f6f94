"""One sample that Studio asked for: taken from a source, uploaded, and told about step by step."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edge_impulse_linux.ingestion import Ingestion, Target
from edge_impulse_linux.sources import Camera, Feed
from edgeml.errors import SourceError, StudioError
from edgeml.health import Health

Say = Callable[[dict[str, Any]], None]  # sends a message to Studio; raises StudioError

_PATH = re.compile(r"/api/(training|testing|anomaly|split)/data")
_SLACK_S = 5.0
_INTERVAL_TOLERANCE = 0.02


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`sample` of a message from Studio. `length` and `interval` in milliseconds."""

    label: str
    path: str
    sensor: str
    length: float = 0
    interval: float = 0
    hmacKey: str = ""  # noqa: N815  (as on the wire)


class Sampler:
    """Takes samples from `sources`, by the names that Studio knows them by."""

    def __init__(
        self,
        sources: Mapping[str, Camera | Feed],
        ingestion: Ingestion,
        hmac_key: str,
        health: Health,
        *,
        jpeg_quality: int,
    ) -> None:
        self._sources, self._ingestion, self._hmac_key, self._health = sources, ingestion, hmac_key, health
        self._quality = jpeg_quality

    def take(self, request: Request, say: Say, cancelled: threading.Event) -> None:
        """Raises SourceError or StudioError; what has been told until then stays told."""
        if not _PATH.fullmatch(request.path):
            raise StudioError(f"path {request.path!r} is not one for samples")
        source = self._sources.get(request.sensor)
        if source is None:
            raise SourceError(f"there is no sensor {request.sensor!r}, but {', '.join(self._sources) or 'none at all'}")
        began = time.monotonic()
        target = Target(request.path, request.label)
        if isinstance(source, Camera):
            self._image(source, target, say)
        else:
            self._values(source, target, request, say, cancelled)
        say({"sampleFinished": True})
        self._health.count("samples")
        self._health.observe("sample", time.monotonic() - began)

    def _image(self, source: Camera, target: Target, say: Say) -> None:
        say({"sampleStarted": True})
        say({"sample": True})
        jpeg = source.jpeg(quality=self._quality)
        say({"sampleUploading": True})
        self._ingestion.image(target, jpeg, {"camera": source.camera})

    def _values(self, source: Feed, target: Target, request: Request, say: Say, cancelled: threading.Event) -> None:
        interval_ms = 1000 / source.config.frequency_hz
        if request.interval and abs(request.interval / interval_ms - 1) > _INTERVAL_TOLERANCE:
            raise SourceError(f"sensor {source.name}: its interval is {interval_ms:g} ms, not {request.interval:g} ms")
        longest_ms = source.config.max_length_s * 1000
        if not 0 <= request.length <= longest_ms:
            raise SourceError(f"sensor {source.name}: at most {longest_ms:g} ms a sample, not {request.length:g} ms")
        count = max(1, round(request.length / interval_ms))
        say({"sampleStarted": True})
        say({"sample": True})
        values = source.collect(count, request.length / 1000 * 1.5 + _SLACK_S, cancelled)
        say({"sampleUploading": True})
        units = [*source.config.units, *["N/A"] * len(source.config.axes)]
        sensors = [
            {"name": axis.rpartition(".")[2], "units": unit}
            for axis, unit in zip(source.config.axes, units, strict=False)
        ]
        self._ingestion.values(target, request.hmacKey or self._hmac_key, interval_ms, sensors, values)
