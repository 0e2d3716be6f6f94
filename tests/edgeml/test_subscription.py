from collections.abc import Callable
from typing import Any

import pytest

from edgeml import _subscription
from edgeml._subscription import Received, Subscription
from edgeml.errors import IpcError


class Stream:
    def __init__(self, core: "Core", received: Received) -> None:
        self._core, self.received = core, received

    def close(self) -> None:
        self._core.told.append("close")


class Core:
    """Opens streams, whose messages a test sends: `streams[n].received(topic, payload)`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.streams: list[Stream] = []
        self.heard: list[bytes] = []
        self.while_opening: Callable[[], Any] = lambda: None
        self.subscription = Subscription(self._open, lambda topic, payload: self.heard.append(payload))

    def _open(self, received: Received) -> Stream:
        self.told.append("open")
        self.streams.append(Stream(self, received))
        self.while_opening()
        return self.streams[-1]


@pytest.fixture
def core() -> Core:
    core = Core()
    core.subscription.renew()
    return core


def test_the_new_stream_is_open_before_the_former_is_closed(core: Core) -> None:
    core.subscription.renew()
    assert core.told == ["open", "open", "close"]


def test_a_renewal_that_fails_leaves_the_former_stream(core: Core) -> None:
    def fail() -> None:
        raise IpcError("no")

    core.while_opening = fail
    with pytest.raises(IpcError):
        core.subscription.renew()
    assert core.told == ["open", "open"]
    core.streams[0].received("a", b"1")
    assert core.heard == [b"1"]


def test_copies_are_handed_on_once_and_equal_messages_as_often_as_they_came(core: Core) -> None:
    for _ in range(2):
        core.subscription.renew()
    for stream in core.streams:  # closing takes its time: all three still bring what comes
        for payload in (b"1", b"1", b"2"):
            stream.received("a", payload)
    assert core.heard == [b"1", b"1", b"2"]


def test_equal_messages_long_after_one_another_are_no_copies(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subscription, "COPY_S", -1.0)
    core.subscription.renew()
    for stream in core.streams:
        stream.received("a", b"1")
    assert core.heard == [b"1", b"1"]


def test_a_subscription_closed_while_it_is_renewed_leaves_no_stream(core: Core) -> None:
    core.while_opening = core.subscription.close
    core.subscription.renew()
    assert core.told.count("open") == core.told.count("close") == 2
    for stream in core.streams:
        stream.received("a", b"1")
    assert core.heard == []
