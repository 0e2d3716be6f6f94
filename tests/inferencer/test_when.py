"""When results go to IoT Core: by time, and by change."""

from collections.abc import Sequence
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.messages import (
    Anomaly,
    Classification,
    Regression,
)
from events_support import Outbox, box, frame, outcome_of, placed, result_of
from inferencer.sinks.iot_core import IotCore


def numbers(context: Context, settings: IotCore, answers: Sequence[tuple[float, Any]]) -> list[int]:
    """Which of the answers are sent."""
    outbox = Outbox()
    sink = settings.open(placed(context, outbox))
    assert sink is not None
    for number, (at, results) in enumerate(answers):
        sink.put(frame(at), outcome_of(results), result_of(results, number))
    return [message["source"].get("frame_id", 0) for message in outbox.sent]


def test_results_by_time_and_by_change(context: Context) -> None:
    one, two = [box(0.1, 0.8)], [box(0.2, 0.8), box(0.4, 0.8)]
    answers = [(n / 2, found) for n, found in enumerate([[], one, one, two, two, [], [], one, one, one, two])]
    assert numbers(context, IotCore(), answers) == [1, 2, 3, 4, 7, 8, 9, 10]
    assert numbers(context, IotCore(every=3), answers) == [1, 4, 9]
    assert numbers(context, IotCore(when="interval", interval_s=1.5), answers) == [1, 4, 7, 10]
    assert numbers(context, IotCore(when="on_change"), answers) == [1, 3, 5, 7, 10]


SURE = [[Classification("a", score), Classification("b", 1 - score)] for score in (0.9, 0.8, 0.7)]
BOTH = Anomaly([True, True], [2, 2], [1, 1])


@pytest.mark.parametrize(
    ("results", "changes"),
    [
        ([*SURE, [Classification("b", 0.9)]], [0, 3]),
        ([Anomaly([False, True], [1, 2], [1, 1]), Anomaly([False, True], [2, 2], [1, 1]), BOTH], [0, 2]),
        ([Regression(1.0), Regression(1.0), Regression(2.0)], [0, 2]),
    ],
    ids=["classes", "anomalies", "values"],
)
def test_other_answers_change_when_they_say_something_else(
    context: Context, results: list[Any], changes: list[int]
) -> None:
    answers = [(float(number), found) for number, found in enumerate(results)]
    assert numbers(context, IotCore(when="on_change"), answers) == changes
