"""AWS IoT Jobs' MQTT API as the device speaks it, against a cloud that answers as it is told to."""

import json
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgeml.errors import IpcError
from edgeml.ipc import matches
from ipc_support import FakeIpc
from model_updater import jobs as module
from model_updater.errors import JobGone, JobsError
from model_updater.jobs import Execution, Jobs, shallow

BASE = "$aws/things/pump/jobs"
EXECUTION = {"jobId": "j", "status": "IN_PROGRESS", "executionNumber": 3, "jobDocument": {"a": 1}}

Answer = tuple[str, dict[str, Any]]  # accepted or rejected, body


class Cloud(FakeIpc):
    """A connection on which a reply goes to those who are subscribed to its topic, and to nobody else."""

    def __init__(self, *answers: Answer | None) -> None:
        super().__init__(self._away)
        self.replies = list(answers)  # None: there is none
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.qos: set[int] = set()
        self.subscribed: list[str] = []
        self.offline_at = ""

    def _away(self, call: str, topic: str) -> None:
        if call == "subscribe_iot":
            if self.offline_at and topic.endswith(self.offline_at):
                raise IpcError("no answer in 10 s")
            self.subscribed.append(topic.removeprefix(f"{BASE}/"))

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        request = json.loads(payload)
        self.asked.append((topic.removeprefix(f"{BASE}/"), request))
        self.qos.add(qos)
        if (answer := self.replies.pop(0)) is not None:
            verdict, body = answer
            self.send(f"{topic}/{verdict}", {**body, "clientToken": request["clientToken"]})

    def send(self, topic: str, body: dict[str, Any]) -> None:
        for pattern, handler in list(self.handlers.items()):
            if matches(pattern, topic):
                handler(topic, json.dumps(body).encode())

    def forget(self) -> None:
        """What Nucleus Lite does when its connection's process restarts."""
        self.handlers.clear()


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_TIMEOUT_S", 0.05)


def accepted(**body: Any) -> Answer:
    return "accepted", body


def rejected(code: str) -> Answer:
    return "rejected", {"code": code, "message": "because"}


REQUESTS: dict[str, Callable[[Jobs], Any]] = {
    "start-next": lambda jobs: jobs.start_next(),
    "j/get": lambda jobs: jobs.get("j"),
    "j/update": lambda jobs: jobs.update(Execution("j"), "IN_PROGRESS", {"step": "admit"}),
}


def test_requests_are_answered() -> None:
    cloud = Cloud(accepted(execution=EXECUTION), accepted(execution=EXECUTION), accepted(), accepted(), accepted())
    jobs = Jobs(cloud, "pump", lambda: None)
    expected = Execution("j", "IN_PROGRESS", 3, {"a": 1})
    assert jobs.start_next() == jobs.get("j") == expected
    jobs.update(expected, "SUCCEEDED", {"step": "confirm"})
    assert jobs.start_next() is None
    with pytest.raises(JobGone):
        jobs.get("j")
    assert [topic for topic, _ in cloud.asked] == ["start-next", "j/get", "j/update", "start-next", "j/get"]
    sent = cloud.asked[2][1]
    assert (sent["status"], sent["executionNumber"], sent["statusDetails"]) == ("SUCCEEDED", 3, {"step": "confirm"})


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_rejection_is_heard_at_once_and_names_code_and_reason(request_name: str) -> None:
    jobs = Jobs(Cloud(rejected("RequestThrottled")), "pump", lambda: None)
    with pytest.raises(JobsError, match=f"refused {request_name}: RequestThrottled, because") as caught:
        REQUESTS[request_name](jobs)
    assert not isinstance(caught.value, JobGone)


@pytest.mark.parametrize("code", ["InvalidStateTransition", "ResourceNotFound", "TerminalStateReached"])
def test_a_job_of_which_nothing_is_expected_any_more_is_gone(code: str) -> None:
    for request in REQUESTS.values():
        with pytest.raises(JobGone):
            request(Jobs(Cloud(rejected(code)), "pump", lambda: None))


def test_each_filter_is_subscribed_to_once_however_often_it_takes() -> None:
    cloud = Cloud(accepted(), accepted())
    jobs = Jobs(cloud, "pump", lambda: None)
    for cloud.offline_at in ("start-next/accepted", "+/update/accepted", "+/update/accepted"):
        with pytest.raises(IpcError, match="no answer in 10 s"):
            jobs.start_next()
    cloud.offline_at = ""
    jobs.start_next()
    jobs.start_next()
    assert len(cloud.subscribed) == len(set(cloud.subscribed)) == 7


def test_nothing_that_is_asked_again_is_left_in_the_spool_of_a_core_that_is_offline() -> None:
    cloud = Cloud(*[accepted(execution=EXECUTION)] * 3)
    for request in REQUESTS.values():
        request(Jobs(cloud, "pump", lambda: None))
    assert cloud.qos == {0}


def test_subscriptions_that_were_lost_in_silence_are_made_anew() -> None:
    changes: list[bool] = []
    cloud = Cloud(*[accepted()] * 20)
    jobs = Jobs(cloud, "pump", lambda: changes.append(True))
    jobs.start_next()
    cloud.forget()
    for _ in range(module.UNANSWERED):
        with pytest.raises(JobsError, match="no answer"):
            jobs.start_next()
    assert jobs.start_next() is None
    cloud.send(f"{BASE}/notify-next", {})
    assert changes == [True]
    assert len(cloud.subscribed) == 2 * 7


def test_answers_that_fail_to_come_now_and_then_are_no_reason_to_subscribe_again() -> None:
    cloud = Cloud(*[accepted(), None] * 5)
    jobs = Jobs(cloud, "pump", lambda: None)
    for _ in range(5):
        jobs.start_next()
        with pytest.raises(JobsError, match="no answer"):
            jobs.start_next()
    assert len(cloud.subscribed) == 7


def test_a_report_that_is_refused_for_its_text_is_made_without_it() -> None:
    cloud = Cloud(rejected("InvalidRequest"), accepted(), rejected("InvalidRequest"), rejected("InvalidRequest"))
    jobs = Jobs(cloud, "pump", lambda: None)
    jobs.update(Execution("j"), "FAILED", {"reason": "something that AWS does not take"})
    first, second = (body for _, body in cloud.asked)
    assert first["statusDetails"]
    assert (second["status"], "statusDetails" in second) == ("FAILED", False)
    with pytest.raises(JobsError):
        jobs.update(Execution("j"), "FAILED", {"reason": "it is not the text"})
    assert len(cloud.asked) == 4


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("", "-"),
        ("\n\t ", "-"),
        ("no such\ndecoder\x1b[0m\x00", "no such decoder [0m"),
        ("Größe", "Gr\\xf6\\xdfe"),
        ("right\u202eto left", "right to left"),
        ("private \ue000 half \ud800", "private   half"),
        ("x" * 5000, "x" * 1024),
        ("ü" * 1000, "\\xfc" * 256),
    ],
)
def test_details_are_what_aws_takes(text: str, sent: str) -> None:
    cloud = Cloud(accepted())
    Jobs(cloud, "pump", lambda: None).update(Execution("j"), "FAILED", {"reason": text})
    assert cloud.asked[0][1]["statusDetails"]["reason"] == sent


def test_no_text_makes_details_that_aws_does_not_take() -> None:
    text = "".join(chr(code) for code in range(sys.maxunicode + 1))  # lone halves of pairs included
    pieces = {str(start): text[start : start + 100] for start in range(0, len(text), 100)}
    cloud = Cloud(accepted())
    Jobs(cloud, "pump", lambda: None).update(Execution("j"), "FAILED", pieces)
    sent = cloud.asked[0][1]["statusDetails"]
    assert sent.keys() == pieces.keys()
    assert all(re.fullmatch("[ -~]{1,1024}", value) for value in sent.values())


def test_a_stop_ends_the_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_TIMEOUT_S", 20)
    cloud = Cloud(None)
    jobs = Jobs(cloud, "pump", lambda: None)
    publish, asked = cloud.publish_iot, threading.Event()

    def published(topic: str, payload: bytes, *, qos: int = 1) -> None:
        publish(topic, payload, qos=qos)
        asked.set()

    monkeypatch.setattr(cloud, "publish_iot", published)

    def stop() -> None:
        asked.wait(5)
        jobs.close()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(JobsError, match="Stopping"):
        jobs.start_next()
    stopper.join()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b'{"a": {"b": 1}}', b'{"a": {"b": 1}}'),
        (b'{"a": {"b": [1, {"c": 2}]}, "d": 3}', b'{"a": {"b": null}, "d": 3}'),
        (b'[[[1], [2]], [[]], "]]]["]', b'[[null, null], [null], "]]]["]'),
        (b'{"a\\"[[[": "\\\\", "b": [[{}]]}', b'{"a\\"[[[": "\\\\", "b": [null]}'),
        (b'{"a": [[[', b'{"a": [[['),
        (b"]]]", b"]]]"),
        (b'"never ended [[[', b'"never ended [[['),
    ],
)
def test_what_is_nested_too_deep_is_read_as_null(given: bytes, expected: bytes) -> None:
    assert shallow(given, 2) == expected
