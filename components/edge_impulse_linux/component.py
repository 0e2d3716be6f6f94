"""The device in Studio: connected, and connected again whenever that ends."""

import functools
import logging
import threading
import time
from pathlib import Path
from typing import Any

from edge_impulse_linux import __version__
from edge_impulse_linux.config import Config, Sensor
from edge_impulse_linux.identity import Identity, identity
from edge_impulse_linux.ingestion import Ingestion
from edge_impulse_linux.registration import find_project, register
from edge_impulse_linux.sampling import Sampler
from edge_impulse_linux.session import Session
from edge_impulse_linux.sources import Camera, Feed
from edgeml import messages
from edgeml.backoff import Backoff
from edgeml.component import Component, Context
from edgeml.edge_impulse.parameters import interpret
from edgeml.edge_impulse.studio import Studio, endpoints
from edgeml.errors import ConfigError, DisconnectedError, EdgemlError
from edgeml.ipc import Subscription
from edgeml.log import kv
from edgeml.pace import Pacer
from edgeml.secrets import secret_value

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 3.5
LOOK_FOR_CAMERAS_S = 2.0
FIRST_FRAME_S = 0.5
STEADY_S = 60.0  # what worked for so long begins again with short pauses


class EdgeImpulseLinux(Component[Config]):
    """Registers this device with Edge Impulse Studio, which then takes samples from its cameras and sensors."""

    name = "edgeml.EdgeImpulseLinux"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._of_studio = context.health.scope("studio")
        self._feeds: dict[str, list[Feed]] = {}
        self._subscribed: dict[str, Subscription] = {}

    def start(self, config: Config) -> None:
        _check(config)
        self._config, self._settings = config, interpret(config.parameters)
        for note in self._settings.notes:
            log.info("Parameters: %s", note)
        self._subscribe(config)
        self._ended = threading.Event()
        ended = self._ended
        self._thread = self.context.spawn("studio", lambda: self._keep_connected(ended))

    def reconfigure(self, config: Config) -> None:
        _check(config)
        if config != self._config:
            self.stop()
            self.start(config)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(JOIN_TIMEOUT_S)

    def _subscribe(self, config: Config) -> None:
        """Each topic has one subscription, that feeds all its sensors."""
        feeds: dict[str, list[Feed]] = {}
        for name, sensor in config.sensors.items():
            feeds.setdefault(_topic(sensor), []).append(Feed(name, sensor, self.context.health))
        self._feeds = feeds
        for topic in feeds.keys() - self._subscribed.keys():
            self._subscribed[topic] = self.context.ipc.subscribe(topic, self._arrived)
        for topic in self._subscribed.keys() - feeds.keys():
            self._subscribed.pop(topic).close()

    def _arrived(self, topic: str, payload: bytes) -> None:
        for feed in self._feeds.get(topic, ()):
            feed.feed(payload)

    def _keep_connected(self, ended: threading.Event) -> None:
        backoff = Backoff()
        while not ended.is_set():
            began = time.monotonic()
            try:
                self._connect_once(ended)
                backoff.reset()
            except DisconnectedError:
                raise  # of the core, not of Studio: the process has to be started anew
            except EdgemlError as error:
                if ended.is_set():
                    return
                if time.monotonic() - began > STEADY_S:
                    backoff.reset()
                pause = backoff.next()
                self.context.health.count("disconnects")
                self._of_studio.failed(error, "unreachable")
                self._of_studio.note(str(error))
                log.error("not connected to Studio %s", kv(reason=error, failures=backoff.failures, pause_s=pause))
                ended.wait(pause)

    def _connect_once(self, ended: threading.Event) -> None:
        """From finding the project to the end of the connection. Returns to describe the device anew."""
        config, settings, health = self._config, self._settings, self.context.health
        key = secret_value(self.context.ipc, settings.secret_id, settings.secret_key)
        where, studio = endpoints(), Studio(key)
        who = identity(config.device_id, settings.device_name, self.context.work)
        project = find_project(studio)
        cameras = [Camera(name, Path(config.ring_directory), alone=len(config.cameras) == 1) for name in config.cameras]
        sources = self._sources(cameras, FIRST_FRAME_S)
        live = next((source for _, source in sources if isinstance(source, Camera)), None)
        by_name = {entry["name"]: source for entry, source in sources}
        ingestion = Ingestion(where.ingestion, key, who)
        sampler = Sampler(by_name, ingestion, project.hmac_key, health, jpeg_quality=config.jpeg_quality)
        told = [entry for entry, _ in sources]
        session = Session(
            where.remote_management,
            key,
            who,
            told,
            sampler,
            live,
            health,
            functools.partial(self.context.spawn, again=False),  # Studio asks anew, if it wants to
            snapshot_fps=config.snapshot_fps,
        )
        changed = Pacer(LOOK_FOR_CAMERAS_S, later=True)

        def welcomed() -> None:
            register(studio, project, who)
            self._connected(project.id, who, told)

        def is_over() -> bool:
            if ended.is_set():
                return True
            if changed.take() and [entry for entry, _ in self._sources(cameras, 0)] != told:
                log.info("cameras have changed, registering anew")
                return True
            return False

        session.run(welcomed, is_over)

    def _connected(self, project: int, who: Identity, told: list[dict[str, Any]]) -> None:
        self.context.health.count("connects")
        self._of_studio.note("")
        self._of_studio.well()
        names = ", ".join(entry["name"] for entry in told)
        log.info("connected to Studio %s", kv(project=project, device=who.id, name=who.name, sensors=names))

    def _sources(self, cameras: list[Camera], timeout: float) -> list[tuple[dict[str, Any], Camera | Feed]]:
        """What can be sampled now, each with how Studio is told of it. A camera that fails takes no other with it."""
        found: list[tuple[dict[str, Any], Camera | Feed]] = []
        for camera in cameras:
            health = self.context.health.scope(f"cameras.{camera.camera}")
            try:
                entry = camera.describe(timeout)
            except Exception as error:  # noqa: BLE001  (of its ring, which somebody else writes)
                health.count("failed")
                health.found("source_failed", str(error) or type(error).__name__)
                continue
            health.cleared("source_failed")
            if entry is not None:
                found.append((entry, camera))
        return found + [(feed.describe(), feed) for feeds in self._feeds.values() for feed in feeds]


def _topic(sensor: Sensor) -> str:
    return sensor.topic or messages.serial_record(sensor.serial_port)


def _check(config: Config) -> None:
    for name, sensor in config.sensors.items():
        if bool(sensor.topic) == bool(sensor.serial_port):
            raise ConfigError(f"sensors.{name}", "set either topic or serial_port")
        if not sensor.axes:
            raise ConfigError(f"sensors.{name}.axes", "name the fields of a sample, as record.x")
