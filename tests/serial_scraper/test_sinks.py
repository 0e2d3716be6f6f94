from typing import Any

import pytest

from edgeml.edge_impulse.device import Topics
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.edge_impulse.reporter import Reporter
from edgeml.errors import SpoolError
from edgeml.health import Health
from edgeml.messages import decode
from serial_scraper import sinks
from serial_scraper.config import IotCore, Port
from serial_scraper.sinks import RateLimit, Sinks


@pytest.fixture
def health() -> Health:
    return Health("test", "1")


def test_a_rate_limit_lets_a_burst_of_one_second_through_and_then_the_rate() -> None:
    now = 0.0
    limit = RateLimit(4, clock=lambda: now)
    assert [limit.allows() for _ in range(6)] == [True] * 4 + [False] * 2
    now = 0.5
    assert [limit.allows() for _ in range(3)] == [True, True, False]
    now = 100.0
    assert sum(limit.allows() for _ in range(10)) == 4


def test_a_rate_below_one_per_second_lets_the_first_one_through() -> None:
    now = 0.0
    limit = RateLimit(0.1, clock=lambda: now)
    assert [limit.allows(), limit.allows()] == [True, False]
    now = 10.0
    assert limit.allows()


def test_a_failing_sink_keeps_nothing_from_the_others(health: Health) -> None:
    taken: list[bytes] = []

    def fails(record: Any, payload: bytes) -> None:
        raise SpoolError("disk full")

    every = Sinks("mcu", Port(), health, {"first": fails, "second": lambda record, payload: taken.append(payload)})
    every([{"a": 1}, {"a": 2}])
    assert [decode(payload, dict)["record"] for payload in taken] == [{"a": 1}, {"a": 2}]
    assert health.counter("ports.mcu.first_failed") == 2
    assert health.report().last_error == "disk full"


def test_records_above_the_iot_core_rate_are_counted(health: Health) -> None:
    sent: list[tuple[str, bytes]] = []
    config = Port(iot_core=IotCore(topic="t", max_per_s=2))
    sink = sinks.iot_core("mcu", config, lambda topic, payload: sent.append((topic, payload)), health)
    for _ in range(5):
        sink({}, b"{}")
    assert sent == [("t", b"{}")] * 2
    assert health.counter("ports.mcu.iot_core_over_rate") == 3


def published(health: Health, **record: Any) -> dict[str, Any]:
    sent: list[bytes] = []
    reporter = Reporter(
        interpret(Parameters(iotcore_backoff=0)),
        Topics("d"),
        lambda topic, payload: sent.append(payload),
        health=health,
        max_bytes=100_000,
        restart=lambda: None,
    )
    sinks.edge_impulse(reporter)(record, b"")
    (payload,) = sent
    return decode(payload, dict)


def test_tracks_without_boxes_are_published_as_boxes_and_keep_their_ids(health: Health) -> None:
    rect = {"x": 1, "y": 2, "width": 3, "height": 4}
    track = {"object_id": 7, "label": "face", "value": 0.5, **rect}
    payload = published(health, timing={}, result={"object_tracking": [track]})
    assert payload["box"] == [{"label": "face", "value": 0.5, **rect}]
    assert payload["tracking"] == [track]
    assert "time_splits" not in payload


def test_fractions_of_milliseconds_are_kept(health: Health) -> None:
    timing = {"dsp": 2.5, "classification": 14.0, "anomaly": 0.0, "postprocessing": 1.0}
    payload = published(health, timing=timing, result={"classification": {"value": 12.5}, "is_regression": True})
    assert payload["time_splits"] == {"DSP": 2.5, "Classification": 14, "Anomaly": 0, "Postprocessing": 1, "UOM": "ms"}
    assert payload["time_ms"] == 17.5
    assert payload["c"] == {"value": 12.5}
