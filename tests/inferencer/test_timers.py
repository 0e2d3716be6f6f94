"""Sources that go by the clock: files read anew, frames, and rows of a file as questions."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.component import Context
from edgeml.errors import BackendError, ConfigError
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly, check
from inferencer.backends.http import HttpBackend
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.caller import CallerSource
from inferencer.sources.timer import TimerSamples, TimerSource
from inferencer_support import Recorder, deliver, make_context, no_uploads, picture, pipeline, regressor
from support import eventually


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
        assert 0.7 < time.monotonic() - began < 2.5
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
