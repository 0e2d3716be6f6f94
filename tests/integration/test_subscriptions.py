"""Subscriptions of edgeml.ipc that end, are made anew, and hear again after a daemon of Nucleus Lite restarted."""

import asyncio
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeml._ears import Pace
from edgeml.errors import IpcError
from edgeml.health import Health
from edgeml.ipc import GreengrassIpc
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.core.operations.pubsub import PubSub
from localdev.core.policy import PUBSUB
from localdev.core.server import Connection
from support import eventually

FAST = Pace(proof_s=0.1, answer_s=0.3, local_s=0.1, iot_s=0.1)
NEVER = Pace(1e6, 1e6, 1e6, 1e6)

Client = Callable[..., GreengrassIpc]


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVCUID", core.add_principal("edgeml.Client", access(*topics)))
        patch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        client = GreengrassIpc(lambda error: None, "edgeml.Client", health, pace)
    try:
        yield client
    finally:
        client.close()


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


def test_a_living_subscription_that_is_proved_is_left_alone(lite: LocalCore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    publish, subscribe = PubSub._publish, PubSub._subscribe

    def published(self: PubSub, stream: Any, body: Any) -> Any:
        asked.append(body["topic"])
        return publish(self, stream, body)

    def subscribed(self: PubSub, stream: Any, body: Any) -> Any:
        asked.append("+")
        return subscribe(self, stream, body)

    monkeypatch.setattr(PubSub, "_publish", published)
    monkeypatch.setattr(PubSub, "_subscribe", subscribed)
    with LocalCore(lite.settings.root.with_name("gg2"), profile="lite") as core, client_of(core, "*") as client:
        client.subscribe("ok/a", lambda topic, payload: None)
        eventually(lambda: asked.count("edgeml/echo/Client") > 5, what="proofs")
    assert asked.count("+") == 2


def test_a_component_may_prove_what_it_hears(start: Start) -> None:
    with start({"sample_requester": {}}, profile="lite") as core:
        core.wait_state("edgeml.SampleRequester", "RUNNING")
        echoes = core._engine.pubsub._subscriptions
        eventually(lambda: [*echoes.matches("edgeml/echo/SampleRequester")], what="the loop-back")
        assert core._engine.state.authorizer.allows(
            "edgeml.SampleRequester", PUBSUB, "PublishToTopic", "edgeml/echo/SampleRequester"
        )


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
    with client_of(lite, "ok/*", pace=Pace(0.01, 0.01, 0.01, 0.01)) as client:
        client.subscribe("ok/a", lambda topic, payload: seen.append(payload))
        for number in range(2000):
            client.publish("ok/a", b"%d" % number)
        eventually(lambda: len(seen) >= 2000, what="all messages")
    assert sorted(map(int, seen)) == list(range(2000))


def test_a_change_of_configuration_that_nobody_told_of_is_found(lite: LocalCore) -> None:
    changed: queue.SimpleQueue[None] = queue.SimpleQueue()
    with client_of(lite, "ok/*") as client:
        client.configuration()
        client.on_configuration(lambda: changed.put(None))
        store = lite._engine.state.store
        store._listeners.clear()
        store.update("edgeml.Client", (), {"x": 1}, 2.0)
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
            eventually(lambda: not [*core._engine.pubsub._subscriptions.matches("ok/a")], what="no subscriber")
            eventually(lambda: not core._engine.iot_core._subscriptions, what="no filter")
            assert client.subscriptions("local") == client.subscriptions("iot_core") == []
    assert sorted(seen) == [("cloud/a", b"1"), ("ok/a", b"1")]


def test_subscribing_anew_begins_before_the_former_subscription_ends(
    lite: LocalCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on a real Java nucleus: the other way round its MQTT client is deaf afterwards."""
    with client_of(lite, "ok/*", pace=NEVER) as client:

        def handler(topic: str, payload: bytes) -> None: ...

        first = client.subscribe_iot("cloud/a", handler)
        filters = lite._engine.iot_core._subscriptions
        counts: list[int] = []
        drop = lite._engine.iot_core._drop

        def dropped(topic: str, sink: Any) -> None:
            counts.append(len(filters[topic]))
            drop(topic, sink)

        monkeypatch.setattr(lite._engine.iot_core, "_drop", dropped)
        assert client.subscribe_iot("cloud/a", handler) is first
        eventually(lambda: counts, what="the end of the former")
        assert counts == [2]
        assert len(filters["cloud/a"]) == 1


def test_closing_waits_for_answers_ends_the_streams_and_then_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection closed while a publish is unanswered can freeze the IPC of a device with Nucleus Lite."""
    told: list[str] = []
    publish, lost = PubSub._publish, Connection.connection_lost

    def slowly(self: PubSub, stream: Any, body: Any) -> Any:
        async def answer() -> Any:
            await asyncio.sleep(0.2)
            told.append("answered")
            return publish(self, stream, body)

        return answer()

    def gone(self: Connection, error: Exception | None) -> None:
        told.append(f"disconnected with {sum(stream.streaming for stream in self._streams.values())} streams")
        lost(self, error)

    monkeypatch.setattr(PubSub, "_publish", slowly)
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


def test_a_core_that_never_answers_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(PubSub, "_publish", lambda *given: never())
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
            command = [sys.executable, "-P", "-u", "-m", "sample_requester"]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        try:
            eventually(lambda: "started component" in log.read_text(), 30, "the start")
            for connection in list(core._engine._server.connections):
                core._loop.call_soon_threadsafe(connection.abort)
            eventually(lambda: "the connection to the core is lost" in log.read_text(), what="the loss")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
