"""Pipelines by configuration: started, stopped and changed each on its own."""

import functools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edgeml.backoff import Backoff
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError
from edgeml.health import Health
from edgeml.ipc import Handler, Subscription
from edgeml.log import kv
from edgeml.messages import Privacy
from edgeml.outbox import Outbox
from edgeml.s3 import Uploader
from inferencer import __version__, sessions
from inferencer.assembly import Assembly, Running, check
from inferencer.backends.onnx import OnnxBackend, threads
from inferencer.config import Config, Pipeline
from inferencer.parts import Takers
from inferencer.results import TIMES

log = logging.getLogger(__name__)

AGAIN_S, LONGEST_AGAIN_S = 2.0, 60.0  # pauses before pipelines that did not start are tried again
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
        self._subscriptions: dict[str, Subscription] = {}  # likewise
        self._outbox: Outbox | None = None
        self._uploader: Uploader | None = None
        self._takers: Takers = {}
        self._changing = threading.RLock()  # held by whoever starts or ends pipelines
        self._not_started: dict[str, str] = {}  # pipeline to reason
        self._retrying: threading.Thread | None = None

    def start(self, config: Config) -> None:
        cv2.setNumThreads(1)  # pipelines are the threads here; OpenCV's own would wait for each other on a busy core
        check(config.pipelines, self.context.thing_name)
        self.context.health.gauge("sessions", lambda: float(sessions.count()))
        self._apply(config)

    def reconfigure(self, config: Config) -> None:
        check(config.pipelines, self.context.thing_name)
        for name in self._config.pipelines.keys() - config.pipelines.keys() - self._running.keys():
            self.context.health.forget(f"pipelines.{name}")  # it never ran, and says so no longer
        with self._changing:
            self._reconfigure(config)

    def _reconfigure(self, config: Config) -> None:
        moved = config.ring_directory != self._config.ring_directory
        shared_anew = threads("auto", _sharing(config)) != threads("auto", _sharing(self._config))
        changed = [
            name
            for name in self._running
            if moved
            or config.pipelines.get(name) != self._config.pipelines.get(name)
            or (shared_anew and _shares_cores(config.pipelines[name]))
        ]
        for name in changed:
            self._running[name].worker.ask_to_stop()
        for name in changed:
            self._end(name)
        self._apply(config)

    def stop(self) -> None:
        entered = self._changing.acquire(timeout=STOP_TIMEOUT_S)  # somebody may be waiting for the core
        try:
            self._stop()
        finally:
            if entered:
                self._changing.release()

    def _stop(self) -> None:
        for running in self._running.values():
            running.worker.ask_to_stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for name in list(self._running):
            self._end(name, max(0.0, deadline - time.monotonic()))
        if self._uploader is not None:
            self._uploader.close()
        if self._outbox is not None:
            self._outbox.close()

    def _apply(self, config: Config) -> None:
        with self._changing:
            self._config = config
            self.context.health.privacy = tuple(_private(config))
            self._not_started = {name: why for name, why in self._not_started.items() if name in config.pipelines}
            self._prepare(config)
            if not self._start_missing() and self._retrying is None:
                self._retrying = self.context.spawn("pipelines-again", self._try_again)
            self.context.health.note("pipelines", "" if config.pipelines else "none configured")

    def _prepare(self, config: Config) -> None:
        """What all pipelines share."""
        path, context = self.context.work / "iot_core.spool", self.context
        if self._outbox is None:
            size, wait_s = config.result_spool_bytes, config.clock_wait_s
            self._outbox = Outbox(path, context.ipc, context.health, max_bytes=size, times=TIMES, clock_wait_s=wait_s)
        else:
            self._outbox.configure(max_bytes=config.result_spool_bytes, qos=1, clock_wait_s=config.clock_wait_s)
        if self._uploader is not None:
            self._uploader.configure(max_bytes=config.crop_spool_bytes, clock_wait_s=config.clock_wait_s)

    def _uploads(self) -> Uploader:
        """Made when a pipeline asks for it: uploads that wait are none of those that upload nothing."""
        if self._uploader is None:
            size, wait_s = self._config.crop_spool_bytes, self._config.clock_wait_s
            self._uploader = Uploader(self.context, max_bytes=size, clock_wait_s=wait_s)
        return self._uploader

    def _start_missing(self) -> bool:
        """Start the pipelines that do not run; whether all do now. One that cannot start hinders no other."""
        assert self._outbox is not None  # noqa: S101  (_prepare made it)
        rings = Path(self._config.ring_directory)
        assembly = Assembly(self.context, rings, self._outbox, self._uploads, self._takers, _sharing(self._config))
        for name, pipeline in self._config.pipelines.items():
            if name in self._running:
                continue
            health = self.context.health.scope(f"pipelines.{name}")
            try:
                self._begin(name, assembly.start(name, pipeline))
            except Exception as error:
                ours = isinstance(error, EdgemlError)
                health.error(f"pipeline {name}: {error}")
                health.note(f"not running: {error}")
                if self._not_started.get(name) != str(error):
                    facts = kv(pipeline=name, error=error if ours else repr(error))
                    log.error("pipeline not started %s", facts, exc_info=None if ours else error)
                self._not_started[name] = str(error)
                health.found("source_failed" if ours else "worker_failed", f"not running: {error}")
            else:
                health.note("")
                self._not_started.pop(name, None)
                health.cleared("source_failed")
                health.cleared("worker_failed")
        return self._config.pipelines.keys() <= self._running.keys()

    def _try_again(self) -> None:
        """Start what could not be started: a file appears, a disk is mounted, a network comes."""
        backoff = Backoff(AGAIN_S, LONGEST_AGAIN_S, floor_s=AGAIN_S / 10)
        while not self.context.stopping.wait(backoff.next()):
            with self._changing:
                if self.context.stopping.is_set() or self._start_missing():
                    self._retrying = None
                    return

    def _begin(self, name: str, running: Running) -> None:
        self._running[name] = running
        try:
            self._listen(running)
        except Exception:
            self._end(name)
            raise

    def _end(self, name: str, timeout: float = STOP_TIMEOUT_S) -> None:
        running = self._running.pop(name)
        for topic, handler in running.topics:
            if handler in self._handlers.get(topic, ()):
                self._handlers[topic].remove(handler)
                if not self._handlers[topic]:
                    del self._handlers[topic]
                    self._subscriptions.pop(topic).close()
        running.worker.stop(timeout)
        self.context.health.forget(f"pipelines.{name}")
        log.info("pipeline ended %s", kv(pipeline=name))

    def _listen(self, running: Running) -> None:
        """Hand a topic's messages to everyone here who wants them: one IPC subscription per topic."""
        for topic, handler in running.topics:
            if topic not in self._handlers:
                handlers: list[Handler] = []
                listen = functools.partial(_each, self.context.health, handlers)
                self._subscriptions[topic] = self.context.ipc.subscribe(topic, listen)
                self._handlers[topic] = handlers
            self._handlers[topic].append(handler)


def _computing(pipeline: Pipeline) -> list[OnnxBackend]:
    """What of it runs a model here, be it as a fallback."""
    return [backend for backend in (pipeline.backend, pipeline.fallback) if isinstance(backend, OnnxBackend)]


def _sharing(config: Config) -> int:
    """How many pipelines run models here."""
    return sum(bool(_computing(pipeline)) for pipeline in config.pipelines.values())


def _shares_cores(pipeline: Pipeline) -> bool:
    return any(backend.threads == "auto" for backend in _computing(pipeline))


def _private(config: Config) -> Iterator[Privacy]:
    """What pipelines hide in pictures of which camera, whether they run or not."""
    for name, pipeline in config.pipelines.items():
        camera, privacy = pipeline.source.seen, pipeline.privacy
        if privacy is not None and camera:
            yield Privacy(pipeline=name, camera=camera, method=privacy.method, labels=privacy.labels)


def _each(health: Health, handlers: list[Handler], topic: str, payload: bytes) -> None:
    for handler in list(handlers):
        try:
            handler(topic, payload)
        except Exception as error:
            health.count("messages_failed")
            health.error(f"{topic}: {error}")
            log.exception("message not handled %s", kv(topic=topic))
