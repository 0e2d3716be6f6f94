"""1,000 events through each route of the template at once, and nothing lost."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import urllib3
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import LocalCloud
from localdev.cloud.api import KEY
from localdev.cloud.aws import Request, Response
from localdev.cloud.cloud import TEMPLATE

EVENTS = 1000
HTTP = urllib3.PoolManager()  # a third of what boto3 and requests cost, and here the caller shares the CPU
FACE = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "HAPPY", "Confidence": 90.0}]}


def instant(request: Request) -> Response | None:
    """Models that answer at once: here the routes are under load."""
    if request.service == "rekognition":
        return Response(json.dumps({"FaceDetails": [FACE]}).encode())
    if request.path.startswith("/endpoints/"):
        return Response(request.body, headers={"Content-Type": "text/csv"})
    return None


@pytest.fixture
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, concurrency=2) as running:
        running.aws.stand_ins.insert(0, instant)
        yield running


def each(work: Any) -> list[Any]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, range(EVENTS)))


def outputs(cloud: LocalCloud) -> dict[str, str]:
    assert cloud.stack is not None
    return cloud.stack.outputs


def failed(cloud: LocalCloud) -> list[Any]:
    sqs = cloud.aws.client("sqs")
    return list(
        sqs.receive_message(QueueUrl=sqs.get_queue_url(QueueName="FailedEvents")["QueueUrl"]).get("Messages", [])
    )


def test_every_face_becomes_an_item(cloud: LocalCloud) -> None:
    faces = f"{cloud.aws.url}/{outputs(cloud)['DataBucketName']}/faces"
    puts = each(lambda i: HTTP.request("PUT", f"{faces}/t{i % 5}/{i}.jpg", body=b"jpeg").status)
    assert set(puts) == {200}
    cloud.drain(60)
    pages = cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName="rekognize-faces")
    assert sum(len(page["Items"]) for page in pages) == EVENTS
    assert failed(cloud) == []


def test_every_message_becomes_a_line(cloud: LocalCloud) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(*cloud.mqtt_address)
    client.loop_start()
    now = time.time()
    for i in range(EVENTS):
        message = {"type": "rawdata", "data": {"ts": now + i / 1000, "values": [i]}}
        sent = client.publish(f"device/t{i % 5}/logs", json.dumps(message), 1)
    sent.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
    cloud.drain(60)
    pages = cloud.aws.client("logs").get_paginator("filter_log_events").paginate(logGroupName="/edgeml/turbine")
    values = [int(event["message"].split()[-1]) for page in pages for event in page["events"]]
    assert sorted(values) == list(range(EVENTS))


def test_every_sample_becomes_a_line(cloud: LocalCloud) -> None:
    delivered: list[bytes] = []

    def watch(request: Request, _: Response) -> None:
        if request.operation == "PutRecordBatch":
            delivered.extend(b64decode(record["Data"]) for record in json.loads(request.body)["Records"])

    cloud.aws.observers.append(watch)
    sns, topic = cloud.aws.client("sns"), outputs(cloud)["SampleTopicArn"]
    for i in range(0, EVENTS, 10):
        entries = [{"Id": str(n), "Message": str(n)} for n in range(i, i + 10)]
        sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    cloud.drain(60)
    assert sorted(int(line) for line in delivered) == list(range(EVENTS))
    assert failed(cloud) == []


def test_every_request_is_answered(cloud: LocalCloud) -> None:
    assert cloud.api is not None
    url = f"{cloud.api.url}/live/liveinference"
    answers = each(lambda i: HTTP.request("GET", f"{url}?features={i}", headers={"x-api-key": KEY}, timeout=30))
    assert [(answer.status, answer.data) for answer in answers] == [(200, b"%d" % i) for i in range(EVENTS)]


def test_every_approval_starts_a_build(cloud: LocalCloud) -> None:
    detail = {"ModelApprovalStatus": "Approved", "ModelPackageGroupName": "edgeml-models", "ModelPackageArn": "arn"}
    entry = {
        "Source": "aws.sagemaker",
        "DetailType": "SageMaker Model Package State Change",
        "Detail": json.dumps(detail),
    }
    events = cloud.aws.client("events")
    for _ in range(EVENTS // 10):
        events.put_events(Entries=[entry] * 10)
    builds = cloud.aws.client("codebuild").list_builds_for_project(projectName="ExportModelProject")["ids"]
    assert len(builds) == EVENTS
