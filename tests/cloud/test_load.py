"""Many events through each route of the template at once, and nothing lost: 60, and 1,000 with --soak."""

import itertools
import json
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import urllib3
from paho.mqtt.enums import CallbackAPIVersion

from cloud_support import ANY_THING
from localdev.cloud import LocalCloud
from localdev.cloud.api import KEY
from localdev.cloud.aws import Request, Response
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.iot_jobs import IotJobs
from localdev.mqtt_end import let_go
from ota_support import MODEL, Signer, document

HTTP = urllib3.PoolManager(maxsize=4)  # a third of what boto3 and requests cost, and here the caller shares the CPU
FACE = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "HAPPY", "Confidence": 90.0}]}


def instant(request: Request) -> Response | None:
    """Models that answer at once: here the routes are under load."""
    if request.service == "rekognition":
        return Response(json.dumps({"FaceDetails": [FACE]}).encode())
    if request.path.startswith("/endpoints/"):
        return Response(request.body, headers={"Content-Type": "text/csv"})
    return None


@pytest.fixture
def events(request: pytest.FixtureRequest) -> int:
    return 1000 if request.config.getoption("soak") else 60


@pytest.fixture
def deliveries() -> int:
    """How often AWS delivers each event."""
    return 1


@pytest.fixture
def concurrency() -> int:
    """Processes per function."""
    return 2


@pytest.fixture
def cloud(deliveries: int, concurrency: int) -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, ANY_THING, concurrency=concurrency, deliveries=deliveries) as running:
        running.aws.stand_ins.insert(0, instant)
        yield running


def each(count: int, work: Any) -> list[Any]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, range(count)))


def outputs(cloud: LocalCloud) -> dict[str, str]:
    assert cloud.stack is not None
    return cloud.stack.outputs


def failed(cloud: LocalCloud) -> list[Any]:
    sqs = cloud.aws.client("sqs")
    return list(
        sqs.receive_message(QueueUrl=sqs.get_queue_url(QueueName="FailedEvents")["QueueUrl"]).get("Messages", [])
    )


def test_every_face_becomes_an_item(cloud: LocalCloud, events: int) -> None:
    faces = f"{cloud.aws.url}/{outputs(cloud)['DataBucketName']}/faces"
    puts = each(events, lambda i: HTTP.request("PUT", f"{faces}/t{i % 5}/{i}.jpg", body=b"jpeg").status)
    assert set(puts) == {200}
    cloud.drain(100)
    pages = cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName="rekognize-faces")
    assert sum(len(page["Items"]) for page in pages) == events
    assert failed(cloud) == []


def test_every_message_becomes_a_line(cloud: LocalCloud, events: int) -> None:
    clients = [mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"t{i}") for i in range(5)]
    for client in clients:
        client.connect(*cloud.mqtt_address)
        client.loop_start()
    now, sent = time.time(), []
    for i in range(events):
        message = {"type": "rawdata", "data": {"ts": now + i / 1000, "values": [i]}}
        sent.append(clients[i % 5].publish(f"device/t{i % 5}/logs", json.dumps(message), 1))
    for message_info in sent:
        message_info.wait_for_publish(30)
    for client in clients:
        let_go(client)
    cloud.drain(100)
    pages = cloud.aws.client("logs").get_paginator("filter_log_events").paginate(logGroupName="/edgeml/turbine")
    values = [int(event["message"].split()[-1]) for page in pages for event in page["events"]]
    assert sorted(values) == list(range(events))


def test_every_sample_becomes_a_line(cloud: LocalCloud, events: int) -> None:
    delivered: list[bytes] = []

    def watch(request: Request, _: Response) -> None:
        if request.operation == "PutRecordBatch":
            delivered.extend(b64decode(record["Data"]) for record in json.loads(request.body)["Records"])

    cloud.aws.observers.append(watch)
    sns, topic = cloud.aws.client("sns"), outputs(cloud)["SampleTopicArn"]
    for i in range(0, events, 10):
        entries = [{"Id": str(n), "Message": str(n)} for n in range(i, i + 10)]
        sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    cloud.drain(100)
    assert sorted(int(line) for line in delivered) == list(range(events))
    assert failed(cloud) == []


def test_every_request_is_answered(cloud: LocalCloud, events: int) -> None:
    assert cloud.api is not None
    url = f"{cloud.api.url}/live/liveinference"
    answers = each(events, lambda i: HTTP.request("GET", f"{url}?features={i}", headers={"x-api-key": KEY}, timeout=30))
    assert [(answer.status, answer.data) for answer in answers] == [(200, b"%d" % i) for i in range(events)]


def test_every_approval_starts_a_build(cloud: LocalCloud, events: int) -> None:
    detail = {"ModelApprovalStatus": "Approved", "ModelPackageGroupName": "edgeml-models", "ModelPackageArn": "arn"}
    entry = {
        "Source": "aws.sagemaker",
        "DetailType": "SageMaker Model Package State Change",
        "Detail": json.dumps(detail),
    }
    assert cloud.builds is not None
    cloud.aws.observers.remove(cloud.builds.observe)  # asked for is enough: no build of these could succeed
    bus = cloud.aws.client("events")
    for _ in range(events // 10):
        bus.put_events(Entries=[entry] * 10)
    builds = cloud.aws.client("codebuild").list_builds_for_project(projectName="ExportModelProject")["ids"]
    assert len(builds) == events


@pytest.mark.parametrize("deliveries", [2])
def test_every_document_becomes_one_job(cloud: LocalCloud, events: int) -> None:
    bucket, artifact, signer = outputs(cloud)["ModelBucketName"], b"a bundle", Signer()
    created: list[str] = []

    def put(key: str, body: bytes) -> int:
        return int(HTTP.request("PUT", f"{cloud.aws.url}/{bucket}/{key}", body=body).status)

    def offer(i: int) -> int:
        url = f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{bucket}/model.zip}}"
        return put(f"jobs/{i}.json", json.dumps(signer.signed(document(artifact, f"1.0.{i}", url))).encode())

    def watch(request: Request, _: Response) -> None:
        if request.service == "iot" and request.method == "PUT" and not request.path.endswith("/cancel"):
            created.append(request.path.removeprefix("/jobs/"))

    cloud.aws.observers.append(watch)
    with IotJobs(cloud.aws, *cloud.mqtt_address):  # refuses a second job of the same id, which moto does not
        assert {put("model.zip", artifact), *each(events, offer)} == {200}
        cloud.drain(100)
        everything = cloud.aws.client("iot").list_jobs(maxResults=2 * events)  # moto has no second page
        jobs = [job["jobId"] for job in everything["jobs"]]
    assert sorted(jobs) == sorted(created)
    assert {job.rpartition("-")[0] for job in jobs} == {f"{MODEL}-1_0_{i}" for i in range(events)}
    assert len(jobs) == events
    assert failed(cloud) == []


@pytest.mark.parametrize("concurrency", [1])  # what the template reserves for this function
def test_every_version_asked_for_is_deployed_once(cloud: LocalCloud, events: int) -> None:
    """Many requests, but 20 models: for a version that is new the function reads all deployments there ever were."""
    greengrass, group = cloud.aws.client("greengrassv2"), cloud.aws.client("iot").list_thing_groups()["thingGroups"][0]
    names, checked = [f"edgeml.model.M{i}" for i in range(20)], []
    for name, version in itertools.product(names, ("1.0.0", "2.0.0")):
        recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": name, "ComponentVersion": version}
        greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
    old = {name: {"componentVersion": "1.0.0"} for name in names}
    greengrass.create_deployment(targetArn=group["groupArn"], components=old)

    def watch(request: Request, _: Response) -> None:
        if request.service == "greengrass" and "/components/" in request.path:
            checked.append(request.path.split(":")[-3])

    def approve(i: int) -> int:
        payload = {"component_name": names[i % 20], "component_version": "2.0.0"}
        url = f"{cloud.aws.url}/2015-03-31/functions/UpdateDeployment/invocations"
        return int(HTTP.request("POST", url, json=payload, headers={"X-Amz-Invocation-Type": "Event"}).status)

    cloud.aws.observers.append(watch)
    assert set(each(events, approve)) == {202}
    cloud.drain(100)
    assert Counter(checked) == dict.fromkeys(names, events // 20), "each request was looked at"
    deployed = cloud.greengrass.deployments
    assert deployed[-1].request["components"] == {name: {"componentVersion": "2.0.0"} for name in names}
    assert len(deployed) == 1 + len(names)
    assert failed(cloud) == []
