"""Subscriptions of edgeml.ipc that end, are made anew, and hear again after a daemon of Nucleus Lite restarted."""

import asyncio
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import IpcError, UnauthorizedError
from edgeml.health import Health
from edgeml.ipc import GreengrassIpc, Pace
from forked import popen
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.core.server import Body, Connection, Handler, Server, Stream
from support import eventually

FAST = Pace(proof_s=0.1, answer_s=0.3, local_s=0.1, iot_s=0.1)
NEVER = Pace(1e6, 1e6, 1e6, 1e6)

Between = Callable[[Stream, Body, Handler], Any]


def access(*topics: str) -> dict[str, Any]:
    both = ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"]
    cloud = ["aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"]
    return {
        "aws.greengrass.ipc.pubsub": {"p": {"operations": both, "resources": list(topics)}},
        "aws.greengrass.ipc.mqttproxy": {"m": {"operations": cloud, "resources": ["cloud/#"]}},
    }


@contextmanager
def client_of(
    core: LocalCore, *topics: str, pace: Pace = FAST, health: Health | None = None
) -> Iterator[GreengrassIpc]:
    token = core.add_principal("edgeml.Client", access(*topics))
    with connected(core, token, pace, health) as client:
        yield client


@contextmanager
def connected(core: LocalCore, token: str, pace: Pace, health: Health | None = None) -> Iterator[GreengrassIpc]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVCUID", token)
        patch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        client = GreengrassIpc(lambda error: None, "edgeml.Client", health, pace)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Between], None]:
    """Lets a function answer for the core. It is given the stream, the request and who would have answered."""

    def stand(function: Between) -> None:
        find = Server.find

        def found(self: Server, principal: str, operation: str) -> Handler:
            handler = find(self, principal, operation)
            return lambda stream, body: function(stream, body, handler)

        monkeypatch.setattr(Server, "find", found)

    return stand


@pytest.fixture
def lite(tmp_path: Path, cloud: LocalCloud) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "gg", profile="lite", mqtt_url=cloud.mqtt_url) as core:
        eventually(lambda: core.online, what="connection to the broker")
        yield core


@pytest.mark.parametrize("topics", [("ok/*", "edgeml/echo/Client"), ("ok/*",)], ids=["proved", "unproved"])
def test_local_topics_are_heard_again_after_ggpubsubd_restarted(lite: LocalCore, topics: tuple[str, ...]) -> None:
    seen: list[bytes] = []
    health = Health("edgeml.Client", "1")
    with client_of(lite, *topics, health=health) as client:
        client.subscribe("ok/a", lambda topic, payload: seen.append(payload))
        for text in (b"first", b"second"):
            lite.lose_subscriptions("ggpubsubd")

            def heard(text: bytes = text) -> bool:
                lite.publish("ok/a", text)
                return text in seen

            eventually(heard, what="a message")
    proved = len(topics) == 2
    assert (health.counter("subscriptions.lost") == 2) is proved
    assert ("subscriptions" in health.report().notes) is not proved


def test_a_living_subscription_that_is_proved_is_left_alone(tmp_path: Path, between: Callable[[Between], None]) -> None:
    asked: list[tuple[str, str]] = []

    def note(stream: Stream, body: Body, handler: Handler) -> Any:
        asked.append((stream.operation, body.get("topic", "")))
        return handler(stream, body)

    between(note)
    with LocalCore(tmp_path / "gg", profile="lite") as core, client_of(core, "*") as client:
        client.subscribe("ok/a", lambda topic, payload: None)
        eventually(lambda: asked.count(("PublishToTopic", "edgeml/echo/Client")) > 5, what="proofs")
    assert [operation for operation, _ in asked].count("SubscribeToTopic") == 2


def test_a_component_may_prove_what_it_hears(start: Start) -> None:
    with start({"sample_requester": {}}, profile="lite") as core:
        core.wait_state("edgeml.SampleRequester", "RUNNING")
        eventually(lambda: core.subscribers("edgeml/echo/SampleRequester"), what="the loop-back")
        with connected(core, core.token("edgeml.SampleRequester"), NEVER) as client:
            client.publish_and_wait("edgeml/echo/SampleRequester", b"not refused")
            with pytest.raises(UnauthorizedError):
                client.publish_and_wait("edgeml/echo/Other", b"refused")


def test_iot_topics_are_heard_again_after_iotcored_restarted(lite: LocalCore) -> None:
    seen: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with client_of(lite, "ok/*") as client:
        client.subscribe_iot("cloud/a", lambda topic, payload: seen.put(payload))
        lite.lose_subscriptions("iotcored")

        def heard() -> bool:
            client.publish_iot("cloud/a", b"x")
            return not seen.empty()

        eventually(heard, what="a message")


def test_what_comes_during_renewals_is_handed_on_once_and_whole(lite: LocalCore) -> None:
    seen: list[bytes] = []

    def heard(wanted: int) -> bool:
        return len(seen) >= wanted

    with client_of(lite, "ok/*", pace=Pace(0.01, 0.01, 0.01, 0.01)) as client:
        client.subscribe("ok/a", lambda topic, payload: seen.append(payload))
        for until in range(50, 2001, 50):  # a flood would take longer than a copy may
            for number in range(until - 50, until):
                client.publish("ok/a", b"%d" % number)
            eventually(partial(heard, until), what="these messages")
    assert sorted(map(int, seen)) == list(range(2000))


def test_a_change_of_configuration_that_nobody_told_of_is_found(lite: LocalCore) -> None:
    changed: queue.SimpleQueue[None] = queue.SimpleQueue()
    with client_of(lite, "ok/*") as client:
        client.configuration()
        client.on_configuration(lambda: changed.put(None))
        lite.lose_subscriptions("ggconfigd")
        lite.configure("edgeml.Client", {"x": 1})
        changed.get(timeout=5)


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_closed_subscription_is_heard_no_more_and_gone_from_the_core(
    tmp_path: Path, cloud: LocalCloud, profile: str
) -> None:
    seen: list[tuple[str, bytes]] = []
    with LocalCore(tmp_path / "gg", profile=profile, mqtt_url=cloud.mqtt_url) as core:
        eventually(lambda: core.online, what="connection to the broker")
        with client_of(core, "ok/*", pace=NEVER) as client:
            for subscribe, topic in ((client.subscribe, "ok/a"), (client.subscribe_iot, "cloud/a")):
                closed = subscribe(topic, lambda topic, payload: seen.append((topic, b"closed")))
                again = subscribe(topic, lambda topic, payload: seen.append((topic, payload)))
                assert again is not closed
                closed.close()
                closed.close()
            client.publish("ok/a", b"1")
            client.publish_iot("cloud/a", b"1")
            eventually(lambda: len(seen) >= 2, what="both messages")
            for subscription in [*client.subscriptions("local"), *client.subscriptions("iot_core")]:
                subscription.close()
                subscription.renew()  # of a closed one: nothing
            eventually(lambda: not core.subscribers("ok/a"), what="no subscriber")
            eventually(lambda: not core.iot_filters(), what="no filter")
            assert client.subscriptions("local") == client.subscriptions("iot_core") == []
    assert sorted(seen) == [("cloud/a", b"1"), ("ok/a", b"1")]


def test_subscribing_anew_begins_before_the_former_subscription_ends(
    lite: LocalCore, between: Callable[[Between], None]
) -> None:
    """Seen on a real Java nucleus: the other way round its MQTT client is deaf afterwards."""
    told: list[str] = []

    async def note(stream: Stream, body: Body, handler: Handler) -> Body:
        answer = handler(stream, body)
        done = answer if isinstance(answer, dict) else await answer
        if stream.operation == "SubscribeToIoTCore":
            told.append("begins")
            end = stream.on_closed

            def ended() -> None:
                told.append("ends")
                end()

            stream.on_closed = ended
        return done

    between(note)
    with client_of(lite, "ok/*", pace=NEVER) as client:

        def handler(topic: str, payload: bytes) -> None: ...

        first = client.subscribe_iot("cloud/a", handler)
        assert client.subscribe_iot("cloud/a", handler) is first
        eventually(lambda: len(told) == 3, what="the end of the former")
        assert told == ["begins", "begins", "ends"]
        assert lite.iot_filters() == {"cloud/a": 1}


def test_closing_waits_for_answers_ends_the_streams_and_then_the_connection(
    tmp_path: Path, between: Callable[[Between], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection closed while a publish is unanswered can freeze the IPC of a device with Nucleus Lite."""
    told: list[str] = []
    lost = Connection.connection_lost

    async def slowly(stream: Stream, body: Body, handler: Handler) -> Any:
        if stream.operation == "PublishToTopic":
            await asyncio.sleep(0.2)
            told.append("answered")
        return handler(stream, body)

    def gone(self: Connection, error: Exception | None) -> None:
        told.append(f"disconnected with {self.subscriptions} streams")
        lost(self, error)

    between(slowly)
    monkeypatch.setattr(Connection, "connection_lost", gone)
    with LocalCore(tmp_path / "gg", profile="lite") as core:
        with client_of(core, "ok/*", pace=NEVER) as client:
            client.on_configuration(lambda: None)
            for topic in ("ok/a", "ok/b"):
                client.subscribe(topic, lambda topic, payload: None)
            client.publish("ok/c", b"the last health report")
            client.close()
            assert told[0] == "answered"
            client.publish("ok/c", b"too late: not sent, no error")
            with pytest.raises(IpcError, match="being closed"):
                client.publish_iot("cloud/a", b"too late: stays in its spool")
        eventually(lambda: len(told) == 2, what="the end of the connection")
    assert told == ["answered", "disconnected with 0 streams"]


def test_a_core_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, between: Callable[[Between], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(stream: Stream, body: Body, handler: Handler) -> Any:
        await asyncio.sleep(60)

    between(never)
    monkeypatch.setattr("edgeml.ipc.ANSWERS_S", 0.1)
    with LocalCore(tmp_path / "gg", profile="lite") as core, client_of(core, "ok/*", pace=NEVER) as client:
        client.publish("ok/c", b"1")
        client.close()


def test_sigterm_just_after_the_loss_of_the_connection_is_a_stop(tmp_path: Path) -> None:
    with LocalCore(tmp_path / "gg") as core:
        environment = {
            **os.environ,
            "SVCUID": core.add_principal("started.by.Hand", access("*")),
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(core.socket),
        }
        log = tmp_path / "log"
        with log.open("w") as output:
            command = [sys.executable, "-P", "-m", "sample_requester"]
            process = popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        try:
            eventually(lambda: "started component" in log.read_text(), 30, "the start")
            core.cut_connections()
            eventually(lambda: "the connection to the core is lost" in log.read_text(), what="the loss")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
