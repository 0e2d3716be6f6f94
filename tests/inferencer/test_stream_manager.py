"""Results to Stream Manager: a stand-in that speaks its wire protocol, goes away, says no, and makes no sense."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stream_manager import MessageStreamDefinition, ResourceNotFoundException, StrategyOnFull, StreamManagerClient
from stream_manager.data import Operation, ResponseStatusCode

from edgeml import messages
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import ConfigError
from inferencer.assembly import check
from inferencer.config import Config
from inferencer.sinks.stream_manager import TOKEN, StreamManagerSink
from sinks_support import frames, impatient, opened, put, sent
from stream_manager_stand_in import frame, stand_in
from support import ROOT, eventually


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv(TOKEN, "let-me-in")
    return impatient(tmp_path / "work", monkeypatch)


def configured(sink: dict[str, Any]) -> None:
    parts = {"source": {"type": "topic", "topic": "t"}, "backend": {"type": "onnx", "model": "M"}}
    pipelines = {"p": {**parts, "sinks": {"home": {"type": "stream_manager", **sink}}}}
    check(load(Config, {"pipelines": pipelines}).pipelines, "thing")


def problem(context: Context) -> str:
    eventually(context.health.problems.current, 10, "the problem")
    (found,) = context.health.problems.current()
    assert found.code == "unreachable"
    return found.text


@pytest.mark.parametrize("on_full", ["overwrite", "reject"])
def test_results_reach_a_stream_that_is_made_for_them(context: Context, on_full: Any) -> None:
    with stand_in() as server:
        settings = StreamManagerSink(port=server.port, stream="a b", stream_bytes=8 << 20, on_full=on_full)
        with opened(settings, context) as sink:
            result = put(sink)
            put(sink, 1)
            eventually(lambda: sent(context) == 2, 10, "both")
    assert json.loads(server.streams["a b"][0]) == json.loads(messages.encode(result))
    assert frames(server.streams["a b"]) == [0, 1]
    made = server.definitions["a b"]
    full = {"overwrite": 1, "reject": 0}[on_full]
    assert (made["maxSize"], made["streamSegmentSize"], made["strategyOnFull"]) == (8 << 20, 2 << 20, full)
    assert (server.hellos[0]["authToken"], server.hellos[0]["protocolVersion"]) == ("let-me-in", "1.1.0")
    assert [operation.name for operation in server.asked] == [
        "Connect", "AppendMessage", "CreateMessageStream", "AppendMessage", "AppendMessage",
    ]  # fmt: skip


def test_the_stand_in_is_one_for_the_client_of_the_sdk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "let-me-in")
    definition = MessageStreamDefinition(name="s", strategy_on_full=StrategyOnFull.RejectNewData)
    with stand_in() as server, StreamManagerClient(port=server.port, request_timeout=10) as client:
        with pytest.raises(ResourceNotFoundException):
            client.append_message("s", b"1")
        client.create_message_stream(definition)
        assert client.append_message("s", b"2") == 0
    assert server.streams == {"s": [b"2"]}


def test_results_wait_for_a_server_that_is_away_and_comes_back(context: Context) -> None:
    with stand_in() as server:
        port = server.port
        with opened(StreamManagerSink(port=port), context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the first")
            server.stop()
            put(sink, 1)
            assert f"Stream Manager, port {port}" in problem(context)
            with stand_in(port) as back:
                eventually(lambda: sent(context) == 2, 10, "the second")
                eventually(lambda: not context.health.problems.current(), 10, "no problem")
            put(sink, 2)
    with stand_in(port) as again, opened(StreamManagerSink(port=port), context):  # after a restart of the component
        eventually(lambda: sent(context) == 3, 10, "the third")
    assert [frames(one.streams["edgeml"]) for one in (server, back, again)] == [[0], [1], [2]]


@pytest.mark.parametrize(("on_full", "kept"), [("overwrite", [1, 2]), ("reject", [0, 1])])
def test_a_full_stream(context: Context, on_full: str, kept: list[int]) -> None:
    """It drops its oldest, or the results wait until it has room."""
    with stand_in() as server:
        server.streams["edgeml"] = []
        made = server.definitions["edgeml"] = {"maxSize": 1 << 20, "strategyOnFull": int(on_full == "overwrite")}
        with opened(StreamManagerSink(port=server.port), context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the first")
            made["maxSize"] = 2 * (len(server.streams["edgeml"][0]) + 50)
            put(sink, 1)
            put(sink, 2)
            eventually(lambda: sent(context) == 3 or context.health.problems.current(), 10, "an answer to the third")
            assert frames(server.streams["edgeml"]) == kept
            if on_full == "reject":
                assert "InvalidRequest" in problem(context)
            made["maxSize"] = 1 << 20
            eventually(lambda: sent(context) == 3, 10, "all")
    assert frames(server.streams["edgeml"])[-1] == 2


REFUSALS = [status for status in ResponseStatusCode if status.name not in {"Success", "RequestPayloadTooLarge"}]


@pytest.mark.parametrize("operation", [Operation.Connect, Operation.AppendMessage])
def test_an_error_is_waited_for_and_told_without_the_token(context: Context, operation: Operation) -> None:
    """Every status that is not of this message: the results stay in order."""
    left = list(REFUSALS)
    with stand_in() as server:
        server.fault = lambda asked: left.pop().value if asked is operation and left else None
        with opened(StreamManagerSink(port=server.port), context) as sink:
            put(sink)
            put(sink, 1)
            told = problem(context)
            eventually(lambda: sent(context) == 2, 20, "both")
    assert "let-me-in" not in told
    assert "'no, ***'" in told
    assert frames(server.streams["edgeml"]) == [0, 1]


def test_a_stream_that_cannot_be_made_is_told(context: Context) -> None:
    with stand_in() as server:
        server.fault = lambda asked: 1 if asked is Operation.CreateMessageStream else None
        with opened(StreamManagerSink(port=server.port, stream="mine"), context) as sink:
            put(sink)
            assert "stream mine: UnknownFailure" in problem(context)


def test_a_message_that_is_too_large_lets_others_pass(context: Context) -> None:
    with stand_in() as server:
        appends: list[Operation] = []

        def fault(asked: Operation) -> int | None:
            if asked is Operation.AppendMessage:
                appends.append(asked)
            return 4 if asked is Operation.AppendMessage and len(appends) <= 3 else None

        server.fault = fault
        with opened(StreamManagerSink(port=server.port), context) as sink:
            put(sink)
            put(sink, 1)
            eventually(lambda: sent(context) == 1, 10, "the other")
    assert frames(server.streams["edgeml"]) == [1]
    assert len(list(context.work.glob("*.quarantine/*.payload"))) == 1


HELLO = b"\x01" + frame(Operation.ConnectResponse, {"status": 0, "protocolVersion": "1.1.0"})
APPENDED = Operation.AppendMessageResponse
ODD = {
    "nothing": b"",
    "another greeting": b"\x02",
    "no answer to the greeting": b"\x01",
    "another operation": b"\x01" + frame(APPENDED, {"status": 0}),
    "a protocol of tomorrow": b"\x01" + frame(Operation.ConnectResponse, {"status": 0, "protocolVersion": "9.0.0"}),
    "no protocol": b"\x01" + frame(Operation.ConnectResponse, {"status": 0}),
    "a huge answer": HELLO + b"\x7f\xff\xff\xff\x09" + b"x" * 100_000,
    "an empty answer": HELLO + b"\x00\x00\x00\x00",
    "a negative length": HELLO + b"\xff\xff\xff\xff",
    "half a frame": HELLO + b"\x00\x00\x00\x20\x09",
    "no CBOR": HELLO + b"\x00\x00\x00\x03\x09\xff\xff",
    "deep CBOR": HELLO + b"\x00\x00\xff\x01\x09" + b"\x81" * 0xFF00,
    "a long text that is not there": HELLO + b"\x00\x00\x00\x0a\x09\x7b" + b"\x00\x00\x01" + b"\x00" * 5,
    "no map": HELLO + frame(APPENDED, [0]),
    "no status": HELLO + frame(APPENDED, {"requestId": "1"}),
    "an unknown status": HELLO + frame(APPENDED, {"requestId": "1", "status": 99}),
    "a status that is none": HELLO + frame(APPENDED, {"requestId": "1", "status": [{}]}),
    "the answer to another": HELLO + frame(APPENDED, {"requestId": "1", "status": 0}),
    "an unknown operation": HELLO + frame(Operation.UnknownOperationError, {"requestId": "1", "status": 18}),
}


SILENT = {"nothing", "no answer to the greeting", "half a frame"}  # only these are waited for


@pytest.mark.parametrize("fault", ODD)
def test_a_server_that_makes_no_sense_costs_no_result(context: Context, fault: str) -> None:
    """The first connection gets the fault, the second an answer."""
    deadline_s = 0.1 if fault in SILENT else 30.0
    with stand_in() as server:

        def odd(asked: Operation) -> bytes | None:
            if server.asked.count(Operation.Connect) > 1:
                return None
            return ODD[fault] if asked is Operation.Connect else b""

        server.fault = odd
        with opened(StreamManagerSink(port=server.port, deadline_s=deadline_s), context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the result")
    assert frames(server.streams["edgeml"]) == [0]


def trickle() -> Iterator[bytes]:
    """An answer of which a byte comes again and again, for ever."""
    yield HELLO + b"\x00\x00\xff\xff\x09"
    while True:
        time.sleep(0.005)
        yield b"\xa1"


def test_an_attempt_ends_with_its_deadline_though_bytes_come(context: Context) -> None:
    with stand_in() as server:
        server.fault = lambda asked: trickle() if asked is Operation.Connect else None
        with opened(StreamManagerSink(port=server.port, deadline_s=0.05), context) as sink:
            put(sink)
            assert "no answer within the deadline" in problem(context)


def test_nobody_else_loads_it_and_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, inferencer.config, inferencer.assembly;"
        "print([name for name in ('stream_manager', 'cbor2') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert found.stdout.strip() == "[]"
    configured({})
    monkeypatch.setattr(StreamManagerSink, "needs", ("no_such_library",))
    with pytest.raises(ConfigError, match=r"pipelines\.p\.sinks\.home: needs the Python package no_such_library"):
        configured({})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("stream", ""), ("stream", "a/b"), ("stream", "a\n"), ("stream", "a" * 256), ("stream_bytes", (4 << 20) - 1),
        ("on_full", "wait"), ("port", 0), ("port", 65536), ("deadline_s", 0), ("deadline_s", 71),
    ],
)  # fmt: skip
def test_what_can_never_work_is_refused_as_configuration(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"pipelines\.p\.sinks\.home\.{setting}"):
        configured({setting: value})
