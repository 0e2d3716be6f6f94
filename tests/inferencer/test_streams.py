"""Numbers from topics, brokers, timers and files."""

import json
import os
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
from edgeml.config import load
from edgeml.errors import BackendError, ConfigError
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer import separated
from inferencer.assembly import Assembly, check
from inferencer.backends.http import HttpBackend
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Config
from inferencer.payloads import numbers
from inferencer.sources.caller import CallerSamples, CallerSource, Measurements, rows
from inferencer.sources.mqtt import MqttSamples, MqttSource
from inferencer.sources.stream import StreamSamples
from inferencer.sources.timer import TimerSamples, TimerSource
from inferencer_support import Recorder, deliver, make_context, no_uploads, picture, pipeline, regressor
from support import eventually


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


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"\xef\xbb\xbf1,2.5\r\n", ["1", "2.5"]),
        ("1,2.5\n".encode("utf-16"), ["1", "2.5"]),
        (b"1,5;2,5;3\r", ["1.5", "2.5", "3"]),
        (b"1;2.5;3", ["1", "2.5", "3"]),
        (b"1,5\t2\n", ["1.5", "2"]),
        (b"1,2,3\0", ["1", "2", "3"]),
        (b"\xef\xbb\xbf[1, 2]", [1, 2]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ],
)
def test_numbers_as_other_programs_write_them(payload: bytes, values: Any) -> None:
    assert numbers(payload) == values


@pytest.mark.parametrize(
    "payload",
    [b"1.234,5;2", b"1,\x002,3", b"\xef\xbb\xbf", b"", b"\0", b"[NaN]", b"[1e999]", b'{"a": 1, "a": 2}', b"[[" * 2000,
     b"[" + b"9" * 401 + b"]", b'{"\\ud800": 1}', b"\xe2\x80\xa8\xff", "1,2".encode("utf-16-le")],
)  # fmt: skip
def test_what_is_mixed_cut_or_beyond_numbers_is_refused(payload: bytes) -> None:
    with pytest.raises(BackendError, match="expected"):
        numbers(payload)


EXCEL = "L\u00e4nge;Breite;Ziel\r\n1,5;2;3\r\n\r\n4;5,25;6\r\n"
TABLES = {
    "as Excel saves UTF-8": b"\xef\xbb\xbf" + EXCEL.encode(),
    "as Excel saves Unicode": EXCEL.replace(";", "\t").encode("utf-16"),
    "with the separator told": b"sep=;\r\n" + EXCEL.encode(),
    "ends of lines of old Macs": EXCEL.replace("\r\n", "\r").encode(),
    "a separator at the end": EXCEL.replace("\r\n", ";\r\n").encode(),
    "quoted": EXCEL.replace("1,5", '"1,5"').replace("Breite", '"Breite"').encode(),
    "English": b"L\xc3\xa4nge,Breite,Ziel\n1.5,2,3\n4,5.25,6",
    "English, by semicolons": EXCEL.replace(",", ".").encode(),
    "blanks": b"L\xc3\xa4nge, Breite ,Ziel\n 1.5 ,2, 3\n4,5.25,6\n  \n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_people_save_them(tmp_path: Path, kind: str) -> None:
    (tmp_path / "t.csv").write_bytes(TABLES[kind])
    found = rows(tmp_path / "t.csv", "Ziel")
    assert next(found) == ({"L\u00e4nge": 1.5, "Breite": 2}, 3)
    assert next(found) == ({"L\u00e4nge": 4, "Breite": 5.25}, 6)
    assert next(found)[1] == 3  # and round again


BAD_TABLES = {
    "nothing": (b"", "no header"),
    "blank": (b"\n\n", "no header"),
    "no rows": (b"a,b\n", "no rows"),
    "a longer row": (b"a,b\n1,2\n1,2,3\n", "line 3: 3 values, the header names 2"),
    "a shorter row": (b"a;b\n1\n", "line 2: 1 values, the header names 2"),
    "decimal commas between commas": (b"a,b\n1,5,2,5\n", "line 2: 4 values, the header names 2"),
    "words": (b"a,b\n1,x\n", "line 2: expected numbers: 'x'"),
    "holes": (b"a,b\n1,\n", "line 2: expected numbers: ''"),
    "nan": (b"a,b\n1,nan\n", "'nan' is no number"),
    "infinite": (b"a,b\n1,1e999\n", "'1e999' is no number"),
    "underscores": (b"a,b\n1,1_000\n", "'1_000' is no number"),
    "digits of other scripts": ("a,b\n1,\u0663\n".encode(), "is no number"),
    "both decimal marks": (b"a;b\n1.234,5;2\n", "found commas and points"),
    "both in the file": (b"a;b\n1,5;2.5\n", "found commas and points"),
    "two of a name": (b"a,a\n1,2\n", "two columns are named 'a'"),
    "no name": (b"a,,b\n1,2,3\n", "column 2 has no name"),
    "ANSI": (b"L\xe4nge;b\n1;2\n", "save it as UTF-8"),
    "NULs": (b"a,b\n1,\x002\n", "there is a NUL in it"),
    "a quote without end": (b'a,b\n"1,2\n', "line 2: 1 values"),
    "another separator": (b"sep=|\na|b\n1|2\n", "separated by '|'"),
    "another paragraph mark": ("a,b\u20281,2".encode(), "no rows"),
    "a field beyond sense": (b"a,b\n" + b"1" * 200_000 + b",2\n", "line 2: field larger"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, fault: str) -> None:
    content, words = BAD_TABLES[fault]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BackendError) as caught:
        rows(tmp_path / "t.csv", "")
    assert words in str(caught.value)


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BackendError, match="not a regular file"):
        rows(tmp_path / "pipe", "")
    monkeypatch.setattr(separated, "MAX_BYTES", 10)
    (tmp_path / "t.csv").write_bytes(b"a,b\n" * 10)
    with pytest.raises(BackendError, match="more than 10 bytes"):
        rows(tmp_path / "t.csv", "")


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
        self.running = Assembly(context, tmp_path, self.relay, no_uploads).start(
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
        deliver(caller.running, "samples", json.dumps({"id": 7, "features": [1, 1, 1]}).encode())
        assert caller.results(1)[0]["results"] == {"value": 3.0}
        deliver(caller.running, "truths", b'{"id": 7, "measured": 2.5}')
        measured = eventually(lambda: [r for r in caller.results(1) if "measured" in r["results"]], 5, "the comparison")
        assert measured[0]["results"] == {"value": 3.0, "measured": 2.5, "error": 0.5}
        assert measured[0]["request_id"] == "7"
        for nonsense in (b"", b"[]", b'{"id": 1}', b'{"id": 7, "measured": "x"}', b'{"id": "unknown", "measured": 1}'):
            deliver(caller.running, "truths", nonsense)
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
        check({"p": settings}, "thing")
