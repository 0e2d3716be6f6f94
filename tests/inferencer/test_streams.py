"""Samples from topics, local and of a broker, in order and bounded."""

import subprocess
import sys
import threading

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import ConfigError
from forked import popen
from inferencer.config import Config
from inferencer.sources.caller import CallerSamples, CallerSource, Measurements
from inferencer.sources.mqtt import MqttSamples, MqttSource
from inferencer.sources.stream import StreamSamples
from localdev.mqtt_end import let_go
from support import eventually


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id": "\\ud800", "features": [1]}',
        b'{"features": [1], "measured": NaN}',
        b'{"features": [1], "measured": "x"}',
        b'{"features": 1}',
        b"{" * 9999,
        b"\xff",
    ],
)
def test_samples_and_truths_that_are_none_are_counted(context: Context, payload: bytes) -> None:
    caller = CallerSamples(CallerSource(topic="t"), context, "p")
    caller.received("t", payload)
    Measurements("p", "m", context).received("t", payload)
    assert context.health.counter("messages_refused") == 2
    assert caller.next(0) is None


def test_a_message_beyond_all_sense_is_not_kept(context: Context) -> None:
    samples = StreamSamples(5, context, "p")
    samples.received("t", b"1," * (1 << 20))
    samples.received("t", b"1")
    found = samples.next(0)
    assert found is not None
    assert found.data == ["1"]
    assert context.health.counter("p.messages_refused") == 1


@pytest.mark.parametrize("topic", ["a/#/b", "a#", "a+/b", "+a", "#/a", "a\0"])
def test_a_topic_that_no_broker_takes_is_refused_as_configuration(topic: str) -> None:
    source = {"type": "mqtt", "topic": topic}
    backend = {"type": "http", "url": "http://h", "task": "regression"}
    with pytest.raises(ConfigError, match=r"pipelines\.p\.source\.topic"):
        load(Config, {"pipelines": {"p": {"source": source, "backend": backend}}})
    for good in ("a/+/b", "#", "+", "a/#", "/a", "turbine/raw"):
        load(Config, {"pipelines": {"p": {"source": {**source, "topic": good}, "backend": backend}}})


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("limit", [1, 3])
def test_the_oldest_messages_go_first_and_are_counted(context: Context, limit: int, count: int) -> None:
    stream = StreamSamples(limit, context, "p")
    for number in range(count):
        stream.received("t", str(number).encode())
    taken = [stream.next(0.001) for _ in range(limit + 1)]
    kept = min(count, limit)
    assert [found.data for found in taken if found] == [[str(number)] for number in range(count - kept, count)]
    assert context.health.counter("p.messages_dropped") == count - kept


class Publisher:
    """Publishes rising numbers as fast as it is told, over broker restarts."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._stop = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.count += 1
            self._client.publish("turbine/raw", f"{self.count},0,0")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        let_go(self._client)


BROKER = """
import sys
from localdev.cloud.broker import Broker
print(Broker(int(sys.argv[1])).start().port, flush=True)
sys.stdin.read()
"""


def broker_process(port: int = 0) -> tuple["subprocess.Popen[str]", int]:
    process = popen(
        [sys.executable, "-c", BROKER, str(port)],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate(timeout=10)


def test_a_broker_restarted_under_load_is_found_again(context: Context) -> None:
    broker, port = broker_process()
    samples = MqttSamples(MqttSource(port=port), 1000, context, "p")
    publisher = Publisher(port)
    try:
        assert eventually(lambda: samples.next(0.1), 10, "a first message")
        end(broker)
        eventually(lambda: context.health.counter("p.broker_lost"), 10, "the loss")
        assert "lost" in context.health.report().notes["p.broker"]
        before = publisher.count
        broker, _ = broker_process(port)

        def later() -> bool:
            found = samples.next(0.1)
            return found is not None and int(found.values[0]) > before  # type: ignore[index]

        eventually(later, 15, "a message after the restart")
        assert "p.broker" not in context.health.report().notes
    finally:
        publisher.close()
        samples.close()
        end(broker)
