import json
from pathlib import Path

import pytest

from clock_support import FakeClock
from edgeml.backoff import Backoff
from edgeml.errors import IpcError, UnauthorizedError
from edgeml.health import Health
from edgeml.outbox import Outbox
from edgeml.spool import Spool
from ipc_support import FakeIpc
from support import eventually


class Core(FakeIpc):
    """A core that can be offline, as Nucleus Lite is: it then refuses at once. Keeps what it took."""

    def __init__(self, online: bool, refused: tuple[str, ...] = ()) -> None:
        super().__init__(self._asked, max_iot_bytes=7000)
        self.online, self.refused = online, refused
        self.attempts = 0

    def _asked(self, call: str, topic: str) -> None:
        self.attempts += 1
        if not self.online:
            raise IpcError("publish to IoT Core: offline (ServiceError)")
        if topic in self.refused:
            raise UnauthorizedError("")  # Nucleus Lite's messages are empty


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeml.outbox.LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr("edgeml.outbox.CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("edgeml.drainer.Backoff", lambda failures: Backoff(0.02, 0.02))


def outbox(folder: Path, core: Core, qos: int = 1) -> Outbox:
    return Outbox(folder / "outbox.spool", core, Health("test", "1"), max_bytes=1 << 20, qos=qos)


def test_what_is_sent_offline_waits_on_disk_and_goes_out_in_order(tmp_path: Path) -> None:
    offline = Core(online=False)
    box = outbox(tmp_path, offline)
    for number in range(20):
        box.put("t", b"%d" % number)
    eventually(lambda: offline.attempts, what="an attempt")
    box.close()
    assert offline.iot == []
    online = Core(online=True)
    box = outbox(tmp_path, online, qos=0)
    box.put("t", b"20")
    eventually(lambda: len(online.iot) == 21, what="all messages")
    box.close()
    assert online.iot == [("t", b"%d" % number, 0) for number in range(21)]


def test_what_this_core_never_takes_does_not_block_the_rest(tmp_path: Path) -> None:
    core = Core(online=True)
    box = outbox(tmp_path, core)
    box.put("t", b"x" * 7001)
    box.put("t", b"small")
    eventually(lambda: core.iot, what="the small one")
    box.close()
    assert core.iot == [("t", b"small", 1)]


def test_topics_are_lanes_and_what_is_refused_comes_again_when_the_configuration_changes(tmp_path: Path) -> None:
    core, health = Core(online=True, refused=("bad",)), Health("test", "1")
    box = Outbox(tmp_path / "outbox.spool", core, health, max_bytes=1 << 20)
    for number in range(2):
        box.put("bad", b"%d" % number)
        box.put("good", b"%d" % number, qos=0)
    eventually(lambda: len(core.iot) == 2, what="the good ones")
    eventually(lambda: health.report().gauges["outbox.quarantined"] == 2, what="the refused ones")
    codes = {(problem.code, problem.subject) for problem in health.problems.current()}
    assert codes == {("refused", "outbox.bad"), ("quarantined", "outbox")}
    core.refused = ()
    box.configure(max_bytes=1 << 20, qos=1)
    eventually(lambda: len(core.iot) == 4, what="all")
    box.close()
    assert core.iot[2:] == [("bad", b"0", 1), ("bad", b"1", 1)]
    assert health.problems.current() == ()


@pytest.mark.parametrize("topic", ["a/b/c/d/e/f/g/h/i", "a/+", "ü" * 200, ""], ids=ascii)
def test_a_topic_from_an_old_spool_that_can_never_work_asks_nobody(tmp_path: Path, topic: str) -> None:
    core, health = Core(online=True), Health("test", "1")
    spool = Spool(tmp_path / "outbox.spool", max_bytes=1 << 20)
    spool.put(topic, b"old")
    spool.put("t", b"new", headers={"qos": "seven"})
    spool.close()
    box = Outbox(tmp_path / "outbox.spool", core, health, max_bytes=1 << 20)
    eventually(lambda: core.iot == [("t", b"new", 1)])
    eventually(lambda: health.report().gauges["outbox.quarantined"] == 1)
    box.close()
    assert core.attempts == 1


TRUE = 1_800_000_000.0


@pytest.mark.parametrize("wrong", [0.0, TRUE - 10**9, TRUE + 10**9], ids=["1970", "years behind", "years ahead"])
def test_messages_of_a_wrong_clock_wait_for_the_right_time(tmp_path: Path, wrong: float) -> None:
    clock, core, health = FakeClock(wrong, uptime=5.0), Core(online=True), Health("test", "1")

    def opened() -> Outbox:
        path = tmp_path / "outbox.spool"
        return Outbox(path, core, health, max_bytes=1 << 20, times={"at": 1, "ts": 1000}, clock=clock)

    box = opened()
    box.put("t", json.dumps({"at": wrong, "n": 0}).encode())
    eventually(lambda: [problem.code for problem in health.problems.current()] == ["clock"])
    box.close()  # a restart within the boot
    box = opened()
    clock.pass_s(10)
    box.put("t", json.dumps({"ts": int(wrong * 1000) + 10_000, "n": 1}).encode())
    assert core.iot == []
    clock.synchronise(TRUE)
    box.put("t", json.dumps({"at": TRUE, "n": 2}).encode())
    eventually(lambda: len(core.iot) == 3)
    box.close()
    found = [json.loads(payload) for _, payload, _ in core.iot]
    assert found == [{"at": TRUE - 10, "n": 0}, {"ts": int(TRUE * 1000), "n": 1}, {"at": TRUE, "n": 2}]
    assert health.problems.current() == ()


def test_a_clock_that_is_never_set_holds_messages_for_a_while_and_marks_them(tmp_path: Path) -> None:
    clock, core = FakeClock(1000.0, uptime=5.0), Core(online=True)
    health = Health("t", "1")
    box = Outbox(tmp_path / "o.spool", core, health, max_bytes=1 << 20, times={"at": 1}, clock=clock, clock_wait_s=60)
    box.put("t", b'{"at":1000.0}')
    eventually(lambda: [problem.code for problem in health.problems.current()] == ["clock"], what="being held")
    assert core.iot == []
    clock.pass_s(56)
    box.put("t", b'{"at":1056.0}')
    eventually(lambda: len(core.iot) == 2)
    box.close()
    marked = [{"at": at, "clock": "unsynchronised"} for at in (1000.0, 1056.0)]
    assert [json.loads(payload) for _, payload, _ in core.iot] == marked


def test_what_another_boot_left_is_marked_and_not_held(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "o.spool", max_bytes=1 << 20, clock=FakeClock(1000.0, boot="before"))
    spool.put("t", b'{"at":1000.0}')
    spool.close()
    core, clock = Core(online=True), FakeClock(TRUE, synchronised=True)
    box = Outbox(tmp_path / "o.spool", core, Health("t", "1"), max_bytes=1 << 20, times={"at": 1}, clock=clock)
    eventually(lambda: len(core.iot) == 1)
    box.close()
    assert json.loads(core.iot[0][1]) == {"at": 1000.0, "clock": "unsynchronised"}
