"""What several sinks send is encoded once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edgeml import messages
from edgeml.component import Context
from edgeml.messages import MAX_IPC_BYTES, Event, InferenceResult
from events_support import Outbox, box, frame, outcome_of, placed, result_of
from inferencer.parts import Sink, SinkSettings
from inferencer.results import fitted
from inferencer.sinks.events import Events
from inferencer.sinks.iot_core import IotCore
from inferencer.sinks.local import Local
from inferencer.sinks.mqtt import MqttSink
from inferencer.sinks.stream_manager import StreamManagerSink
from inferencer.sinks.webhook import WebhookSink
from inferencer.tracks import Step, Track

SINKS: tuple[SinkSettings, ...] = (  # nobody listens to those in the network: what they send waits
    Local(),
    IotCore(),
    MqttSink(host="127.0.0.1", port=9),
    MqttSink(host="127.0.0.1", port=9, topic="{label}"),
    WebhookSink(url="https://127.0.0.1:9/"),
    StreamManagerSink(port=9),
)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The messages that are encoded while a test runs."""
    found, encode = list[Any](), messages.encode

    def noting(message: Any) -> bytes:
        found.append(message)
        return encode(message)

    monkeypatch.setattr(messages, "encode", noting)
    return found


@contextmanager
def opened(context: Context, outbox: Outbox) -> Iterator[list[Sink]]:
    place = placed(context, outbox)
    with ExitStack() as made:
        sinks = []
        for number, settings in enumerate(SINKS):
            sink = settings.open(replace(place, prefix=f"pipelines.p.sinks.{number}"))
            assert sink is not None
            made.callback(sink.close)
            sinks.append(sink)
        yield sinks


@pytest.mark.parametrize(("boxes", "is_whole"), [(3, True), (300, False)], ids=["short", "too long for the core"])
def test_a_result_is_encoded_as_often_for_all_sinks_as_for_one(
    context: Context, encoded: list[Any], boxes: int, is_whole: bool
) -> None:
    outbox, found = Outbox(), [box(0.5, 0.5, score=round(0.9 - index / 1000, 3)) for index in range(boxes)]
    alone = fitted(result_of(found), MAX_IPC_BYTES)
    once = len(encoded)
    assert (once == 1) == is_whole
    result = result_of(found)
    with opened(context, outbox) as sinks:
        encoded.clear()
        for sink in sinks:
            sink.put(frame(0.0), outcome_of(found), result)
        assert len([each for each in encoded if isinstance(each, InferenceResult)]) == once
    told = context.ipc.on("edgeml/inference/p")  # type: ignore[attr-defined]
    assert told == outbox.sent == [messages.decode(alone, dict)]
    assert ("truncated" not in told[0]) == is_whole
    assert fitted(result, 1 << 20) == messages.encode(result)  # of which nothing was cut for the others
    other = msgspec.structs.replace(result, error="another one")
    assert fitted(other, 1 << 20) == messages.encode(other)


def test_an_event_is_encoded_once_for_all_who_are_told(context: Context, encoded: list[Any]) -> None:
    outbox = Outbox()
    where = placed(context, outbox)
    for number in range(3):
        assert IotCore(when="events", topic=f"t{number}").open(where) is None
    sink = Events(min_seen=1, count_after_s=0).open(where)
    assert sink is not None
    found, track = [box(0.5, 0.5)], Track(1, 1e9, 1e9, 1.0, "person")
    sink.put(frame(1.0), outcome_of(found, step=Step(1.0, 1e9 + 1, [track], [])), result_of(found))
    (told,) = [each for each in encoded if isinstance(each, Event)]
    assert [each["id"] for each in outbox.sent] == [told.id] * 3
    assert [each["id"] for each in context.ipc.on("edgeml/event/p")] == [told.id]  # type: ignore[attr-defined]
    sink.close()
