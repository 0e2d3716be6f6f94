"""Commands from IoT Core, to the port that is the device they are for."""

import functools
import logging
import threading
from pathlib import Path

from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.edge_impulse.retained import RetainedGuard
from edgeml.errors import IpcError, SpoolError
from edgeml.ipc import Subscription
from edgeml.log import kv
from serial_scraper.service import Service

log = logging.getLogger(__name__)


class Commands:
    """Receives commands for the devices of the day."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._services: dict[str, Service] = {}
        self._subscriptions: dict[str, Subscription] = {}

    def route(self, services: list[Service]) -> None:
        """From now on these devices take commands, and no others."""
        wanted = {service.plan.topics.command_input: service for service in services if service.plan.topics}
        with self._lock:
            new = wanted.keys() - self._services.keys()
            self._services = wanted
            gone = [self._subscriptions.pop(topic) for topic in self._subscriptions.keys() - wanted.keys()]
        for subscription in gone:
            subscription.close()
        for topic in new:
            guard_file = self._context.work / f"last-command-{wanted[topic].plan.name}"
            self._context.spawn("commands", functools.partial(self._listen, topic, guard_file))

    def _listen(self, topic: str, guard_file: Path) -> None:
        """Subscribe as soon as the core lets us: IoT Core may be out of reach now."""
        backoff = Backoff()
        while not self._context.stopping.is_set() and topic in self._services:
            received = functools.partial(self._received, RetainedGuard(guard_file))
            try:
                subscription = self._context.ipc.subscribe_iot(topic, received)
                break
            except IpcError as error:
                self._context.health.error(error)
                log.error("commands cannot be received yet %s", kv(topic=topic, reason=error))
                self._context.stopping.wait(backoff.next())
        else:
            return
        with self._lock:
            former = self._subscriptions.get(topic)
            if topic in self._services and former is None:
                self._subscriptions[topic] = subscription
                return
        subscription.close()  # the device has another name by now, or came back to this one

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
            self._context.health.count("commands_failed")
            self._context.health.error(error)
            log.error("command not answered %s", kv(payload=payload[:200], reason=error))
