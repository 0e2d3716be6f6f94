"""Commands from IoT Core, each to the device that it is for."""

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edgeml.backoff import Backoff, retry
from edgeml.component import Context
from edgeml.edge_impulse.retained import RetainedGuard
from edgeml.errors import IpcError, SpoolError
from edgeml.ipc import Subscription
from edgeml.log import kv

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5  # before commands are subscribed to again


class Device(NamedTuple):
    """Who carries out the commands of a topic; `last` is the file that remembers the last one across restarts."""

    last: Path
    command: Callable[[bytes], None]


class CommandListener:
    """Receives commands for the devices of the day. IoT Core may be out of reach for long: it insists."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._devices: dict[str, Device] = {}  # by topic
        self._subscriptions: dict[str, Subscription] = {}

    def listen(self, devices: Mapping[str, Device], *, at_once: bool = False) -> None:
        """From now on these take commands, by topic, and no others; `at_once` tries before it returns."""
        with self._lock:
            former, self._devices = self._devices, dict(devices)
            gone = [self._subscriptions.pop(topic) for topic in self._subscriptions.keys() - devices.keys()]
        for subscription in gone:
            subscription.close()
        for topic in former.keys() - devices.keys():
            self._context.health.problems.cleared("worker_failed", topic)
        for topic in devices.keys() - former.keys():
            if not (at_once and self._tries(topic)):
                self._context.spawn("commands", functools.partial(self._insist, topic))

    def _insist(self, topic: str) -> None:
        def failed(error: Exception, pause_s: float) -> None:
            self._failed(topic, error)

        stopping, backoff = self._context.stopping, Backoff(FIRST_PAUSE_S)
        with contextlib.suppress(Exception):  # told already; it is stopping
            retry(lambda: self._subscribe(topic), Exception, backoff=backoff, stopping=stopping, failed=failed)

    def _tries(self, topic: str) -> bool:
        try:
            self._subscribe(topic)
        except Exception as error:  # noqa: BLE001  (it is tried again)
            self._failed(topic, error)
            return False
        return True

    def _failed(self, topic: str, error: Exception) -> None:
        self._context.health.count("subscriptions_failed")
        self._context.health.error(error)
        expected = isinstance(error, IpcError)
        if not expected and topic in self._devices:
            text = f"commands: {type(error).__name__}: {error}"
            self._context.health.problems.found("worker_failed", topic, text)
        facts = kv(topic=topic, reason=error)
        log.error("commands cannot be received yet %s", facts, exc_info=None if expected else error)

    def _subscribe(self, topic: str) -> None:
        """If a device still wants it."""
        with self._lock:
            device = self._devices.get(topic)
        if device is None:
            return
        received = functools.partial(self._received, RetainedGuard(device.last))
        subscription = self._context.ipc.subscribe_iot(topic, received)
        self._context.health.problems.cleared("worker_failed", topic)
        with self._lock:
            if topic in self._devices and topic not in self._subscriptions:
                self._subscriptions[topic] = subscription
                return
        subscription.close()  # the device has another name by now, or came back to this one

    def _received(self, guard: RetainedGuard, topic: str, payload: bytes) -> None:
        with self._lock:
            device = self._devices.get(topic)
        if device is None:
            return  # of a name that no device has any more
        try:
            if payload and guard.repeated(payload):
                log.info("retained command was carried out before %s", kv(payload=payload[:200]))
                return
            device.command(payload)
        except (OSError, SpoolError) as error:
            self._context.health.count("commands_failed")
            self._context.health.error(error)
            log.error("command not answered %s", kv(payload=payload[:200], reason=error))
