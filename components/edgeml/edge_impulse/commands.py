"""The commands of `.../command/input` and their answers on `.../command/output`."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.edge_impulse.cache import Cache, is_uuid
from edgeml.edge_impulse.metrics import Metrics
from edgeml.edge_impulse.parameters import criterion
from edgeml.edge_impulse.results import ModelInfo
from edgeml.edge_impulse.rules import ThresholdFilter
from edgeml.log import kv

log = logging.getLogger(__name__)

Answer = dict[str, Any]


class Commands:
    """Answers one command after the other. An unknown command, or what is no command, has no answer.

    `caches` are the ones in use, by the name they have in answers: `local`, `s3`. For one thread at a time.
    """

    def __init__(
        self,
        rules: ThresholdFilter,
        metrics: Metrics,
        model_info: Callable[[], ModelInfo],
        caches: Mapping[str, Cache] | None = None,
    ) -> None:
        self._rules, self._metrics, self._model_info = rules, metrics, model_info
        self._caches = caches or {}
        self._handlers: dict[str, Callable[[Any], Answer | None]] = {
            "restart": lambda value: {"restart": "OK"},
            "get_threshold_filter_config": lambda value: self._config(),
            "enable_threshold_filter": lambda value: self._enable(True),
            "disable_threshold_filter": lambda value: self._enable(False),
            "get_threshold_filter_confidence": lambda value: self._confidence(),
            "set_threshold_filter_confidence": self._set_confidence,
            "get_threshold_filter_criteria": lambda value: self._criteria(),
            "set_threshold_filter_criteria": self._set_criteria,
            "get_model_info": lambda value: self._model(),
            "reset_metrics": lambda value: self._reset(),
            "clear_cache": lambda value: self._clear(),
            "clear_cache_file": self._clear_one,
        }

    def answer(self, payload: bytes) -> Answer | None:
        """What to say to a command, which has then been carried out; all but `restart`, which is the caller's."""
        try:
            message = json.loads(payload)
        except ValueError:
            log.warning("command is not JSON %s", kv(payload=payload[:200]))
            return None
        name = message.get("cmd") if isinstance(message, dict) else None
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            log.warning("command not known %s", kv(command=name))
            return None
        answer = handler(message.get("value"))
        log.info("command %s", kv(command=name))
        return answer

    def _config(self) -> Answer:
        return {"threshold_filter_config": self._rules.config()}

    def _enable(self, enabled: bool) -> Answer:
        self._rules.enabled = enabled
        return self._config()

    def _confidence(self) -> Answer:
        return {"confidence_threshold": self._rules.threshold}

    def _set_confidence(self, value: Any) -> Answer:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
            self._rules.threshold = value
        else:
            log.warning("threshold not changed: it must be in (0, 1] %s", kv(value=value))
        return self._confidence()

    def _criteria(self) -> Answer:
        return {"criteria": self._rules.criterion}

    def _set_criteria(self, value: Any) -> Answer:
        found = criterion(value)
        if found is None:
            log.warning("criterion not changed: it must be gt, ge, eq, le or lt %s", kv(value=value))
        else:
            self._rules.criterion = found
        return self._criteria()

    def _model(self) -> Answer:
        info = self._model_info()
        return {"model_info": {"model_name": info.name, "model_version": info.version, "model_params": info.parameters}}

    def _reset(self) -> Answer:
        self._metrics.reset()
        return {"metrics_reset": "OK"}

    def _clear(self) -> Answer:
        return {"clear_cache": self._each(lambda cache: cache.clear())}

    def _clear_one(self, value: Any) -> Answer | None:
        if not value:
            return None
        if not is_uuid(value):
            log.warning("refused to clear what is no uuid %s", kv(value=value))
            return {"clear_cache_file": {"local": "FAILED", "s3": "FAILED", "uuid": value}}
        return {"clear_cache_file": {**self._each(lambda cache: cache.clear_one(value)), "uuid": value}}

    def _each(self, act: Callable[[Cache], bool]) -> Answer:
        """A cache that is not in use has nothing to clear, and says OK."""
        outcome = {}
        for name in ("local", "s3"):
            cache = self._caches.get(name)
            outcome[name] = "OK" if cache is None or act(cache) else "FAILED"
        return outcome
