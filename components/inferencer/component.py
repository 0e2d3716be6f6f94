"""Pipelines by configuration: started, stopped and changed each on its own."""

import functools
import logging
from pathlib import Path

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError
from edgeml.ipc import Handler
from edgeml.log import kv
from edgeml.s3 import Uploader
from inferencer import __version__
from inferencer.assembly import Assembly, Running, check
from inferencer.config import Config
from inferencer.sinks import IotRelay

log = logging.getLogger(__name__)


class Inferencer(Component[Config]):
    """Runs inference pipelines: source -> model -> sinks."""

    name = "edgeml.Inferencer"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._running: dict[str, Running] = {}
        self._handlers: dict[str, list[Handler]] = {}  # by local topic
        self._relay: IotRelay | None = None
        self._uploader: Uploader | None = None

    def start(self, config: Config) -> None:
        check(config.pipelines)
        self._apply(config)

    def reconfigure(self, config: Config) -> None:
        check(config.pipelines)
        moved = config.ring_directory != self._config.ring_directory
        for name in list(self._running):
            if moved or config.pipelines.get(name) != self._config.pipelines.get(name):
                self._end(name)
        self._apply(config)

    def stop(self) -> None:
        for name in list(self._running):
            self._end(name)
        if self._uploader is not None:
            self._uploader.close()
        if self._relay is not None:
            self._relay.close()

    def _apply(self, config: Config) -> None:
        self._config = config
        if self._relay is None:
            self._relay = IotRelay(self.context, config.result_spool_bytes)
        if self._uploader is None and any(pipeline.crops.bucket for pipeline in config.pipelines.values()):
            self._uploader = Uploader(self.context, max_bytes=config.crop_spool_bytes)
        assembly = Assembly(self.context, Path(config.ring_directory), self._relay, self._uploader)
        for name, pipeline in config.pipelines.items():
            if name in self._running:
                continue
            try:
                running = self._running[name] = assembly.start(name, pipeline)
                self._listen(running)
                self.context.health.note(f"pipelines.{name}", "")
            except EdgemlError as error:  # the other pipelines are no worse for it
                self.context.health.error(f"pipeline {name}: {error}")
                self.context.health.note(f"pipelines.{name}", f"not running: {error}")
                log.error("pipeline not started %s", kv(pipeline=name, error=error))
        self.context.health.note("pipelines", "" if config.pipelines else "none configured")

    def _end(self, name: str) -> None:
        running = self._running.pop(name)
        for topic, handler in self._wanted(running):
            self._handlers[topic].remove(handler)
        running.worker.stop()
        self.context.health.forget(f"pipelines.{name}")
        log.info("pipeline ended %s", kv(pipeline=name))

    def _wanted(self, running: Running) -> list[tuple[str, Handler]]:
        activations = [(messages.model_activate(model), user.activate) for model, user in running.models]
        return [*running.subscriptions.items(), *activations]

    def _listen(self, running: Running) -> None:
        """Hand a topic's messages to everyone here who wants them: one IPC subscription per topic, for good."""
        for topic, handler in self._wanted(running):
            if topic in self._handlers:
                self._handlers[topic].append(handler)
                continue
            handlers = self._handlers[topic] = [handler]
            self.context.ipc.subscribe(topic, functools.partial(_each, handlers))


def _each(handlers: list[Handler], topic: str, payload: bytes) -> None:
    for handler in list(handlers):
        handler(topic, payload)
