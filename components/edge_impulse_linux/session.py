"""One connection to Studio's remote management: hello, what Studio asks for, until it ends."""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edge_impulse_linux.identity import DEVICE_TYPE, Identity
from edge_impulse_linux.sampling import Request, Sampler
from edge_impulse_linux.sources import Camera
from edgeml import json_limits, redact
from edgeml.edge_impulse.studio import without
from edgeml.errors import EdgemlError, JsonError, StudioError
from edgeml.health import Health
from edgeml.log import kv

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 4
OPEN_TIMEOUT_S, CLOSE_TIMEOUT_S, HELLO_TIMEOUT_S = 10.0, 1.0, 10.0
PING_INTERVAL_S, PONG_TIMEOUT_S = 30.0, 6.0
JOIN_TIMEOUT_S = 1.0
LOOK_S = 0.2
_MAX_MESSAGE_BYTES = 1 << 20
_LIVE_QUALITY = 75
_HEIGHTS = {"low": 240, "high": 720}

Spawn = Callable[[str, Callable[[], None]], threading.Thread]


class Session:
    """`run` returns when `is_over` says so, and raises StudioError when the connection is refused or lost."""

    def __init__(
        self,
        url: str,
        api_key: str,
        identity: Identity,
        sensors: list[dict[str, Any]],
        sampler: Sampler,
        live: Camera | None,
        health: Health,
        spawn: Spawn,
        *,
        snapshot_fps: float,
        ping_interval_s: float = PING_INTERVAL_S,
        pong_timeout_s: float = PONG_TIMEOUT_S,
    ) -> None:
        self._url, self._api_key, self._identity, self._sensors = url, api_key, identity, sensors
        self._sampler, self._live, self._health, self._spawn = sampler, live, health, spawn
        self._snapshot_pause_s = 1 / snapshot_fps
        self._ping_interval_s, self._pong_timeout_s = ping_interval_s, pong_timeout_s
        self._ended = threading.Event()
        self._live_stop = threading.Event()
        self._sampling: threading.Thread | None = None
        self._streaming: threading.Thread | None = None

    def run(self, welcomed: Callable[[], None], is_over: Callable[[], bool]) -> None:
        """`welcomed` is called once Studio has taken the hello."""
        try:
            with connect(
                self._url,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=self._ping_interval_s,
                ping_timeout=self._pong_timeout_s,
                max_size=_MAX_MESSAGE_BYTES,
            ) as connection:
                self._connection = connection
                self._hello(connection)
                welcomed()
                self._serve(connection, is_over)
        except EdgemlError:
            raise
        except Exception as error:  # websockets, its parsers and sockets share no base class
            raise self._lost(error) from error
        finally:
            self._end()

    def _hello(self, connection: Connection) -> None:
        hello = {
            "apiKey": self._api_key,
            "deviceId": self._identity.id,
            "deviceType": DEVICE_TYPE,
            "connection": "ip",
            "sensors": self._sensors,
            "supportsSnapshotStreaming": self._live is not None,
            "version": PROTOCOL_VERSION,
            "mode": "ingestion",
        }
        connection.send(json.dumps({"hello": hello}))
        answer = _parsed(connection.recv(timeout=HELLO_TIMEOUT_S))
        if answer.get("hello") is not True:
            said = without(self._api_key, str(answer.get("err", answer))[:500])
            raise StudioError(f"{redact.url(self._url)}: Studio refused the device: {said}")

    def _serve(self, connection: Connection, is_over: Callable[[], bool]) -> None:
        while not is_over():
            try:
                message = _parsed(connection.recv(timeout=LOOK_S))
            except TimeoutError:
                continue
            try:
                self._handle(message)
            except msgspec.ValidationError as error:
                self._failed({"sample": False}, StudioError(f"request not understood: {error}"))
            except EdgemlError:
                raise
            except Exception as error:  # noqa: BLE001  (of one request: the connection is as good as before)
                self._failed({"sample": False}, error)

    def _handle(self, message: dict[str, Any]) -> None:
        if "sample" in message:
            self._start_sampling(msgspec.convert(message["sample"], Request, strict=False))
        elif "startSnapshot" in message:
            self._start_live(str(message.get("resolution", "low")))
        elif "stopSnapshot" in message:
            self._stop_live()
            self._say({"snapshotStopped": True})
        elif message:
            log.info("Studio asks for what is not known here %s", kv(keys=",".join(message)))

    def _start_sampling(self, request: Request) -> None:
        if self._sampling is not None and self._sampling.is_alive():
            self._failed({"sample": False}, StudioError("another sample is being taken"))
            return
        log.info("sample %s", kv(sensor=request.sensor, label=request.label, length_ms=request.length))

        def work() -> None:
            try:
                self._sampler.take(request, self._say, self._ended)
            except Exception as error:  # noqa: BLE001  (Studio waits for an answer, whatever it is)
                self._health.count("samples_failed")
                self._failed({"sample": False}, error)

        self._sampling = self._spawn("sample", work)

    def _start_live(self, resolution: str) -> None:
        camera = self._live
        if camera is None:
            self._failed({"snapshotFailed": True}, StudioError("there is no camera"))
            return
        if self._streaming is None or not self._streaming.is_alive():
            self._live_stop.clear()
            height = _HEIGHTS.get(resolution, _HEIGHTS["low"])
            self._streaming = self._spawn("live view", lambda: self._stream(camera, height))
        self._say({"snapshotStarted": True})

    def _stream(self, camera: Camera, height: int) -> None:
        due = time.monotonic()
        while not self._live_stop.is_set():
            try:
                jpeg = camera.jpeg(quality=_LIVE_QUALITY, max_height=height)
                name = f"{camera.camera}.{int(time.time() * 1000)}.jpg"
                self._say({"snapshotFrame": base64.b64encode(jpeg).decode(), "fileName": name})
                self._health.count("snapshots")
            except Exception as error:  # noqa: BLE001
                self._health.count("snapshots_failed")
                self._failed({"snapshotFailed": True}, error)
                return
            due = max(due + self._snapshot_pause_s, time.monotonic())
            self._live_stop.wait(due - time.monotonic())

    def _stop_live(self) -> None:
        self._live_stop.set()
        if self._streaming is not None:
            self._streaming.join(JOIN_TIMEOUT_S)

    def _failed(self, message: dict[str, Any], error: Exception) -> None:
        """Tell Studio, as far as it is still there."""
        if self._ended.is_set():
            return
        expected = isinstance(error, EdgemlError)
        words = str(error) if expected else without(self._api_key, repr(error))
        self._health.count("requests_failed")
        log.error("request failed %s", kv(reason=words), exc_info=None if expected else error)
        self._health.error(words)
        try:
            self._say({**message, "error": words})
        except StudioError:
            return  # the reader of the connection notices too, and says so

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send(json.dumps(message))
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> StudioError:
        words = redact.text(str(error) or type(error).__name__, self._url)
        return StudioError(f"{redact.url(self._url)}: {without(self._api_key, words)}")

    def _end(self) -> None:
        self._ended.set()
        self._stop_live()
        if self._sampling is not None:
            self._sampling.join(JOIN_TIMEOUT_S)


def _parsed(message: str | bytes) -> dict[str, Any]:
    try:
        parsed = json_limits.loads(message, "a message of Studio")
    except JsonError as error:
        # Not shown: a request carries the key that samples are signed with.
        raise StudioError(f"Studio sent what is no JSON of ours: {error}") from error
    return parsed if isinstance(parsed, dict) else {}
