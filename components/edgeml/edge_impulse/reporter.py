"""From a model's result to the messages IoT Core gets: threshold first, then backoff, then size, then cache."""

import base64
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.edge_impulse.cache import Cache
from edgeml.edge_impulse.commands import Commands
from edgeml.edge_impulse.device import Topics
from edgeml.edge_impulse.metrics import Metrics
from edgeml.edge_impulse.parameters import Settings
from edgeml.edge_impulse.results import ModelInfo, Result, Timing, confidences, content, mean_confidence
from edgeml.edge_impulse.rules import Backoff, ThresholdFilter
from edgeml.health import Health
from edgeml.log import kv
from edgeml.messages import encode
from edgeml.outbox import Put
from edgeml.pace import Throttle

log = logging.getLogger(__name__)

# Times in the messages below and their units per second, as an Outbox takes them.
TIMES = {"ts": 1000, "result.ts": 1000}


class Reporter:
    """Says of one model, or one serial device, what there is to say. Results come from one thread, commands from any.

    `put` is that of an Outbox. `max_bytes` is the core's limit on a payload. `caches` are
    those in use, by name (`local`, `s3`). `restart` is called when the `restart` command has been answered.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        put: Put,
        *,
        health: Health,
        max_bytes: int,
        restart: Callable[[], None],
        caches: Mapping[str, Cache] | None = None,
    ) -> None:
        self._too_large = Throttle()
        self._settings, self._topics, self._put = settings, topics, put
        self._health, self._max_bytes, self._restart = health, max_bytes, restart
        self._caches = caches or {}
        self.model = ModelInfo()
        self.metrics = Metrics()
        self.rules = ThresholdFilter(
            enabled=settings.threshold_enabled, threshold=settings.threshold, criterion=settings.criterion
        )
        self._backoff = Backoff(settings.every)
        self._commands = Commands(self.rules, self.metrics, lambda: self.model, self._caches)
        self._command_lock = threading.Lock()
        self._total = 0

    def started(self) -> None:
        self._answer({"status": "started", "ts": _now_ms(), "id": str(uuid.uuid4())})

    def publish_metrics(self) -> None:
        self._put(self._topics.metrics, encode(self.metrics.snapshot()))

    def command(self, payload: bytes) -> None:
        """Carry out and answer what arrived on `.../command/input`."""
        if not payload:
            return  # the broker telling that a retained command was cleared
        with self._command_lock:
            answer = self._commands.answer(payload)
            if answer is not None:
                self._answer(answer)
        if answer is not None and "restart" in answer:
            self._restart()

    def result(
        self,
        result: Result,
        timing: Timing,
        *,
        info: str | None = None,
        image: Callable[[], bytes] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> bool:
        """Count a result and publish it if the rules let it pass; whether it was published.

        `image` makes the JPEG of the model's input, asked only when it is needed. `extras` (a serial device's
        `time_splits`) go into the payload as they are.
        """
        body, count = content(result)
        if not count:
            self._health.count("results_empty")
            return False
        self._total += count
        self._health.count("results")
        self.metrics.add(confidences(result))
        if not self.rules.passes(mean_confidence(result)):
            self._health.count("results_below_threshold")
            return False
        if not self._backoff.due():
            return False
        head: dict[str, Any] = {"time_ms": timing.total_ms}
        if info is not None:
            head["info"] = info
        head |= {"inference_count": count, "total_inferences": self._total}
        head |= {"id": str(uuid.uuid4()), "ts": _now_ms(), **(extras or {})}
        return self._publish(head, body | self._s3_place(), image)

    def _publish(self, head: dict[str, Any], body: dict[str, Any], image: Callable[[], bytes] | None) -> bool:
        wanted = image is not None and (self._settings.include_image or self._caches)
        jpeg = image() if image is not None and wanted else b""
        payload = self._payload(head, body, jpeg if self._settings.include_image else b"")
        if len(payload) > self._max_bytes:
            self._health.count("results_too_large")
            if self._too_large.due():
                facts = kv(bytes=len(payload), limit=self._max_bytes, count=self._too_large.count)
                log.error("result dropped, too large even without image %s", facts)
            return False
        self._put(self._topics.inference, payload)
        self._health.count("results_published")
        if jpeg:
            self._keep(head["id"], payload, jpeg)
        return True

    def _payload(self, head: dict[str, Any], body: dict[str, Any], jpeg: bytes) -> bytes:
        if not jpeg:
            return encode(head | body)
        payload = encode({**head, "image": base64.b64encode(jpeg).decode(), **body})
        if len(payload) <= self._max_bytes:
            return payload
        self._health.count("images_omitted")
        log.warning("published without image %s", kv(bytes=len(payload), limit=self._max_bytes))
        return encode({**head, "image_omitted": f"{len(payload)} bytes, {self._max_bytes} are allowed", **body})

    def _keep(self, identity: str, payload: bytes, jpeg: bytes) -> None:
        for name, cache in self._caches.items():
            try:
                cache.put(identity, payload, jpeg)
            except Exception as error:  # noqa: BLE001  (the result is published; its copy is a convenience)
                self._health.count("cache_errors")
                self._health.error(error)
                log.error("result not cached %s", kv(cache=name, id=identity, error=error))

    def _s3_place(self) -> dict[str, str]:
        if not self._settings.s3_bucket:
            return {"s3_bucket": "unset", "s3_prefix": "unset"}
        return {"s3_bucket": self._settings.s3_bucket, "s3_prefix": s3_prefix(self.model)}

    def _answer(self, answer: dict[str, Any]) -> None:
        payload = encode({"result": answer})
        if len(payload) > self._max_bytes:  # a model with very many labels, on Nucleus Lite
            payload = encode({"result": {"error": f"{len(payload)} bytes, {self._max_bytes} are allowed"}})
        self._put(self._topics.command_output, payload)


def s3_prefix(model: ModelInfo) -> str:
    """`<model name>_v<deploy version>/`, under which a model's results lie in the bucket."""
    return f"{model.name}_{model.version}/"


def _now_ms() -> int:
    return int(time.time() * 1000)
