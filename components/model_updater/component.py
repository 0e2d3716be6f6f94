"""Glue: configuration in, one worker thread."""

import threading
from typing import ClassVar

from edgeml.component import Component, Context
from edgeml.errors import ConfigError
from model_updater import __version__
from model_updater.config import Config
from model_updater.document import key_bytes
from model_updater.store import share
from model_updater.updater import Updater

STOP_TIMEOUT_S = 1.5  # a read that hangs is not waited for: what is on disk is good as it is


class ModelUpdater(Component[Config]):
    """Installs model bundles that AWS IoT Jobs offer, or leaves everything as it was."""

    name: ClassVar[str] = "edgeml.ModelUpdater"
    version: ClassVar[str] = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._updater: Updater | None = None
        self._thread: threading.Thread | None = None

    def start(self, config: Config) -> None:
        _check(config)
        if config.share_with_group:
            share(self.context.work)
        self._updater = Updater(self.context, config)
        self._thread = self.context.spawn("updater", self._updater.run)

    def reconfigure(self, config: Config) -> None:
        """Holds from the next job on; the job in hand goes on under the rules it began with."""
        _check(config)
        if config.share_with_group:
            share(self.context.work)
        if self._updater is not None:
            self._updater.config = config

    def stop(self) -> None:
        if self._updater is not None and self._thread is not None:
            self._updater.ask_to_stop()
            self._thread.join(STOP_TIMEOUT_S)


def _check(config: Config) -> None:
    """Raises ConfigError: a key that cannot be used must stop us now, not at the next update."""
    if config.public_key:
        key_bytes(config.public_key)
    elif config.require_signature > 1:
        raise ConfigError("require_signature", "expected a public_key beside it, found none")
