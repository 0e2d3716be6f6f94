"""Packets of a broker that paho trips over cost a connection, and no more."""

import threading
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from edgeml.component import Context
from inferencer.sample import Sample
from inferencer.sources import mqtt as mqtt_source
from inferencer.sources.mqtt import MqttSamples, MqttSource
from support import eventually


def broker(*packets: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Each connection gets the next packet after its CONNACK and SUBACK."""
    import socket

    listener, seen, ended = socket.create_server(("127.0.0.1", 0)), list[bytes](), threading.Event()
    listener.settimeout(0.05)

    def serve() -> None:
        waiting = list(packets)
        while not ended.is_set():
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                continue
            with sock:
                sock.settimeout(5)
                seen.append(sock.recv(1000))
                sock.sendall(b"\x20\x02\x00\x00")
                sock.recv(1000)
                sock.sendall(b"\x90\x03\x00\x01\x00" + (waiting.pop(0) if waiting else b""))
                if waiting:
                    continue  # and hang up
                ended.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        ended.set()
        thread.join()
        listener.close()


def was(found: Sample | None, data: list[str]) -> bool:
    return found is not None and found.data == data


GOOD = b"\x30\x08\x00\x01t1,2,3"
ODD_PACKETS = {
    "a topic that is no text": b"\x30\x08\x00\x01\xff1,2,3" + GOOD,
    "a topic beyond its packet": b"\x30\x03\x00\xff1",
    "an empty publish": b"\x30\x00",
    "a publish without a topic": b"\x30\x02\x00\x00",
    "a length without end": b"\x30\xff\xff\xff\xff\xff",
    "no such packet": b"\xf0\x02\x00\x00",
    "an acknowledgement of nothing": b"\x40\x01\x00",
    "a short connack": b"\x20\x01\x00",
    "a short suback": b"\x90\x01\x00",
}


@pytest.mark.parametrize("fault", ODD_PACKETS)
def test_a_packet_that_paho_trips_over_costs_a_connection_and_no_more(
    context: Context, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(mqtt_source, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_source, "RECONNECT_MIN_S", 0.01)
    for port, _ in broker(ODD_PACKETS[fault], GOOD):
        source = MqttSamples(MqttSource(port=port, topic="t"), 10, context, "p")
        try:
            eventually(lambda: was(source.next(0.1), ["1", "2", "3"]), 10, "a message after the fault")  # noqa: B023
            if fault == "a topic that is no text":  # which costs nothing at all
                assert context.health.counter("p.broker_failed") == 0
        finally:
            source.close()


def test_an_error_within_paho_is_told_and_it_is_connected_anew(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt_source, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_source, "RECONNECT_MIN_S", 0.01)
    raised: list[bool] = []
    original = mqtt.MQTTMessage

    def message(*given: Any, **options: Any) -> mqtt.MQTTMessage:
        if not raised:
            raised.append(True)
            raise OverflowError("of paho")
        return original(*given, **options)

    monkeypatch.setattr(mqtt, "MQTTMessage", message)
    for port, seen in broker(GOOD, GOOD):
        source = MqttSamples(MqttSource(port=port, topic="t"), 10, context, "p")
        try:
            eventually(lambda: was(source.next(0.1), ["1", "2", "3"]), 10, "a message after the fault")  # noqa: B023
            assert len(seen) == 2
            assert context.health.counter("p.broker_failed") == 1
            assert "OverflowError: of paho" in caplog.text
        finally:
            source.close()
