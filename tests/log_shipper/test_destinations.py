"""Where lines go: messages to AWS IoT Core, both sinks at once, and CloudWatch Logs as moto has it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.log_rig import shipper
from faulty_logs import FaultySink
from shipped_support import STAMP, STAMP_S, line
from support import eventually


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
