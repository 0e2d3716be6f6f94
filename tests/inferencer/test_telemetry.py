"""A turbine's readings in, readings and verdicts out."""

from pathlib import Path
from typing import Any

import pytest

from edgeml.bundle import load
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.topic import TopicSource
from inferencer.tasks.turbine.telemetry import Telemetry, TelemetrySink
from inferencer_support import Recorder, deliver, make_context, no_uploads, picture, pipeline, sample
from localdev.simulators.turbine import Fault, Turbine
from support import ROOT, eventually

BUNDLE = ROOT / "components" / "model_store" / "wind_turbine"


def csv(reading: tuple[float, ...]) -> bytes:
    return ",".join(map(str, reading)).encode()


class Windmill:
    def __init__(self, tmp_path: Path, **telemetry: Any) -> None:
        self.ipc = Recorder()
        self.context = make_context(tmp_path / "work", self.ipc)
        self.relay = Outbox(
            self.context.work / "iot_core.spool", self.context.ipc, self.context.health, max_bytes=1 << 20
        )
        settings = pipeline(
            OnnxBackend(model="WindTurbine", path=str(BUNDLE)),
            TopicSource(topic="t"),
            verdict_every_s=0,
            telemetry=Telemetry(enabled=True, **telemetry),
        )
        self.running = Assembly(self.context, tmp_path, self.relay, no_uploads).start("p", settings)
        eventually(lambda: self.context.health.counter("pipelines.p.models_loaded"), 10, "the model")

    def send(self, payload: bytes) -> None:
        deliver(self.running, "t", payload)

    def done(self) -> int:
        counters = ("inferences", "without_answer", "failed")
        return sum(self.context.health.counter(f"pipelines.p.{name}") for name in counters)

    def close(self) -> None:
        self.running.worker.stop()
        self.relay.close()


def test_a_fault_is_flagged_and_both_types_of_message_leave(tmp_path: Path) -> None:
    windmill = Windmill(tmp_path, rawdata_every_s=3600, inference_every_s=0)
    turbine = Turbine(seed=4)
    try:
        for number in range(800):
            windmill.send(csv(turbine.read(Fault.VOLTAGE_DROP if number >= 600 else Fault.NONE)))
        eventually(lambda: windmill.done() == 800, 20, "all readings")
        verdicts = [r["results"] for r in windmill.ipc.on("edgeml/inference/p")]
        assert len(verdicts) == 301  # from the 500th reading on
        assert not any(any(verdict["anomalies"]) for verdict in verdicts[:100])
        last = verdicts[-1]
        flagged = [name for name, is_odd in zip(last["features"], last["anomalies"], strict=True) if is_odd]
        assert "voltage" in flagged
    finally:
        windmill.close()
    sent = windmill.ipc.iot
    assert {topic for topic, _ in sent} <= {"device/bench/logs"}
    first = next(message for _, message in sent if message["type"] == "rawdata")
    assert set(first["data"]) == {"ts", "values"}
    assert len(first["data"]["values"]) == 6
    assert len([m for _, m in sent if m["type"] == "rawdata"]) == 1  # limited by its own rate
    verdict = next(message for _, message in sent if message["type"] == "inference")
    assert set(verdict) == {"type", "model_name", "model_version", "anomalies", "values", "ts"}
    assert (verdict["model_name"], verdict["model_version"]) == ("WindTurbine", load(BUNDLE).ref.version)
    assert len(verdict["anomalies"]) == len(verdict["values"]) == 6


def test_malformed_readings_are_counted_and_say_what_was_expected(tmp_path: Path) -> None:
    windmill = Windmill(tmp_path)
    bad = [b"1,2,3", b"x" * 50, b"", csv((float("nan"),) * 20), b'{"a": 1}', b"[[1]]", csv((1.0,) * 21)]
    try:
        for number, payload in enumerate(bad, 1):
            windmill.send(payload)
            eventually(lambda: windmill.context.health.counter("pipelines.p.failed") == number, 5, "the count")  # noqa: B023
            if number == 1:
                assert "has 20 fields, got 3" in str(windmill.context.health.report().last_error)
        windmill.send(csv(Turbine().read()))
        eventually(lambda: windmill.context.health.counter("pipelines.p.without_answer") == 1, 5, "the good one")
        eventually(lambda: windmill.ipc.iot, 5, "its reading")
    finally:
        windmill.close()


def test_pictures_are_no_readings(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    try:
        TelemetrySink(Telemetry(enabled=True), context, relay).seen(sample(picture()))
    finally:
        relay.close()


@pytest.mark.parametrize("rate", [0.0, 3600.0])
def test_verdicts_are_limited_by_configuration(tmp_path: Path, rate: float) -> None:
    windmill = Windmill(tmp_path, rawdata_every_s=3600, inference_every_s=rate)
    turbine = Turbine()
    try:
        for _ in range(510):
            windmill.send(csv(turbine.read()))
        eventually(lambda: windmill.done() == 510, 20, "all readings")
        expected = 11 if rate == 0 else 1
        eventually(lambda: len([m for _, m in windmill.ipc.iot if m["type"] == "inference"]) == expected, 5, "verdicts")
    finally:
        windmill.close()
