"""Commands from IoT Core, to the port that is the device they are for."""

import functools
import logging
import threading
from pathlib import Path

from edgeml.component import Context
from edgeml.edge_impulse.retained import RetainedGuard
from edgeml.errors import IpcError, SpoolError
from edgeml.log import kv
from edgeml.spool import full_jitter
from serial_scraper.service import Service

log = logging.getLogger(__name__)


class Commands:
    """Receives commands for one device after the other's: a topic is subscribed once, for the life of the process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._services: dict[str, Service | None] = {}

    def route(self, services: list[Service]) -> None:
        """From now on these devices take commands, and no others."""
        wanted = {service.plan.topics.command_input: service for service in services if service.plan.topics}
        with self._lock:
            new = wanted.keys() - self._services.keys()
            self._services = {**dict.fromkeys(self._services), **wanted}
        for topic in new:
            guard_file = self._context.work / f"last-command-{wanted[topic].plan.name}"
            self._context.spawn("commands", functools.partial(self._listen, topic, guard_file))

    def _listen(self, topic: str, guard_file: Path) -> None:
        """Subscribe as soon as the core lets us: IoT Core may be out of reach now."""
        failures = 0
        while not self._context.stopping.is_set():
            received = functools.partial(self._received, RetainedGuard(guard_file))
            try:
                self._context.ipc.subscribe_iot(topic, received)
                return
            except IpcError as error:
                failures += 1
                self._context.health.error(error)
                log.error("commands cannot be received yet %s", kv(topic=topic, reason=error))
                self._context.stopping.wait(full_jitter(failures))

    def _received(self, guard: RetainedGuard, topic: str, payload: bytes) -> None:
        with self._lock:
            service = self._services.get(topic)
        if service is None:
            return  # of a device that this is no more
        try:
            if payload and guard.repeated(payload):
                log.info("retained command was carried out before %s", kv(payload=payload[:200]))
                return
            service.command(payload)
        except (OSError, SpoolError) as error:
            self._context.health.error(error)
            log.error("command not answered %s", kv(payload=payload[:200], reason=error))
