"""Numbers from topics, brokers, timers and files."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.component import Context
from edgeml.errors import BackendError, ConfigError
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly, check
from inferencer.config import CallerSource, HttpBackend, MqttSource, OnnxBackend, TimerSource
from inferencer.stream_sources import MqttSamples, StreamSamples, numbers
from inferencer.timer_sources import TimerSamples
from inferencer_support import Recorder, make_context, picture, pipeline, regressor
from support import ROOT, eventually


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path / "work")


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"1,2.5,-3e2\n", ["1", "2.5", "-3e2"]),
        (b" [1, 2.5]", [1, 2.5]),
        (b"7", ["7"]),
        (b'{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        (b'{"features": [1, 2], "id": 7}', [1, 2]),
    ],
)
def test_numbers_in_every_dialect(payload: bytes, values: Any) -> None:
    assert numbers(payload) == values


@pytest.mark.parametrize("payload", [b"[1, 2", b'{"features": 7}', b"\xff\xfe", b"[" * 100_000, b'{"features": "x"}'])
def test_what_holds_no_numbers_is_an_error(payload: bytes) -> None:
    with pytest.raises(BackendError, match="expected"):
        numbers(payload)


def test_the_oldest_messages_go_first_and_are_counted(context: Context) -> None:
    stream = StreamSamples(3, context, "p")
    for number in range(5):
        stream.received("t", str(number).encode())
    taken = [stream.next(0.01) for _ in range(4)]
    assert [found and found.data for found in taken] == [["2"], ["3"], ["4"], None]
    assert context.health.counter("p.messages_dropped") == 2


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
        self._client.disconnect()
        self._client.loop_stop()


BROKER = """
import sys
from localdev.cloud.broker import Broker
print(Broker(int(sys.argv[1])).start().port, flush=True)
sys.stdin.read()
"""


def broker_process(port: int = 0) -> tuple["subprocess.Popen[str]", int]:
    process = subprocess.Popen(
        [sys.executable, "-c", BROKER, str(port)],
        env={"PYTHONPATH": str(ROOT / "scripts")},
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


def test_a_timer_reads_files_anew(tmp_path: Path, context: Context) -> None:
    cases: dict[str, Any] = {"a.csv": "1,2,3\n", "b.npy": np.arange(3.0), "c.png": picture(blue=5)}
    for name, content in cases.items():
        path = tmp_path / name
        source = TimerSamples(TimerSource(file=str(path), every_s=0.01), tmp_path, "p")
        with pytest.raises(BackendError, match="No such file"):
            source.next(1)
        if name == "a.csv":
            path.write_text(content)
        elif name == "b.npy":
            np.save(path, content)
        else:
            cv2.imwrite(str(path), content)
        found = source.next(1)
        assert found is not None
        np.testing.assert_array_equal(found.data, content.strip().split(",") if isinstance(content, str) else content)
    (tmp_path / "a.csv").write_text("4")
    again = TimerSamples(TimerSource(file=str(tmp_path / "a.csv"), every_s=0.01), tmp_path, "p").next(1)
    assert again is not None
    assert again.data == ["4"]


def test_a_timer_takes_the_newest_frame(tmp_path: Path) -> None:
    with FrameWriter("c", width=4, height=4, directory=tmp_path) as writer:
        source = TimerSamples(TimerSource(camera="c", every_s=0.05), tmp_path, "p")
        for value in range(3):
            writer.write(np.full((4, 4, 3), value, np.uint8))
        found = source.next(1)
        assert found is not None
        assert found.source.frame_id == 3
        with pytest.raises(BackendError, match="no new frame"):
            source.next(0.2)
        source.close()


class Caller:
    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.ipc = Recorder()
        context = make_context(tmp_path / "work", self.ipc)
        self.relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        backend = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "b")))
        settings = {"rate_hz": 50, **settings}
        self.running = Assembly(context, tmp_path, self.relay, None).start(
            "p", pipeline(backend, CallerSource(**settings))
        )

    def results(self, count: int) -> list[Any]:
        return eventually(lambda: r if len(r := self.ipc.on("edgeml/inference/p")) >= count else [], 10, "results")

    def close(self) -> None:
        self.running.worker.stop()
        self.relay.close()


def test_a_caller_asks_with_the_rows_of_a_file_and_shows_the_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c,took\n1,2,3,5\n4,5,6,16\n")
    caller = Caller(tmp_path, file=str(tmp_path / "rows.csv"), target="took")
    try:
        found = [result["results"] for result in caller.results(3)]
        assert found[:3] == [
            {"value": 6.0, "measured": 5.0, "error": 1.0},
            {"value": 15.0, "measured": 16.0, "error": -1.0},
            {"value": 6.0, "measured": 5.0, "error": 1.0},
        ]
    finally:
        caller.close()


def test_a_caller_keeps_its_rate(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n")
    caller = Caller(tmp_path, file=str(tmp_path / "rows.csv"), rate_hz=40)
    try:
        before, began = len(caller.results(1)), time.monotonic()
        caller.results(before + 30)
        assert 0.7 < time.monotonic() - began < 1.5
    finally:
        caller.close()


def test_the_measured_value_may_arrive_later(tmp_path: Path) -> None:
    caller = Caller(tmp_path, topic="samples", measured_topic="truths", rate_hz=20)
    try:
        caller.running.subscriptions["samples"]("samples", json.dumps({"id": 7, "features": [1, 1, 1]}).encode())
        assert caller.results(1)[0]["results"] == {"value": 3.0}
        caller.running.subscriptions["truths"]("truths", b'{"id": 7, "measured": 2.5}')
        measured = eventually(lambda: [r for r in caller.results(1) if "measured" in r["results"]], 5, "the comparison")
        assert measured[0]["results"] == {"value": 3.0, "measured": 2.5, "error": 0.5}
        assert measured[0]["request_id"] == "7"
        for nonsense in (b"", b"[]", b'{"id": 1}', b'{"id": 7, "measured": "x"}', b'{"id": "unknown", "measured": 1}'):
            caller.running.subscriptions["truths"]("truths", nonsense)
    finally:
        caller.close()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (TimerSource(), "file or camera"),
        (TimerSource(file="a", camera="b"), "file or camera"),
        (CallerSource(), "file or topic"),
    ],
)
def test_sources_that_name_too_little_or_too_much(source: Any, problem: str) -> None:
    settings = pipeline(HttpBackend(url="http://x", task="regression"), source)
    with pytest.raises(ConfigError, match=problem):
        check({"p": settings})
