"""A component while all is well: messages in order, health, and an end in time."""

from pathlib import Path

from component_support import echo
from edgeml.component import HEALTH_INTERVAL_S
from edgeml.ipc import INBOX


def test_messages_come_in_order_on_both_channels(package: Path) -> None:
    with echo(package) as running:
        for number in range(200):
            running.send("say/it", number)
        running.message("said", count=200)
        assert [line["payload"] for line in running.lines if line["topic"] == "said"] == list(range(200))
        running.send("cloud/a/b", {"x": 1}, channel="iot_core")
        assert running.message("back") == {"x": 1}
        assert running.lines[-1]["channel"] == "iot_core"


def test_sigterm_stops_flushes_and_exits_with_zero(package: Path) -> None:
    with echo(package) as running:
        running.logged("started component=edgeml.Echo version=1.0.0")
        assert running.message("edgeml/health/Echo", timeout=HEALTH_INTERVAL_S - 2)["problems"] == []  # at once
        assert running.stop() == 0
    assert [line["topic"] for line in running.lines] == ["edgeml/health/Echo", "stopped", "edgeml/health/Echo"]


def test_a_report_too_long_for_a_message_leaves_out_its_finer_points(package: Path) -> None:
    with echo(package, parts=300) as running:
        running.logged("started")
        assert running.stop() == 0
    report = running.lines[-1]["payload"]
    assert report["component"] == "edgeml.Echo"
    assert report["rates"] == {}


def test_messages_that_come_faster_than_they_are_handled_are_counted_in_health(package: Path) -> None:
    with echo(package) as running:
        running.send("say/it", "slow")
        running.message("slow")
        for number in range(INBOX + 500):
            running.send("say/it", number)
        running.logged("inbox full")
        (package / "w" / "go").touch()
        assert running.stop() == 0
        report = running.last("edgeml/health/Echo")
    assert 0 < report["gauges"]["messages.dropped"] <= 500
