"""Says something on a local topic every few seconds."""

import itertools
import logging
import threading

import msgspec

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import IpcError
from edgeml.log import kv
from new_component import __version__
from new_component.config import Config

log = logging.getLogger(__name__)


class Message(msgspec.Struct):
    number: int


class NewComponent(Component[Config]):
    """Says something on a local topic every few seconds."""

    name = "edgeml.NewComponent"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._changed = threading.Event()

    def start(self, config: Config) -> None:
        self.reconfigure(config)
        self.context.spawn("messages", self._work)

    def reconfigure(self, config: Config) -> None:
        self._config = config
        self._changed.set()

    def stop(self) -> None:
        self._changed.set()

    def _work(self) -> None:
        for number in itertools.count(1):
            self._changed.clear()
            if self.context.stopping.is_set():
                return
            try:
                self._say(number)
            except IpcError as error:  # the next one may pass
                self.context.health.error(error)
                log.error("not said %s", kv(error=error))
            self._changed.wait(self._config.interval_s)

    def _say(self, number: int) -> None:
        self.context.ipc.publish(self._config.topic, messages.encode(Message(number)))
        self.context.health.count("messages")
