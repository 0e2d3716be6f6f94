"""A spare model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.log import kv
from inferencer.parts import Model
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from inferencer.parts import Topics

log = logging.getLogger(__name__)


class WithFallback(Model):
    """Asks `first`; while that fails, `second` answers."""

    def __init__(self, pipeline: str, first: Model, second: Model) -> None:
        self._pipeline, self._first, self._second = pipeline, first, second
        self._failing = False

    def topics(self) -> Topics:
        return [*self._first.topics(), *self._second.topics()]

    def poll(self) -> bool:
        ready, spare = self._first.poll(), self._second.poll()
        return bool(ready or spare)

    def infer(self, sample: Sample) -> Outcome | None:
        try:
            outcome = self._first.infer(sample)
        except Exception as error:
            if not self._second.poll():
                raise
            if not self._failing:
                unexpected = None if isinstance(error, EdgemlError) else error
                log.warning("fallback answers %s", kv(pipeline=self._pipeline, error=error), exc_info=unexpected)
            self._failing = True
            return self._second.infer(sample)
        if self._failing:
            log.info("fallback rests, the backend answers again %s", kv(pipeline=self._pipeline))
        self._failing = False
        return outcome

    def close(self) -> None:
        try:
            self._first.close()
        finally:
            self._second.close()
