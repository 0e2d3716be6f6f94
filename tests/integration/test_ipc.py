"""The IPC client against a core that speaks the real protocol: order, refusals, loss of the socket."""

import contextlib
import gc
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import camera_capture
from edgeml.errors import DisconnectedError, IpcError, NotFoundError, UnauthorizedError
from edgeml.ipc import GreengrassIpc
from edgeml.messages import MAX_IPC_BYTES
from forked import popen
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.cloud.broker import Broker
from localdev.core import LocalCore
from support import eventually

ACCESS = {
    "aws.greengrass.ipc.pubsub": {
        "p": {"operations": ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"], "resources": ["ok/*"]}
    },
    "aws.greengrass.ipc.mqttproxy": {
        "m": {
            "operations": ["aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"],
            "resources": ["cloud/#"],
        }
    },
}


@pytest.fixture
def core(tmp_path: Path, cloud: LocalCloud) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "gg", mqtt_url=cloud.mqtt_url) as running:
        eventually(lambda: running.online, what="connection to the broker")
        yield running


@pytest.fixture
def lost() -> "queue.Queue[Exception]":
    return queue.Queue()


@pytest.fixture
def ipc(core: LocalCore, lost: "queue.Queue[Exception]", monkeypatch: pytest.MonkeyPatch) -> Iterator[GreengrassIpc]:
    monkeypatch.setenv("SVCUID", core.add_principal("test.Client", ACCESS))
    monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
    client = GreengrassIpc(lost.put)
    yield client
    client.close()


def test_messages_arrive_in_order_and_on_one_thread(ipc: GreengrassIpc) -> None:
    seen: list[int] = []
    threads = set()

    def handler(topic: str, payload: bytes) -> None:
        threads.add(threading.get_ident())
        seen.append(int(payload))

    ipc.subscribe("ok/a", handler)
    for number in range(500):
        ipc.publish("ok/a", str(number).encode())
    eventually(lambda: len(seen) == 500, what="all messages")
    assert seen == list(range(500))
    assert len(threads) == 1


def test_json_messages_of_others_arrive_as_their_text(ipc: GreengrassIpc, core: LocalCore) -> None:
    seen: queue.Queue[tuple[str, bytes]] = queue.Queue()
    ipc.subscribe("ok/json", lambda topic, payload: seen.put((topic, payload)))
    core.publish("ok/json", {"a": [1, 2]})
    topic, payload = seen.get(timeout=5)
    assert (topic, json.loads(payload)) == ("ok/json", {"a": [1, 2]})


def test_iot_core_both_ways(ipc: GreengrassIpc) -> None:
    seen: queue.Queue[tuple[str, bytes]] = queue.Queue()
    ipc.subscribe_iot("cloud/#", lambda topic, payload: seen.put((topic, payload)))
    ipc.publish_iot("cloud/up/one", b"\x00\xff")
    assert seen.get(timeout=5) == ("cloud/up/one", b"\x00\xff")


def test_a_subscription_made_again_takes_the_place_of_the_first(ipc: GreengrassIpc) -> None:
    seen: queue.Queue[bytes] = queue.Queue()

    def handler(topic: str, payload: bytes) -> None:
        seen.put(payload)

    for _ in range(3):
        ipc.subscribe_iot("cloud/again", handler)
    ipc.subscribe_iot("cloud/again", lambda topic, payload: seen.put(b"another handler"))
    ipc.publish_iot("cloud/again", b"1")
    ipc.publish_iot("cloud/again", b"end")
    eventually(lambda: list(seen.queue).count(b"another handler") == 2, what="both messages")
    assert sorted(seen.queue) == [b"1", b"another handler", b"another handler", b"end"]


def test_a_subscription_that_was_given_up_offline_brings_nothing_once_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        pass  # its port is free again, and known
    seen: queue.Queue[bytes] = queue.Queue()
    monkeypatch.setattr("localdev.core.mqtt.RECONNECT_SECONDS", (0.1, 0.1))
    with LocalCore(tmp_path / "gg", mqtt_url=broker.url) as core:
        monkeypatch.setenv("SVCUID", core.add_principal("test.Client", ACCESS))
        monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        client = GreengrassIpc(lambda error: None)
        try:
            with monkeypatch.context() as patched:
                patched.setattr("edgeml.ipc.TIMEOUT_S", 0.05)
                for _ in range(3):
                    with pytest.raises(IpcError, match="subscribe to IoT Core cloud/late: no answer"):
                        client.subscribe_iot("cloud/late", lambda topic, payload: seen.put(payload))
            broker.start()
            client.subscribe_iot("cloud/late", lambda topic, payload: seen.put(payload))
            client.publish_iot("cloud/late", b"1")
            client.publish_iot("cloud/late", b"2")
            eventually(lambda: b"2" in seen.queue, what="the messages")
        finally:
            client.close()
            broker.stop()
    assert list(seen.queue) == [b"1", b"2"]


def test_what_access_control_does_not_allow_is_refused_and_said(
    ipc: GreengrassIpc, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnauthorizedError, match=r"subscribe forbidden/a: .*not authorized.*accessControl"):
        ipc.subscribe("forbidden/a", print)
    with pytest.raises(UnauthorizedError, match="publish to IoT Core elsewhere"):
        ipc.publish_iot("elsewhere", b"")
    for _ in range(3):
        ipc.publish("forbidden/b", b"1")
    eventually(lambda: ipc.dropped() == 3, what="three refusals")
    told = [record.message for record in caplog.records if "publish refused" in record.message]
    assert len(told) == 2  # the first and the second; the log is not flooded
    assert "forbidden/b" in told[0]


def test_a_message_that_lite_would_choke_on_is_refused_before_sending(ipc: GreengrassIpc) -> None:
    with pytest.raises(IpcError, match=f"publish ok/a: {MAX_IPC_BYTES + 1} bytes, {MAX_IPC_BYTES} are allowed"):
        ipc.publish("ok/a", b"x" * (MAX_IPC_BYTES + 1))
    ipc.publish("ok/a", b"x" * MAX_IPC_BYTES)


def test_an_unknown_secret_is_named(ipc: GreengrassIpc) -> None:
    with pytest.raises((IpcError, NotFoundError), match="secret nothing"):
        ipc.secret("nothing")


def test_the_loss_of_the_socket_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Exception] = []
    with LocalCore(tmp_path / "gg") as core:
        monkeypatch.setenv("SVCUID", core.add_principal("test.Client", ACCESS))
        monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        client = GreengrassIpc(lost.append)
    eventually(lambda: lost, what="the loss")
    assert [type(error) for error in lost] == [DisconnectedError]
    with pytest.raises(DisconnectedError):
        client.publish("ok/a", b"1")
    client.close()


def test_a_wrong_token_is_refused(core: LocalCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVCUID", "WRONG")
    monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
    with pytest.raises(UnauthorizedError, match="connect"):
        GreengrassIpc(print)


def test_an_absent_socket_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SVCUID", "X")
    monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(tmp_path / "none"))
    with pytest.raises(IpcError, match="connect"):
        GreengrassIpc(print)


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_configuration_change_reaches_a_running_component(profile: str, start: Start, tmp_path: Path) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    pattern: dict[str, Any] = {"type": "test_pattern", "width": 64, "height": 48, "fps": 20}
    first = {"ring_directory": str(rings), "cameras": {"one": pattern}}
    with start({"camera_capture": first}, profile=profile) as core:
        eventually(lambda: [path.name for path in rings.iterdir()] == ["edgeml-one"], what="the first ring")
        change = {"edgeml.CameraCapture": {"MERGE": {"cameras": {"two": {**pattern, "fps": "15"}}}}}
        core.deploy(merge={"edgeml.CameraCapture": camera_capture.__version__}, update_config=change)
        eventually(lambda: len(list(rings.iterdir())) == 2, what="the second ring")
        bad = {"edgeml.CameraCapture": {"MERGE": {"cameras": {"two": {"fps": "many"}}}}}
        if profile == "java":  # Lite restarts a component on any change, and so shows the error at its start
            core.deploy(merge={"edgeml.CameraCapture": camera_capture.__version__}, update_config=bad)
            eventually(lambda: "configuration cameras.two.fps" in core.log("edgeml.CameraCapture"), what="the reason")
            assert len(list(rings.iterdir())) == 2


def test_a_component_whose_socket_is_gone_exits_by_itself(tmp_path: Path) -> None:
    """Not deployed but started by hand with a valid token, so that it is not the core's end that stops it."""
    with LocalCore(tmp_path / "gg") as core:
        environment = {
            **os.environ,
            "SVCUID": core.add_principal("started.by.Hand", ACCESS),
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(core.socket),
        }
        command = [sys.executable, "-P", "-m", "camera_capture"]
        process = popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert "started component=edgeml.CameraCapture" in process.stdout.readline()
    _, log = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "the Greengrass core closed the IPC connection" in log


def open_streams() -> int:
    """How many streams this process keeps, of calls and subscriptions."""
    from awscrt.eventstream.rpc import ClientContinuation

    gc.collect()
    return sum(isinstance(thing, ClientContinuation) for thing in gc.get_objects())


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_an_answered_call_leaves_no_stream(
    profile: str, tmp_path: Path, cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nucleus Lite never ends a stream: what a client does not end itself, it keeps as long as it lives."""
    with LocalCore(tmp_path / "gg", profile=profile, mqtt_url=cloud.mqtt_url) as core:
        eventually(lambda: core.online, what="connection to the broker")
        monkeypatch.setenv("SVCUID", core.add_principal("test.Client", ACCESS))
        monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        client = GreengrassIpc(lambda error: None)
        try:
            seen: queue.Queue[bytes] = queue.Queue()
            client.subscribe("ok/heard", lambda topic, payload: seen.put(payload))
            before = open_streams()
            for number in range(100):
                client.publish("ok/heard", str(number).encode())
            for _ in range(5):
                client.publish_and_wait("ok/heard", b"")
                client.publish_iot("cloud/x", b"")
                with contextlib.suppress(IpcError):
                    client.configuration()
                with contextlib.suppress(IpcError):
                    client.secret("nothing")
            eventually(lambda: open_streams() <= before, what="streams that have ended")
            assert [seen.get(timeout=5) for _ in range(100)] == [str(number).encode() for number in range(100)]
        finally:
            client.close()
