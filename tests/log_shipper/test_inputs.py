"""What is shipped: by pattern, LogManager's configuration, globs, the journal, health messages; and to where."""

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.log_rig import Fault, FaultySink, Request, shipper
from edgeml.config import load
from log_shipper.config import Config
from log_shipper.entry import NO_MESSAGE, level_of
from log_shipper.parse import LEVELS
from log_shipper.units import Units
from support import eventually

NOW = int(time.time())
STAMP_S = NOW - 7200
STAMP = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(STAMP_S))


def line(text: str, level: str = "INFO") -> str:
    return f"{STAMP} [{level}] (main) a: {text}\n"


# As in the guide to aws.greengrass.LogManager, numbers and booleans as strings.
LOG_MANAGER: dict[str, Any] = {
    "logsUploaderConfiguration": {
        "systemLogsConfiguration": {
            "uploadToCloudWatch": "true",
            "minimumLogLevel": "INFO",
            "diskSpaceLimit": "10",
            "diskSpaceLimitUnit": "MB",
            "deleteLogFileAfterCloudUpload": "false",
        },
        "componentLogsConfigurationMap": {
            "com.example.A": {"minimumLogLevel": "WARN", "diskSpaceLimit": "20", "diskSpaceLimitUnit": "MB"},
            "com.example.A_B": {"deleteLogFileAfterCloudUpload": "true"},
        },
    },
    "periodicUploadIntervalSec": "0.05",
}


@pytest.mark.parametrize(("given", "kept"), [("0.000001", 0.05), (300.0, 300), ("604800", 86400)])
def test_every_interval_that_logmanager_takes_is_one(given: Any, kept: float) -> None:
    assert load(Config, {"periodicUploadIntervalSec": given}).interval_s == kept


def test_a_logmanager_deployment_works_unchanged_and_names_that_prefix_one_another_stay_apart(
    tmp_path: Path, sink: FaultySink
) -> None:
    with shipper(tmp_path, LOG_MANAGER, AWS_ENDPOINT_URL=sink.url) as process:
        logs = process.logs
        (logs / "greengrass.log").write_text(line("nucleus"))
        (logs / "greengrass_2026_11_21_09_0.log").write_text(line("nucleus before"))
        (logs / "main.log").write_text(line("loader"))
        (logs / "com.example.A.log").write_text(line("a", "WARN") + line("a, too low"))
        (logs / "com.example.A_2026_11_21_09_0.log").write_text(line("a before", "ERROR"))
        (logs / "com.example.A_B.log").write_text(line("a_b"))
        (logs / "com.example.A_B_2026_11_21_09_0.log").write_text(line("a_b before"))
        (logs / "com.example.A_2026_11_21_08_0.log.gz").write_bytes(b"\x1f\x8b compressed")
        (logs / "com.example.AB.log").write_text(line("not asked for"))
        (logs / "com.example.A.log.bak").write_text(line("not asked for"))
        (logs / "empty.log").write_text("")
        sink.wait_for(6)
        eventually(lambda: not (logs / "com.example.A_B_2026_11_21_09_0.log").exists(), what="deletion")
        time.sleep(0.3)
        assert (logs / "com.example.A_B.log").exists()
        assert (logs / "com.example.A_2026_11_21_09_0.log").exists()
    prefix = "/aws/greengrass/UserComponent/eu-west-1/com.example"
    found = {(event.group, event.message.rpartition(": ")[2].strip()) for event in sink.events}
    assert found == {
        ("/aws/greengrass/GreengrassSystemComponent/eu-west-1/System", "nucleus"),
        ("/aws/greengrass/GreengrassSystemComponent/eu-west-1/System", "nucleus before"),
        (f"{prefix}.A", "a"),
        (f"{prefix}.A", "a before"),
        (f"{prefix}.A_B", "a_b"),
        (f"{prefix}.A_B", "a_b before"),
    }


def test_javas_quoted_regex_a_folder_of_its_own_and_globs(tmp_path: Path, sink: FaultySink) -> None:
    (tmp_path / "app" / "deep").mkdir(parents=True)
    config = {
        "logsUploaderConfiguration": {
            "componentLogsConfigurationMap": {
                "app": {"logFileDirectoryPath": str(tmp_path / "app"), "logFileRegex": "^\\Qa+b\\E\\w*.txt"}
            }
        },
        "files": {"deep": {"path": f"{tmp_path}/app/**/*.out"}},
        "logGroup": "/mine/{componentName}",
        "logStream": "{thingName}-{componentName}",
    }
    (tmp_path / "app" / "a+b_1.txt").write_text("plain one\nplain two\n")
    (tmp_path / "app" / "aab.txt").write_text("not matched\n")
    (tmp_path / "app" / "deep" / "x.out").write_text("deep\n")
    before = time.time() - 5
    with shipper(tmp_path, config, AWS_ENDPOINT_URL=sink.url):
        sink.wait_for(3)
    assert sorted((event.group, event.stream, event.message) for event in sink.events) == [
        ("/mine/app", "thing-1-app", "plain one"),
        ("/mine/app", "thing-1-app", "plain two"),
        ("/mine/deep", "thing-1-deep", "deep"),
    ]
    assert all(before * 1000 < event.timestamp < time.time() * 1000 for event in sink.events)


@pytest.mark.parametrize("option", ["logFileRegex", "multiLineStartPattern"])
def test_an_expression_that_cannot_be_used_is_a_problem_and_stops_no_other_log(
    tmp_path: Path, sink: FaultySink, option: str
) -> None:
    config = {
        "logsUploaderConfiguration": {"componentLogsConfigurationMap": {"a": {option: r"\p{IsLatin}+"}, "b": {}}},
        "files": {"f": {"path": f"{tmp_path}/f.log", "multiLineStartPattern": "("}},
    }
    (tmp_path / "f.log").write_text(line("f"))
    with shipper(tmp_path, config, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "b.log").write_text(line("b"))
        assert set(sink.wait_for(2)) == {line("b").rstrip(), line("f").rstrip()}
        where = f"logsUploaderConfiguration.componentLogsConfigurationMap.a.{option}"
        said = eventually(lambda: said if where in (said := process.said()) else "", what="the problem")
        assert f"{where}: not a regular expression that is understood (\\p{{IsLatin}})" in said
        process.configure({"files": config["files"], "components": ["b"]})
        eventually(lambda: f"problem is over code=log_refused subject={where}" in process.said(), what="the end")
    problems = process.published("local")[-1]["payload"]["problems"]
    assert [(problem["code"], problem["subject"]) for problem in problems] == [
        ("log_refused", "files.f.multiLineStartPattern")
    ]


def test_disk_limit_deletes_the_oldest_delivered_rotated_files_and_nothing_that_is_not_delivered(
    tmp_path: Path, sink: FaultySink
) -> None:
    sink.fault = lambda request: Fault(0)
    limits = {"diskSpaceLimit": 10, "diskSpaceLimitUnit": "KB"}
    config = {"logsUploaderConfiguration": {"componentLogsConfigurationMap": {"a": limits}}}
    with shipper(tmp_path, config, AWS_ENDPOINT_URL=sink.url) as process:
        files = [process.logs / f"a_2026_11_21_0{hour}_0.log" for hour in range(5)] + [process.logs / "a.log"]
        for number, file in enumerate(files):
            file.write_text(line("x" * 3900))
            os.utime(file, (1.7e9 + number, 1.7e9 + number))
        eventually(lambda: len(sink.requests) > 3, what="tries")
        assert all(file.exists() for file in files)
        sink.fault = lambda request: None
        sink.wait_for(6)
        eventually(lambda: [file.exists() for file in files] == [False] * 4 + [True] * 2, what="the limit")


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
        # 51, the last one before the other units, or 57
        assert {"--after-cursor=s=1;i=33", "--after-cursor=s=1;i=39"} & set(process.said().split())
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


def test_lines_go_to_iot_core_in_messages_that_fit(tmp_path: Path) -> None:
    config = {"sinks": ["iot_core"], "iotCore": {"content": "records"}}
    with shipper(tmp_path, config) as process:
        context = "{scriptName=services.edgeml.A.lifecycle.run, serviceName=edgeml.A, currentState=RUNNING}"
        written = [f"{STAMP} [WARN] (Copier) edgeml.A: stderr. line {n} {'y' * 900}. {context}\n" for n in range(400)]
        (process.logs / "edgeml.A.log").write_text("".join(written) + line("z" * 300_000))
        records: list[dict[str, Any]] = []

        def arrived() -> bool:
            records[:] = [
                record for message in process.published("iot_core") for record in message["payload"]["records"]
            ]
            return "".join(str(record["message"]) for record in records).count("z") >= 300_000

        eventually(arrived, what="records")
        messages = process.published("iot_core")
    assert {message["topic"] for message in messages} == {"device/thing-1/logs"}
    assert all(len(json.dumps(message["payload"], separators=(",", ":"))) <= 131_072 for message in messages)
    assert records[0] == {
        "timestamp": STAMP_S * 1000,
        "level": "WARN",
        "thread": "Copier",
        "logger": "edgeml.A",
        "message": f"line 0 {'y' * 900}",
    }
    assert [record["message"].split(" ")[1] for record in records[:400]] == [str(n) for n in range(400)]
    assert sum(record["message"].count("z") for record in records[400:]) == 300_000


def test_health_messages_become_metrics(tmp_path: Path, sink: FaultySink) -> None:
    report = {
        "component": "edgeml.Inferencer",
        "version": "1.0.0",
        "at": time.time(),
        "uptime_s": 12.0,
        "counters": {"frames": 7},
        "rates": {"frames": 3.5},
        "latency_ms": {"inference": {"p50": 1.5, "p99": 2.5}},
        "gauges": {"queue": 1},
        "notes": {},
        "last_error": None,
    }
    with shipper(tmp_path, {"healthMetrics": {"enabled": True}}, AWS_ENDPOINT_URL=sink.url) as process:
        eventually(lambda: "started" in process.said(), what="start")
        process.send("edgeml/health/Inferencer", report)
        process.send("edgeml/health/Inferencer", {"nonsense": 1})
        document = json.loads(sink.wait_for(1)[0])
        eventually(lambda: "health message not kept" in process.said(), what="a word on nonsense")
    directive = document["_aws"]["CloudWatchMetrics"][0]
    assert directive["Namespace"] == "EdgeML"
    assert {metric["Name"]: document[metric["Name"]] for metric in directive["Metrics"]} == {
        "frames_per_s": 3.5,
        "inference_p50": 1.5,
        "inference_p99": 2.5,
        "queue": 1.0,
        "uptime_s": 12.0,
    }
    assert {document[name] for name in directive["Dimensions"][0]} == {"edgeml.Inferencer", "thing-1"}


def test_a_changed_configuration_takes_over_and_repeats_nothing(tmp_path: Path, sink: FaultySink) -> None:
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(line("a"))
        (process.logs / "other.log").write_text(line("b"))
        sink.wait_for(1)
        eventually(lambda: "started" in process.said(), what="start")
        process.configure({"components": ["edgeml.*", "oth*"]})
        sink.wait_for(2)
    assert sorted(message[-1] for message in sink.messages()) == ["a", "b"]


def test_a_wrong_change_is_refused_and_a_request_that_hangs_delays_no_other(tmp_path: Path, sink: FaultySink) -> None:
    hanging = threading.Event()

    def fault(request: Request) -> Fault | None:
        if request.operation == "PutLogEvents":
            hanging.wait(20)
        return None

    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(line("a"))
        sink.wait_for(1)
        eventually(lambda: "started" in process.said(), what="start")
        process.configure({"logGroup": ""})
        eventually(lambda: "configuration logGroup: expected" in process.said(), what="the refusal")
        sink.fault = fault
        with (process.logs / "edgeml.A.log").open("a") as file:
            file.write(line("b"))
        eventually(lambda: sink.requests[-1].operation == "PutLogEvents" and len(sink.requests) > 1, what="b")
        began = time.monotonic()
        process.configure({"components": ["edgeml.*"]})
        eventually(lambda: "configuration changed" in process.said(), what="the change")
        assert time.monotonic() - began < 6
        hanging.set()


def test_both_sinks_get_every_line(tmp_path: Path, sink: FaultySink) -> None:
    with shipper(tmp_path, {"sinks": ["cloudwatch", "iot_core"]}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(line("a"))
        assert sink.wait_for(1) == [line("a").rstrip()]
        messages = eventually(lambda: process.published("iot_core"), what="the message")
    expected = [{"timestamp": STAMP_S * 1000, "message": line("a").rstrip()}]
    assert messages[0]["payload"] == {"thing": "thing-1", "component": "edgeml.A", "lines": expected}


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_moto_keeps_the_lines_and_the_retention_and_what_claims_another_time(tmp_path: Path, moto: str) -> None:
    def at(offset_s: float, text: str) -> str:
        return time.strftime(f"%Y-%m-%dT%H:%M:%SZ [INFO] (main) a: {text}\n", time.gmtime(time.time() + offset_s))

    config = {"logStream": "one", "retentionDays": 7}
    with shipper(tmp_path, config, AWS_ENDPOINT_URL=moto) as process:
        good = [at(-3600, f"line {number}") for number in range(500)]
        bad = [at(-20 * 86400, "old"), at(3 * 86400, "new")]
        (process.logs / "edgeml.A.log").write_text("".join([*good, *bad, at(-10, "last")]))
        client = boto3.client(
            "logs", endpoint_url=moto, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        group = "/aws/greengrass/UserComponent/eu-west-1/edgeml.A"

        def stored() -> list[str]:
            found = client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
            if not found:
                return []
            pages = client.get_paginator("filter_log_events").paginate(logGroupName=group)
            return [event["message"] for page in pages for event in page["events"]]

        messages = eventually(lambda: m if len(m := stored()) > 502 else [], what="events in moto")
        assert process.stop() == 0
        assert messages[:500] == [text.rstrip("\n") for text in good]
        assert sorted(message[-4:].strip() for message in messages[500:]) == ["last", "new", "old"]
        assert client.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
