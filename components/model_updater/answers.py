"""Which of the statuses that users of a model publish answers an activation."""

import logging
import threading
from dataclasses import dataclass

import msgspec

from edgeml import messages
from edgeml.log import kv
from edgeml.messages import ModelActivate, ModelStatus

log = logging.getLogger(__name__)


@dataclass
class Question:
    activation: ModelActivate
    answered: threading.Event
    answer: ModelStatus | None = None


class Answers:
    """Holds the last activation against the statuses that arrive. The first one that fits it decides."""

    def __init__(self) -> None:
        self._question: Question | None = None

    def expect(self, activation: ModelActivate) -> Question:
        self._question = Question(activation, threading.Event())
        return self._question

    def put(self, payload: bytes) -> None:
        question = self._question
        try:
            status = messages.decode(payload, ModelStatus)
        except msgspec.MsgspecError as error:
            log.warning("model status not understood %s", kv(error=error))
            return
        if question is None or question.answered.is_set():
            return
        if status.status not in ("accepted", "refused"):  # our own
            return
        asked = question.activation
        # Who noticed the new link by itself before it heard of us answers without our request's id.
        if (status.model, status.version) == (asked.model, asked.version) and status.request_id in (
            "",
            asked.request_id,
        ):
            question.answer = status
            question.answered.set()
