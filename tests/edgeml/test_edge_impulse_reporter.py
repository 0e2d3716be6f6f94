import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from edgeml.edge_impulse.device import Topics
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.edge_impulse.reporter import Reporter
from edgeml.edge_impulse.results import Box, ModelInfo, Result, Timing, TrackedBox
from edgeml.health import Health

JPEG = b"\xff\xd8 a picture"
TIMING = Timing(dsp=2, classification=14)
BOX = Box(label="face", value=0.9, x=1, y=2, width=3, height=4)
CELL = Box(label="anomaly", value=5.5, x=0, y=0, width=8, height=8)


class Sent:
    """A Reporter and what it sent, decoded."""

    def __init__(self, max_bytes: int = 128 * 1024, **parameters: Any) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.restarts = 0
        self.health = Health("test", "1")
        parameters.setdefault("iotcore_backoff", 0)
        self.reporter = Reporter(
            interpret(Parameters(**parameters)),
            Topics("D"),
            lambda topic, payload: self.messages.append(
                (topic.removeprefix("/edgeimpulse/device/D/"), json.loads(payload))
            ),
            health=self.health,
            max_bytes=max_bytes,
            restart=self._restart,
        )

    def _restart(self) -> None:
        self.restarts += 1

    def result(self, result: Result, **more: Any) -> None:
        self.reporter.result(result, TIMING, **more)

    @property
    def published(self) -> list[dict[str, Any]]:
        return [message for topic, message in self.messages if topic == "inference/output"]


@pytest.mark.parametrize(
    ("result", "body", "count"),
    [
        (Result(classification={"a": 0.9, "b": 0.1}), {"c": {"a": 0.9, "b": 0.1}}, 1),
        (Result(classification={"value": 12.5}, is_regression=True), {"c": {"value": 12.5}}, 1),
        (Result(classification={"a": 0.9}, anomaly=-0.25), {"c": {"a": 0.9}, "anomaly": -0.25}, 1),
        (
            Result(bounding_boxes=[BOX, BOX]),
            {"box": [{"label": "face", "value": 0.9, "x": 1, "y": 2, "width": 3, "height": 4}] * 2},
            2,
        ),
        (
            Result(
                bounding_boxes=[BOX],
                object_tracking=[TrackedBox(object_id=4, label="face", value=0.9, x=1, y=2, width=3, height=4)],
            ),
            {
                "box": [{"label": "face", "value": 0.9, "x": 1, "y": 2, "width": 3, "height": 4}],
                "tracking": [{"label": "face", "value": 0.9, "x": 1, "y": 2, "width": 3, "height": 4, "object_id": 4}],
            },
            1,
        ),
        (
            Result(visual_anomaly_grid=[CELL], visual_anomaly_max=5.5, visual_anomaly_mean=2.0),
            {
                "grid": [{"label": "anomaly", "value": 5.5, "x": 0, "y": 0, "width": 8, "height": 8}],
                "visual_anomaly_max": 5.5,
                "visual_anomaly_mean": 2.0,
            },
            1,
        ),
        (Result(freeform=[[1.0, 2.0], [3.0]]), {"freeform": [[1.0, 2.0], [3.0]]}, 2),
    ],
)
def test_the_payload_of_every_kind_of_result(result: Result, body: dict[str, Any], count: int) -> None:
    sent = Sent()
    sent.result(result)
    sent.result(result)
    first, second = sent.published
    assert uuid.UUID(first["id"]).version == 4
    assert abs(first["ts"] - second["ts"]) < 1000
    assert first == {
        "time_ms": 16,
        "inference_count": count,
        "total_inferences": count,
        "id": first["id"],
        "ts": first["ts"],
        **body,
        "s3_bucket": "unset",
        "s3_prefix": "unset",
    }
    assert second["total_inferences"] == 2 * count
    metrics = sent.reporter.metrics.snapshot()
    assert all(isinstance(metrics[key], float) for key in ("mean_confidence", "standard_deviation"))


def test_info_and_extras_are_passed_on() -> None:
    sent = Sent()
    sent.result(Result(classification={"a": 1.0}), info="engine", extras={"time_splits": {"DSP": 2}})
    assert sent.published[0]["info"] == "engine"
    assert sent.published[0]["time_splits"] == {"DSP": 2}


def test_no_time_is_shown_as_one_millisecond() -> None:
    sent = Sent()
    sent.reporter.result(Result(classification={"a": 1.0}), Timing())
    assert sent.published[0]["time_ms"] == 1


@pytest.mark.parametrize(
    "empty",
    [
        Result(),
        Result(bounding_boxes=[]),
        Result(classification={}),
        Result(visual_anomaly_grid=[]),
        Result(freeform=[]),
    ],
)
def test_empty_results_are_neither_published_nor_counted(empty: Result) -> None:
    sent = Sent(iotcore_backoff=2)
    for result in (empty, Result(bounding_boxes=[BOX]), empty, empty, Result(bounding_boxes=[BOX])):
        sent.result(result)
    assert [message["total_inferences"] for message in sent.published] == [2]


def test_every_nth_is_published() -> None:
    sent = Sent(iotcore_backoff="3")
    for _ in range(9):
        sent.result(Result(bounding_boxes=[BOX]))
    assert [message["total_inferences"] for message in sent.published] == [3, 6, 9]


def test_the_threshold_comes_before_the_backoff() -> None:
    """Good results between bad ones are not lost because the Nth happens to be a bad one."""
    sent = Sent(iotcore_backoff=2, enable_threshold_limit="yes", default_threshold=0.5)
    for value in (0.9, 0.1, 0.8, 0.1, 0.7, 0.1, 0.6):
        sent.result(Result(classification={"a": value, "b": 0.0}))
    assert [message["c"]["a"] for message in sent.published] == [0.8, 0.6]
    assert sent.health.counter("results_below_threshold") == 3


def test_the_confidence_is_the_mean_whatever_the_order_of_boxes() -> None:
    boxes = [Box(label="f", value=value, x=0, y=0, width=1, height=1) for value in (0.1, 0.2, 0.9)]  # mean 0.4
    for ordered in (boxes, boxes[::-1]):
        sent = Sent(enable_threshold_limit="yes", default_threshold=0.45)
        sent.result(Result(bounding_boxes=ordered))
        assert sent.published == []  # running half-sums would give 0.525 one way
        assert sent.reporter.metrics.snapshot()["mean_confidence"] == 0.4


@pytest.mark.parametrize(
    "unbounded",
    [
        Result(visual_anomaly_grid=[CELL], visual_anomaly_max=5.5),
        Result(freeform=[[1.0]]),
        Result(classification={"value": 12.5}, is_regression=True),
    ],
)
def test_what_is_no_confidence_meets_no_threshold_and_spoils_no_metrics(unbounded: Result) -> None:
    sent = Sent(enable_threshold_limit="yes", default_threshold=0.9, threshold_criteria="lt")
    sent.result(unbounded)
    assert len(sent.published) == 1
    assert sent.reporter.metrics.snapshot()["details"]["n"] == 0


def picture(data: bytes = JPEG) -> Callable[[], bytes]:
    return lambda: data


def test_the_image_is_added_when_wanted() -> None:
    sent = Sent(publish_inference_base64_image="yes")
    sent.result(Result(bounding_boxes=[BOX]), image=picture())
    assert base64.b64decode(sent.published[0]["image"]) == JPEG
    assert list(sent.published[0]).index("image") < list(sent.published[0]).index("box")


def test_no_jpeg_is_made_when_nobody_wants_it() -> None:
    def unwanted() -> bytes:
        raise AssertionError("encoded for nothing")

    sent = Sent()
    sent.result(Result(bounding_boxes=[BOX]), image=unwanted)
    assert "image" not in sent.published[0]


def test_a_payload_above_the_limit_goes_without_its_image_and_says_so() -> None:
    sent = Sent(publish_inference_base64_image="yes")
    sent.result(Result(bounding_boxes=[BOX]), image=picture(b"x" * 100_000))
    (message,) = sent.published
    assert "image" not in message
    assert message["image_omitted"].endswith("131072 are allowed")
    assert message["box"][0]["label"] == "face"
    assert sent.health.counter("images_omitted") == 1


def test_a_result_too_large_without_image_is_counted() -> None:
    sent = Sent(max_bytes=500)
    sent.result(Result(freeform=[[0.123456] * 100]))
    assert sent.published == []
    assert sent.health.counter("results_too_large") == 1


def test_the_bucket_is_told_with_the_models_prefix() -> None:
    sent = Sent(enable_cache_to_s3="yes", s3_bucket="kept")
    sent.reporter.model = ModelInfo(name="Cars", version="v7")
    sent.result(Result(bounding_boxes=[BOX]))
    assert (sent.published[0]["s3_bucket"], sent.published[0]["s3_prefix"]) == ("kept", "Cars_v7/")


def test_started_metrics_and_commands_go_to_their_topics() -> None:
    sent = Sent()
    sent.reporter.started()
    sent.reporter.publish_metrics()
    sent.reporter.command(b'{"cmd":"get_threshold_filter_criteria"}')
    (started_topic, started), (metrics_topic, metrics), (answer_topic, answer) = sent.messages
    assert (started_topic, metrics_topic, answer_topic) == ("command/output", "model/metrics", "command/output")
    assert started["result"]["status"] == "started"
    assert set(started["result"]) == {"status", "ts", "id"}
    assert set(metrics) == {
        "mean_confidence", "standard_deviation", "confidence_trend", "details", "ts", "id",
    }  # fmt: skip
    assert answer == {"result": {"criteria": "ge"}}


def test_restart_is_answered_and_then_done() -> None:
    sent = Sent()
    sent.reporter.command(b'{"cmd":"restart"}')
    assert sent.messages == [("command/output", {"result": {"restart": "OK"}})]
    assert sent.restarts == 1


def test_a_cleared_retained_message_is_no_command() -> None:
    sent = Sent()
    sent.reporter.command(b"")
    assert sent.messages == []


def test_an_answer_that_the_core_does_not_take_is_an_error_instead() -> None:
    sent = Sent(max_bytes=7000)
    sent.reporter.model = ModelInfo(name="Words", version="v1", parameters={"labels": ["word"] * 2000})
    sent.reporter.command(b'{"cmd":"get_model_info"}')
    ((topic, message),) = sent.messages
    assert topic == "command/output"
    assert message["result"]["error"].endswith("7000 are allowed")
