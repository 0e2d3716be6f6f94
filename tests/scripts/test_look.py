"""scripts/look: asked over a real broker, S3 from a real stand-in; what a hostile device answers does no harm."""

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deployment.aws import Aws
from localdev.cloud import LocalCloud
from localdev.demo.observer import Observer
from look import main, objects_of
from looking import LookError, page, text
from looking.answer import MAX_PICTURE_BYTES, MAX_PICTURES, Look, complete, parsed, plain
from looking.ask import ask, to_aws, to_broker

THING, BUCKET = "press-1", "edgeml-data"
JPEG = b"\xff\xd8\xff\xe0 a picture"
EVIL = "\x1b[31m<script>alert(1)</script>\"'&\u202e\n<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.aws.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(autouse=True)
def environment(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


class Device:
    """Answers each request with what `answers` gives, which may be several messages."""

    def __init__(self, address: tuple[str, int], answers: Callable[[dict[str, Any]], list[bytes]]) -> None:
        self.observer, self._answers = Observer(address), answers
        self.requests: list[dict[str, Any]] = []
        self.observer.hear(f"edgeml/device/{THING}/look", self._asked)

    def _asked(self, topic: str, payload: bytes) -> None:
        self.requests.append(json.loads(payload))
        for answer in self._answers(self.requests[-1]):
            self.observer.publish(f"{topic}/reply", answer)

    def close(self) -> None:
        self.observer.close()


def report(**parts: Any) -> dict[str, Any]:
    return {"thing": THING, "at": 1_800_000_000.0, "version": "1.1.0", "why": "look", **parts}


def test_state_and_pictures_are_shown(cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answers(request: dict[str, Any]) -> list[bytes]:
        s3, prefix = cloud.aws.client("s3"), f"look/{THING}/{request['id']}/"
        state = {"cameras": [{"name": "door", "live": True, "fps": 15.0, "width": 1280, "height": 720}]}
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}state.json", Body=json.dumps(state))
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}door.jpg", Body=JPEG)
        wrong = {"component": "edgeml.Inferencer", "code": "clock", "subject": "x", "text": "not set", "since": 5.0}
        told = report(problems=[wrong], components={"edgeml.Monitor": {"version": "1.1.0", "status": "running"}})
        told |= {"spools": {"Inferencer.outbox.waiting": 3}, "vitals": {"cpu_temperature": 61.5}}
        answer = {"id": request["id"], "report": told, "bucket": BUCKET, "pictures": {"door": 5.0}}
        other = {"id": "of somebody else", "report": report(problems=[])}
        return [b"{", b"[]", b"x" * 5000, json.dumps(other).encode(), json.dumps(answer).encode()]

    with closing(Device(cloud.mqtt_address, answers)) as device:
        assert main([THING, "--pictures", "--mqtt", cloud.mqtt_url, "--timeout", "20"]) == 0
    (request,) = device.requests
    assert request["pictures"] is True
    shown = capsys.readouterr().out
    for part in ("edgeml.Inferencer clock", "15 frames/s", "1280x720", "Inferencer.outbox.waiting  3", "61.5"):
        assert part in shown
    file = tmp_path / f"look-{THING}.html"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().count("<img ") == 1


def test_nobody_answers(cloud: LocalCloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([THING, "--mqtt", cloud.mqtt_url, "--timeout", "0.5"]) == 1
    assert "has not answered" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["a/b"], ["#"], [""], [THING, "--timeout", "0"], [THING, "--timeout", "nan"]])
def test_what_cannot_be_asked(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1", "mqtt://", "127.0.0.1:1883", "mqtt://x:port"])
def test_a_broker_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([THING, "--mqtt", url]) == 1
    assert "expected mqtt://" in capsys.readouterr().err
    with pytest.raises(LookError):
        to_broker(url)


def test_a_broker_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([THING, "--mqtt", "mqtt://127.0.0.1:9"]) == 1
    assert "connect" in capsys.readouterr().err


def test_aws_that_is_not_there(cloud: LocalCloud) -> None:
    """As far as the SDK's signed WebSocket can be tried without AWS: it is made, and its failure is told in words."""
    connection = to_aws("127.0.0.1", "us-east-1", Aws(None).credentials())
    with pytest.raises(LookError, match="connect: "):
        ask(connection, THING, pictures=False, timeout_s=1)


def everything(value: Any) -> Look:
    """A look whose every text is `value`."""
    problem = dict.fromkeys(("component", "code", "subject", "text", "since"), value)
    told = report(at=value, version=value, problems=[problem], components={value: {"version": value, "status": value}})
    told |= {part: {value: value} for part in ("spools", "vitals", "rates", "left_out")}
    keys = ("name", "live", "fps", "width", "height", "model", "model_version", "last", "version", "status", "reason")
    state = {part: [dict.fromkeys(keys, value)] for part in ("cameras", "pipelines", "models")}
    return Look(THING, told, state, {value: JPEG}, {value: value})


class Elements(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, name) for name, _ in attrs} or {(tag, "")}


def test_markup_stays_text_and_a_terminal_obeys_nothing() -> None:
    harmless, evil = Elements(page.html(everything("x"))), Elements(page.html(everything(EVIL)))
    assert evil.found == harmless.found
    assert not {tag for tag, _ in evil.found} & {"script", "iframe", "a", "form", "object"}
    assert all(c.isprintable() for line in text.lines(everything(EVIL)) for c in line)


ODD: list[Any] = [None, 5, [], [[]], {}, {"x": []}, True, "x", 1e308, [1, "x", None, {}]]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_shapes_that_were_not_agreed_are_no_error(value: Any) -> None:
    told = dict.fromkeys(("at", "version", "problems", "components", "spools", "vitals", "rates", "left_out"), value)
    answer = {"report": told, "bucket": value, "pictures": value, "missing": value}
    look = complete(THING, "0" * 32, answer, lambda bucket, key, most: pytest.fail("nothing is to be fetched"))
    state = dict.fromkeys(("cameras", "pipelines", "models"), value)
    shown = Look(THING, look.report, state, look.pictures, look.missing)
    assert page.html(shown)
    assert list(text.lines(shown))
    complete(THING, "0" * 32, {"report": value}, lambda bucket, key, most: b"")


def test_only_what_belongs_to_the_request_is_fetched() -> None:
    fetched: list[tuple[str, int]] = []

    def fetch(bucket: str, key: str, most: int) -> bytes:
        fetched.append((key, most))
        return b"{}" if key.endswith(".json") else b"<svg>"

    names = {"../../other/x": 1, "door/../../x": 1, "a b": 1, "": 1, "x" * 49: 1, "é": 1, "door": 1}
    look = complete(THING, "abc", {"bucket": BUCKET, "pictures": names}, fetch)
    assert [key for key, _ in fetched] == [f"look/{THING}/abc/state.json", f"look/{THING}/abc/door.jpg"]
    assert look.pictures == {}
    assert look.missing == {"door": "what lies there is no JPEG"}
    many = {f"camera{number}": 1 for number in range(100)}
    look = complete(
        THING, "abc", {"bucket": BUCKET, "pictures": many}, lambda b, key, m: b"{}" if "json" in key else JPEG
    )
    assert len(look.pictures) == MAX_PICTURES


@pytest.mark.parametrize("bucket", ["a", "A" * 10, "../x", "x/y", "", 5, None])
def test_what_is_no_bucket_is_not_asked(bucket: Any) -> None:
    complete(THING, "abc", {"bucket": bucket}, lambda bucket, key, most: pytest.fail("nothing is to be fetched"))


def test_an_object_that_is_too_large_or_not_there_is_told(cloud: LocalCloud) -> None:
    fetch = objects_of(Aws(None))
    cloud.aws.client("s3").put_object(Bucket=BUCKET, Key="large", Body=b"x" * (MAX_PICTURE_BYTES + 1))
    for key, words in (("large", "more than"), ("nowhere", "NoSuchKey")):
        with pytest.raises(LookError, match=words):
            fetch(BUCKET, key, MAX_PICTURE_BYTES)


JSON = {
    "no JSON": b"{",
    "no object": b"[]",
    "deep": b"[" * 100_000,
    "no UTF-8": b'"\xff"',
    "large": b" " * 5000 + b"{}",
}


@pytest.mark.parametrize("case", JSON)
def test_what_is_no_answer(case: str) -> None:
    with pytest.raises(LookError):
        parsed(JSON[case], 4096 if case == "large" else 1 << 20)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for name in ("link", "no/folder"):
        with pytest.raises(LookError, match=name):
            page.write(tmp_path / name, everything("x"))
    assert (tmp_path / "other").read_text() == "kept"


def test_text_is_one_line_and_short() -> None:
    assert plain("a\nb\x1b[0m\u2028c") == "a?b?[0m?c"
    assert len(plain("x" * 9999)) == 300
