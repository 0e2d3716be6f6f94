"""Who asks from afar: which requests are answered, with what, and how large an answer can be."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeml.clock import Clock
from edgeml.component import Context
from edgeml.errors import IpcError, NotFoundError
from edgeml.frames import FrameWriter
from edgeml.health import Health
from edgeml.messages import Problem
from ipc_support import FakeIpc
from localdev.cloud import LocalCloud
from monitor import look as rules
from monitor.config import Config
from monitor.look import AGE_S, BURST, EACH_S, MAX_ANSWER_BYTES, MAX_KNOWN, MAX_PICTURE_BYTES, Gate, Look
from monitor.state import State
from support import eventually

NOW = 1_800_000_000.0
TOPIC = "edgeml/device/press-1/look"
BUCKET = "edgeml-data"


def asked(request_id: str = "0123456789abcdef", at: float | None = NOW, **more: Any) -> bytes:
    return json.dumps({"id": request_id, **({} if at is None else {"at": at}), **more}).encode()


class Times:
    """Both clocks of a gate."""

    def __init__(self, *, believed: bool = True) -> None:
        self.passed = 0.0
        self.gate = Gate(Clock(wall=lambda: NOW + self.passed, vouched=lambda: believed), lambda: self.passed)


REFUSED = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no id": json.dumps({"at": NOW}).encode(),
    "a short id": asked("0123"),
    "a long id": asked("x" * 65),
    "an id that is a path": asked("../../../../etc/passwd"),
    "an id with a line feed": asked("0123456789abcdef\n"),
    "no time": asked(at=None),
    "a time that is text": asked(at="now"),  # type: ignore[arg-type]
    "an endless time": b'{"id": "0123456789abcdef", "at": 1e999}',
    "too old": asked(at=NOW - AGE_S - 1),
    "from the future": asked(at=NOW + AGE_S + 1),
    "pictures that are no yes": asked(pictures="all"),
    "too large": asked(more="x" * 600),
    "too deep": b'{"id": "0123456789abcdef", "at": 1, "x":' + b"[" * 400,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_request_is_refused_and_uses_nothing_up(case: str) -> None:
    gate = Times().gate
    for _ in range(BURST + 1):
        assert gate.admitted(REFUSED[case]) is None
    assert gate.admitted(asked(pictures=True)) is not None


def test_a_request_is_answered_once() -> None:
    times = Times()
    assert times.gate.admitted(asked()) is not None
    times.passed = AGE_S
    assert times.gate.admitted(asked()) is None
    times.passed = AGE_S + 1  # and then it is too old
    assert times.gate.admitted(asked()) is None


def test_requests_are_limited_and_what_is_remembered_too() -> None:
    times, admitted = Times(), 0
    for number in range(2000):
        times.passed = number * 1.0
        admitted += times.gate.admitted(asked(f"{number:016}", NOW + times.passed)) is not None
    assert admitted <= BURST + 2000 / EACH_S
    assert AGE_S * 2 / EACH_S + BURST < len(times.gate) <= MAX_KNOWN


def test_a_clock_that_is_not_set_asks_for_no_time() -> None:
    gate = Times(believed=False).gate
    assert gate.admitted(asked(at=5.0)) is not None
    assert gate.admitted(asked(at=5.0)) is None


class Core(FakeIpc):
    """A core whose Inferencer has `pipelines`, and which may be offline."""

    offline = False

    def __init__(self, **pipelines: Any) -> None:
        super().__init__()
        self._pipelines = pipelines

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component != "edgeml.Inferencer":
            raise NotFoundError(component)
        return {"pipelines": self._pipelines}

    def subscribe_iot(self, topic: str, handler: Any, *, qos: int = 1) -> Any:
        if self.offline:
            raise IpcError("offline")
        return super().subscribe_iot(topic, handler, qos=qos)


class Device:
    """A thing `press-1` that can be asked, with a ring of the camera `door`."""

    def __init__(self, folder: Path, ipc: Core, *problems: Problem) -> None:
        self.ipc, self.folder, self.numbers = ipc, folder, 0
        self.context = Context(ipc, Health("edgeml.Monitor", "1"), folder, folder, "press-1")
        self.state = State("press-1", "1.1.0", lambda: problems)
        self.state.neighbours.place(folder)
        self.state.neighbours.ask(ipc)
        self.look = Look(self.context, self.state)
        self.writer = FrameWriter("door", width=1280, height=720, directory=folder)
        self._filming = threading.Thread(target=self._film)

    def _film(self) -> None:
        rng = np.random.default_rng(1)
        while not self.context.stopping.wait(0.05):
            self.writer.write(rng.integers(0, 256, (720, 1280, 3), np.uint8))

    def start(self, **config: Any) -> None:
        self._filming.start()
        self.look.start(msgspec.convert({"look_bucket": BUCKET, **config}, Config))
        eventually(lambda: TOPIC in self.ipc.handlers, 10, "its subscription")

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a new request."""
        self.numbers += 1
        self.ipc.handlers[TOPIC](TOPIC, asked(f"{self.numbers:016}", time.time(), **request))
        answers = eventually(lambda: self.ipc.answers("/look/reply")[self.numbers - 1 :], 30, "an answer")
        answer: dict[str, Any] = answers[0]
        assert answer["id"] == f"{self.numbers:016}"
        return answer

    def end(self) -> None:
        self.context.stopping.set()
        self.look.ask_to_stop()
        if self._filming.is_alive():
            self._filming.join(5)
        self.writer.close()


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.aws.client("s3").create_bucket(Bucket=BUCKET)
        yield running


Made = Callable[..., Device]


@pytest.fixture
def made(tmp_path: Path, cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    devices: list[Device] = []

    def make(*problems: Problem, **pipelines: Any) -> Device:
        devices.append(Device(tmp_path, Core(**pipelines), *problems))
        return devices[-1]

    yield make
    for device in devices:
        device.end()


def stored(cloud: LocalCloud, key: str) -> bytes:
    data: bytes = cloud.aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return data


def test_the_state_is_answered_and_pictures_only_where_they_are_allowed(made: Made, cloud: LocalCloud) -> None:
    device = made(Problem(code="clock", subject="device", text="not set", since=5.0))
    device.start()
    answer = device.ask(pictures=True)
    assert answer["report"]["why"] == "look"
    assert [item["code"] for item in answer["report"]["problems"]] == ["clock"]
    assert answer["missing"] == {"pictures": "look is state"}
    assert "pictures" not in answer
    state = json.loads(stored(cloud, "look/press-1/0000000000000001/state.json"))
    assert [camera["name"] for camera in state["cameras"]] == ["door"]

    device.look.reconfigure(msgspec.convert({"look_bucket": BUCKET, "look": "pictures"}, Config))
    answer = device.ask(pictures=True)
    assert abs(answer["pictures"]["door"] - time.time()) < 30
    jpeg = stored(cloud, "look/press-1/0000000000000002/door.jpg")
    assert jpeg.startswith(b"\xff\xd8\xff")
    assert len(jpeg) <= MAX_PICTURE_BYTES  # noise, of which a picture of the full width has more


def test_what_is_private_and_not_yet_hidden_is_not_shown(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PICTURE_S", 1.0)
    device = made(faces={"source": {"type": "camera", "camera": "door"}, "privacy": {}})
    device.start(look="pictures")
    answer = device.ask(pictures=True)
    assert "pictures" not in answer
    assert answer["missing"]["door"].startswith("no picture")


def test_without_a_bucket_or_with_a_wrong_one_the_report_is_there(made: Made) -> None:
    device = made()
    device.start(look_bucket="")
    assert device.ask()["missing"] == {"state.json": "look_bucket is not configured"}
    device.look.reconfigure(msgspec.convert({"look_bucket": "nobody-has-this"}, Config))
    answer = device.ask()
    assert "NoSuchBucket" in answer["missing"]["state.json"]
    assert answer["report"]["thing"] == "press-1"


def test_off_hears_nobody_until_it_is_on(made: Made) -> None:
    device = made()
    device.start()
    device.look.reconfigure(msgspec.convert({"look": "off"}, Config))
    eventually(lambda: TOPIC not in device.ipc.handlers, 10, "the end of its subscription")
    device.look.reconfigure(msgspec.convert({}, Config))
    eventually(lambda: TOPIC in device.ipc.handlers, 10, "its subscription")


def test_a_core_that_is_offline_at_the_start_is_asked_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "AGAIN_S", 0.1)
    device = made()
    device.ipc.offline = True
    device.look.start(Config())
    eventually(lambda: device.context.health.report().last_error, 10, "its error")
    device.ipc.offline = False
    eventually(lambda: TOPIC in device.ipc.handlers, 10, "its subscription")


def test_a_flood_is_counted_and_waits_nowhere(made: Made) -> None:
    device = made()
    device.start()
    for number in range(200):
        device.ipc.handlers[TOPIC](TOPIC, asked(f"flood{number:011}", time.time()))
    assert device.context.health.counter("look.refused") >= 200 - BURST - 1
    assert device.context.health.counter("look.requests") <= BURST + 1


WORST = Problem(code="clock", subject="\x00" * 300, text='"\\\x01' * 100, since=1e17)


@pytest.mark.parametrize("cameras", [0, 1, rules.MAX_CAMERAS])
def test_an_answer_is_small_whatever_is_missing(cameras: int) -> None:
    reasons = {f"{'c' * 46}{number:02}": '"' * rules.MAX_REASON for number in range(cameras)}
    bare = rules.Answer(id="x" * 64, report=msgspec.Raw(b""), bucket="b" * 63, missing=reasons)
    sent = rules.with_report(bare, State("press-1", "1.1.0", lambda: [WORST] * 60))
    assert len(sent) <= MAX_ANSWER_BYTES
    answer = json.loads(sent)
    assert (len(answer.get("missing", {})), answer["report"]["thing"]) == (cameras, "press-1")
