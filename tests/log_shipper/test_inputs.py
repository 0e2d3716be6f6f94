"""What is shipped: by pattern, LogManager's configuration, globs, health messages; and what a change of it does."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.log_rig import shipper
from edgeml.config import load
from faulty_logs import Fault, FaultySink, Request
from log_shipper.config import Config
from shipped_support import line
from support import eventually

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
        assert time.monotonic() - began < 15  # of the 20 that it hangs
        hanging.set()
