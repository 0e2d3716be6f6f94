"""Pipelines by configuration: started, stopped and changed each on its own."""

import functools
import logging
import time
from pathlib import Path

import cv2

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError
from edgeml.ipc import Handler
from edgeml.log import kv
from edgeml.outbox import Outbox
from edgeml.s3 import Uploader
from inferencer import __version__
from inferencer.assembly import Assembly, Running, check
from inferencer.config import Config
from inferencer.sinks import TIMES, check_places

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 1.0  # for the inferences in hand; results and crops are flushed after that


class Inferencer(Component[Config]):
    """Runs inference pipelines: source -> model -> sinks."""

    name = "edgeml.Inferencer"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._running: dict[str, Running] = {}
        self._handlers: dict[str, list[Handler]] = {}  # by local topic
        self._outbox: Outbox | None = None
        self._uploader: Uploader | None = None

    def start(self, config: Config) -> None:
        cv2.setNumThreads(1)  # pipelines are the threads here; OpenCV's own would wait for each other on a busy core
        check(config.pipelines)
        check_places(config.pipelines, self.context.thing_name)
        self._apply(config)

    def reconfigure(self, config: Config) -> None:
        check(config.pipelines)
        check_places(config.pipelines, self.context.thing_name)
        for name in self._config.pipelines.keys() - config.pipelines.keys() - self._running.keys():
            self.context.health.forget(f"pipelines.{name}")  # it never ran, and says so no longer
        moved = config.ring_directory != self._config.ring_directory
        changed = [
            name for name in self._running if moved or config.pipelines.get(name) != self._config.pipelines.get(name)
        ]
        for name in changed:
            self._running[name].worker.halt()
        for name in changed:
            self._end(name)
        self._apply(config)

    def stop(self) -> None:
        for running in self._running.values():
            running.worker.halt()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for name in list(self._running):
            self._end(name, max(0.0, deadline - time.monotonic()))
        if self._uploader is not None:
            self._uploader.close()
        if self._outbox is not None:
            self._outbox.close()

    def _apply(self, config: Config) -> None:
        self._config = config
        path, context = self.context.work / "iot_core.spool", self.context
        if self._outbox is None:
            size, wait_s = config.result_spool_bytes, config.clock_wait_s
            self._outbox = Outbox(path, context.ipc, context.health, max_bytes=size, times=TIMES, clock_wait_s=wait_s)
        else:
            self._outbox.configure(max_bytes=config.result_spool_bytes, qos=1, clock_wait_s=config.clock_wait_s)
        if self._uploader is not None:
            self._uploader.configure(max_bytes=config.crop_spool_bytes, clock_wait_s=config.clock_wait_s)
        elif any(pipeline.crops.bucket for pipeline in config.pipelines.values()):
            self._uploader = Uploader(context, max_bytes=config.crop_spool_bytes, clock_wait_s=config.clock_wait_s)
        assembly = Assembly(context, Path(config.ring_directory), self._outbox, self._uploader)
        for name, pipeline in config.pipelines.items():
            if name in self._running:
                continue
            try:
                self._begin(name, assembly.start(name, pipeline))
                self.context.health.note(f"pipelines.{name}", "")
            except EdgemlError as error:  # the other pipelines are no worse for it
                self.context.health.error(f"pipeline {name}: {error}")
                self.context.health.note(f"pipelines.{name}", f"not running: {error}")
                log.error("pipeline not started %s", kv(pipeline=name, error=error))
        self.context.health.note("pipelines", "" if config.pipelines else "none configured")

    def _begin(self, name: str, running: Running) -> None:
        self._running[name] = running
        try:
            self._listen(running)
        except EdgemlError:
            self._end(name)
            raise

    def _end(self, name: str, timeout: float = STOP_TIMEOUT_S) -> None:
        running = self._running.pop(name)
        for topic, handler in self._wanted(running):
            if handler in self._handlers.get(topic, ()):
                self._handlers[topic].remove(handler)
        running.worker.stop(timeout)
        self.context.health.forget(f"pipelines.{name}")
        log.info("pipeline ended %s", kv(pipeline=name))

    def _wanted(self, running: Running) -> list[tuple[str, Handler]]:
        activations = [(messages.model_activate(model), user.activate) for model, user in running.models]
        return [*running.subscriptions.items(), *activations]

    def _listen(self, running: Running) -> None:
        """Hand a topic's messages to everyone here who wants them: one IPC subscription per topic, for good."""
        for topic, handler in self._wanted(running):
            if topic not in self._handlers:
                handlers: list[Handler] = []
                self.context.ipc.subscribe(topic, functools.partial(_each, handlers))
                self._handlers[topic] = handlers
            self._handlers[topic].append(handler)


def _each(handlers: list[Handler], topic: str, payload: bytes) -> None:
    for handler in list(handlers):
        handler(topic, payload)
