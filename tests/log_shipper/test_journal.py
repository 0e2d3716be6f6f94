"""The journal as an input: from the delivered cursor, entries of any shape, units and levels."""

import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.log_rig import shipper
from faulty_logs import FaultySink
from log_shipper.config import Config
from log_shipper.entry import NO_MESSAGE, level_of
from log_shipper.parse import LEVELS
from log_shipper.units import Units
from shipped_support import NOW
from support import eventually

JOURNALCTL = """#!{python}
# A stand-in for journalctl in tests, not the real one: prints what lies in $JOURNAL and goes on following it.
import json, os, select, sys
hung_up = select.poll()
hung_up.register(1, 0)
sys.stderr.write("stand-in journalctl " + " ".join(sys.argv[1:]) + "\\n")
if "--field=_SYSTEMD_UNIT" in sys.argv:
    with open(os.environ["JOURNAL"]) as file:
        print("\\n".join({json.loads(line)["_SYSTEMD_UNIT"] for line in file}))
    sys.exit()
options = dict(option.lstrip("-").split("=", 1) for option in sys.argv[1:] if "=" in option)
assert options["output"] == "json" and "--follow" in sys.argv
after = options.get("after-cursor", "")
skipping = bool(after)
with open(os.environ["JOURNAL"]) as file:
    while True:
        line = file.readline()
        if not line.endswith("\\n"):
            sys.stdout.flush()
            if hung_up.poll(20):  # as the real one, it ends with its reader
                sys.exit(1)
            continue
        entry = json.loads(line)
        if not skipping and entry["_SYSTEMD_UNIT"] == options["unit"]:
            sys.stdout.write(line)
        skipping = skipping and entry["__CURSOR"] != after
"""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's journal, which the process finds by its environment."""
    tool = tmp_path / "bin" / "journalctl"
    tool.parent.mkdir()
    tool.write_text(JOURNALCTL.replace("{python}", sys.executable))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path / "journal"


def entry(number: int, message: Any = None, unit: str = "ggl.com.example.A.service", **fields: Any) -> str:
    entry = {
        "__CURSOR": f"s=1;i={number:x}",
        "__REALTIME_TIMESTAMP": str((NOW + number) * 1_000_000),
        "_SYSTEMD_UNIT": unit,
        "MESSAGE": f"entry {number}" if message is None else message,
        "PRIORITY": "6",
    }
    return json.dumps(entry | fields) + "\n"


def test_the_journal_is_followed_from_the_delivered_cursor(tmp_path: Path, sink: FaultySink, journal: Path) -> None:
    journal.write_text(
        "".join(entry(number, PRIORITY={3: "", 4: "12", 5: "67"}.get(number, "6")) for number in range(50))
        + entry(50, list(b"not utf-8: \xff"))
        + entry(51, PRIORITY="7")
        + entry(52, "core", unit="ggl.core.ggdeploymentd.service")
        + entry(53, "not asked for", unit="ssh.service")
        + entry(54, "chatter", unit="ggl.core.ggipcd.service")
        + entry(55, "our own", unit="ggl.edgeml.LogShipper.service")
        + entry(56, "not asked for", unit="ggl.com.example.B.service")
    )
    config = {
        "journald": {"enabled": "on"},
        "components": ["com.example.A", "edgeml.*"],
        "logsUploaderConfiguration": {"systemLogsConfiguration": {"uploadToCloudWatch": True}},
    }
    with shipper(tmp_path, config, JOURNAL=str(journal), AWS_ENDPOINT_URL=sink.url) as process:
        sink.wait_for(52)
        with journal.open("a") as file:
            file.write(entry(57))
        sink.wait_for(53)  # what comes before is recorded as delivered before this is sent
        process.kill()
        with journal.open("a") as file:
            file.write(entry(58, "installed", unit="ggl.com.example.A.install.service"))
        process.start()
        eventually(lambda: "installed" in sink.messages(), what="what came meanwhile")
        cursors = [int(number, 16) for number in re.findall(r"--after-cursor=s=1;i=(\w+)", process.said())]
        # Of the last one that arrived first, of what follows it and is not sent, or of 57.
        assert cursors
        assert {*cursors} <= {*range(50, 58)}
    user = [event for event in sink.events if event.group == "/aws/greengrass/UserComponent/eu-west-1/com.example.A"]
    messages = [event.message for event in user]
    assert messages[:52] == [*(f"entry {n}" for n in range(50)), "not utf-8: �", "entry 57"]
    assert sorted({*messages[52:]} - {"entry 57"}) == ["installed"]  # killed, it may send the last one again
    assert user[7].timestamp == (NOW + 7) * 1000
    assert {*sink.messages("/GreengrassSystemComponent/eu-west-1/core.ggdeploymentd")} == {"core"}
    assert {event.message for event in sink.events} == {*messages, "core"}


def test_journal_entries_of_any_shape_arrive_and_hold_nothing_back(
    tmp_path: Path, sink: FaultySink, journal: Path
) -> None:
    huge = "q" * 5_000_000
    journal.write_text(
        entry(0, ["twice", "said"])
        + entry(1, [list(b"one"), list(b"\xff two")])
        + entry(2, __REALTIME_TIMESTAMP=["nonsense"])
        + entry(3, PRIORITY=["6", "3"], CODE_LINE=None, FIELD=["a", None])
        + json.dumps({**json.loads(entry(4)), "MESSAGE": None})
        + "\n"
        + entry(5, huge)
        + entry(6, "half a \ud800 pair")
        + entry(7, "Go's zero time", __REALTIME_TIMESTAMP="-62135596800000000")
        + entry(8, "a\u2028b\u0085c\0d")
        + entry(9, "last")
    )
    config = {"journald": {"enabled": "on", "units": ["ggl.com.*"]}}
    with shipper(tmp_path, config, JOURNAL=str(journal), AWS_ENDPOINT_URL=sink.url) as process:
        eventually(lambda: "last" in sink.messages(), what="the last entry")
        assert process.stop() == 0
    messages = sink.messages()
    whole = [
        "twice\nsaid",
        "one\n� two",
        "entry 2",
        "entry 3",
        NO_MESSAGE,
        "Go's zero time",
        "a\u2028b\u0085cd",
        "last",
    ]
    assert [text for text in whole if messages.count(text) != 1] == []
    rest = "".join(text for text in messages if text not in whole)
    assert rest.count("q") == len(huge)
    assert "half a" in rest
    assert all(NOW - 120 < event.timestamp / 1000 < time.time() + 120 for event in sink.events)


@pytest.fixture
def units() -> Callable[..., list[str]]:
    """Groups' names of the units below that a configuration ships."""
    names = ["edgeml.A", "edgeml.A.install", "edgeml.LogShipper", "com.example.B", "core.ggipcd", "core.iotcored"]
    known = [*(f"ggl.{name}.service" for name in [*names, "core.ggdeploymentd"]), "ssh.service"]

    def shipped(**raw: Any) -> list[str]:
        chosen = Units(msgspec.convert(raw, Config))
        logs = [chosen.log_of(unit) for unit in known]
        return [f"{log.name}:{log.options.minimum_log_level}" for log in logs if log is not None]

    return shipped


def test_the_settings_for_components_and_the_core_choose_units(units: Callable[..., list[str]]) -> None:
    system = {"systemLogsConfiguration": {"uploadToCloudWatch": True, "minimumLogLevel": "WARN"}}
    named = {"componentLogsConfigurationMap": {"com.example.B": {"minimumLogLevel": "ERROR"}}}
    assert units() == ["edgeml.A:INFO", "edgeml.A:INFO"]
    assert units(components=["com.*"]) == ["com.example.B:INFO"]
    assert units(logsUploaderConfiguration=named) == ["com.example.B:ERROR"]
    assert units(logsUploaderConfiguration=named, components=["edgeml.A"]) == [
        *["edgeml.A:INFO"] * 2,
        "com.example.B:ERROR",
    ]
    assert units(logsUploaderConfiguration=system, components=[]) == ["core.ggdeploymentd:WARN"]
    assert units(components=["edgeml.LogShipper"]) == ["edgeml.LogShipper:INFO"]
    assert units(journald={"units": ["ggl.core.*", "ssh.service"]}) == ["core.ggdeploymentd:INFO", "ssh:INFO"]
    assert units(journald={"units": ["ggl.core.ggipcd.service"], "minimumLogLevel": "DEBUG"}) == ["core.ggipcd:DEBUG"]
    assert units(journald={"units": ["ggl.com.*"]}) == ["com.example.B:INFO"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("DEBUG edgeml.component started", "DEBUG"),
        ("WARNING:root:x", "WARN"),
        ("2026-11-21T10:00:00.000Z [ERROR] (main) a: b", "ERROR"),
        ("2026-11-21 10:00:00,123 - a.b - DEBUG - x", "DEBUG"),
        ("[2026-11-21T10:00:00Z TRACE crate] x", "TRACE"),
        ("\x1b[1;31mE[gg-sdk] file.c:12: x", "ERROR"),
        ("I[ggipcd] server.c:1: x", "INFO"),
        ('{"time":1,"level":"error","message":"x"}', "ERROR"),
        ("ts=1 level=warn msg=x", "WARN"),
        ("debug: x", "DEBUG"),
        ("Debug mode is on", None),
        ("no ERROR was found", None),
        ("ERRORS: none", None),
        ("plain", None),
        ("", None),
    ],
    ids=str,
)
def test_the_level_of_an_entry_is_read_from_its_text(text: str, level: str | None) -> None:
    assert level_of(text) == (None if level is None else LEVELS[level])


def test_the_minimum_level_keeps_what_belongs_to_a_line_that_is_kept(
    tmp_path: Path, sink: FaultySink, journal: Path
) -> None:
    texts = ["INFO a", "ERROR b", "Traceback (most recent call last):", "ValueError: x", "DEBUG c", " d", "WARN end"]
    stamp = str(NOW * 1_000_000)
    journal.write_text("".join(entry(n, text, __REALTIME_TIMESTAMP=stamp) for n, text in enumerate(texts)))
    config = {"journald": {"enabled": "on", "minimumLogLevel": "WARN"}, "components": ["com.*"]}
    with shipper(tmp_path, config, JOURNAL=str(journal), AWS_ENDPOINT_URL=sink.url):
        eventually(lambda: "WARN end" in sink.messages(), what="the end")
    assert sink.messages() == [*texts[1:4], texts[6]]
