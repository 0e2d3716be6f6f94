from pathlib import Path

from edgeml.errors import IpcError
from edgeml.health import Health
from edgeml.ipc import StandaloneIpc
from edgeml.outbox import Outbox
from support import eventually


class Core(StandaloneIpc):
    """A core that can be offline, as Nucleus Lite is: it then refuses at once. Keeps what it took."""

    def __init__(self, online: bool) -> None:
        self.online, self.max_iot_bytes = online, 7000
        self.attempts = 0
        self.taken: list[tuple[str, bytes, int]] = []

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self.attempts += 1
        if not self.online:
            raise IpcError("publish to IoT Core: offline (ServiceError)")
        self.taken.append((topic, payload, qos))


def outbox(folder: Path, core: Core, qos: int = 1) -> Outbox:
    return Outbox(folder / "outbox.spool", core, Health("test", "1"), max_bytes=1 << 20, qos=qos)


def test_what_is_sent_offline_waits_on_disk_and_goes_out_in_order(tmp_path: Path) -> None:
    offline = Core(online=False)
    box = outbox(tmp_path, offline)
    for number in range(20):
        box.send("t", b"%d" % number)
    eventually(lambda: offline.attempts, what="an attempt")
    box.close()
    assert offline.taken == []
    online = Core(online=True)
    box = outbox(tmp_path, online, qos=0)
    box.send("t", b"20")
    eventually(lambda: len(online.taken) == 21, what="all messages")
    box.close()
    assert online.taken == [("t", b"%d" % number, 0) for number in range(21)]


def test_what_this_core_never_takes_does_not_block_the_rest(tmp_path: Path) -> None:
    core = Core(online=True)
    box = outbox(tmp_path, core)
    box.send("t", b"x" * 7001)
    box.send("t", b"small")
    eventually(lambda: core.taken, what="the small one")
    box.close()
    assert core.taken == [("t", b"small", 1)]
