"""IoT Jobs of the local cloud: jobs made with boto3, and a device that does them by MQTT."""

import json
import time
import urllib.request
from contextlib import ExitStack
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobs_support import Device, counts, executions, group
from localdev.cloud import LocalCloud
from support import eventually

ROLE = "arn:aws:iam::123456789012:role/jobs"


def test_a_group_is_expanded_with_its_subgroups_and_each_thing_is_told(iot: Any, device: Device) -> None:
    site = group(iot, "site", ["valve"])
    group(iot, "hall", ["pump"], parent="site")
    iot.create_job(jobId="one", targets=[site], document='{"operation": "x"}')
    assert device.next() == "one"
    eventually(lambda: len(executions(iot, "one")) == 2, 5, "two executions")
    listed = executions(iot, "one")
    assert {item["thingArn"].rpartition("/")[2] for item in listed} == {"pump", "valve"}
    execution = iot.describe_job_execution(jobId="one", thingName="pump")["execution"]
    assert (execution["status"], execution["executionNumber"]) == ("QUEUED", 1)
    details = iot.describe_job(jobId="one")["job"]["jobProcessDetails"]
    assert details["numberOfQueuedThings"] == 2


def test_jobs_are_done_in_order_and_a_restarted_device_gets_its_job_again(iot: Any, device: Device) -> None:
    arn = group(iot, "g", ["pump"])
    for name in ("first", "second"):
        iot.create_job(jobId=name, targets=[arn], document=json.dumps({"name": name}))
        time.sleep(0.01)
    assert device.next() == "first"
    for _ in range(2):
        verdict, answer = device.ask("start-next")
        assert (verdict, answer["execution"]["jobId"]) == ("accepted", "first")
        assert answer["execution"]["status"] == "IN_PROGRESS"
        assert answer["execution"]["jobDocument"] == {"name": "first"}
    verdict, _ = device.ask("first/update", status="IN_PROGRESS", statusDetails={"progress": "50"})
    assert verdict == "accepted"
    assert iot.describe_job_execution(jobId="first", thingName="pump")["execution"]["statusDetails"] == {
        "detailsMap": {"progress": "50"}
    }
    _, lists = device.ask("get")
    assert [job["jobId"] for job in lists["inProgressJobs"]] == ["first"]
    assert [job["jobId"] for job in lists["queuedJobs"]] == ["second"]
    device.ask("first/update", status="SUCCEEDED")
    assert device.next() == "second"
    device.ask("start-next")
    device.ask("second/update", status="FAILED", statusDetails={"reason": "full"})
    assert device.next() == ""
    assert device.ask("start-next") == ("accepted", {"timestamp": pytest.approx(time.time(), abs=5)})
    assert iot.describe_job(jobId="first")["job"]["status"] == "COMPLETED"
    assert iot.describe_job(jobId="second")["job"]["jobProcessDetails"]["numberOfFailedThings"] == 1


def test_updates_that_aws_refuses_are_refused(iot: Any, device: Device) -> None:
    iot.create_job(jobId="j", targets=[group(iot, "g", ["pump"])], document="{}")
    device.next()
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("nothing/update", {"status": "SUCCEEDED"}, "ResourceNotFound"),
        ("nothing/get", {}, "ResourceNotFound"),
        ("j/update", {"status": "DONE"}, "InvalidRequest"),
        ("j/update", {"status": "FAILED", "statusDetails": {"reason": "two\nlines"}}, "InvalidRequest"),
        ("j/update", {"status": "FAILED", "statusDetails": {"reason": ""}}, "InvalidRequest"),
        ("j/update", {"status": "SUCCEEDED", "expectedVersion": 7}, "VersionMismatch"),
        ("j/update", {"status": "SUCCEEDED", "executionNumber": 2}, "ResourceNotFound"),
        ("j/update", {"status": "SUCCEEDED"}, ""),
        ("j/update", {"status": "FAILED"}, "InvalidStateTransition"),
    ]
    for request, body, code in cases:
        verdict, answer = device.ask(request, **body)
        assert (verdict, answer.get("code", "")) == ("rejected" if code else "accepted", code), request


def test_a_placeholder_becomes_a_url_that_works(cloud: LocalCloud, iot: Any, device: Device) -> None:
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="a/b c.zip", Body=b"bundle")
    place = "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/models/a/b c.zip}"
    iot.create_job(
        jobId="j",
        targets=[group(iot, "g", ["pump"])],
        document=json.dumps({"url": place}),
        presignedUrlConfig={"roleArn": ROLE, "expiresInSec": 600},
    )
    device.next()
    _, answer = device.ask("start-next")
    url = answer["execution"]["jobDocument"]["url"]
    assert url.startswith(f"{cloud.aws.url}/models/a/b%20c.zip?")
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
        assert response.read() == b"bundle"
    _, again = device.ask("j/get", includeJobDocument=True)
    assert again["execution"]["jobDocument"]["url"].startswith(cloud.aws.url)


def test_requests_that_aws_refuses_are_refused(iot: Any) -> None:
    arn = group(iot, "g", ["pump"])
    placeholder = json.dumps({"u": "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/b/k}"})
    good = {"jobId": "j", "targets": [arn], "document": "{}"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"targets": [arn + "x"]}, "ResourceNotFoundException"),
        ({"document": "no json"}, "InvalidRequestException"),
        ({"document": json.dumps("x" * 32_767)}, "InvalidRequestException"),
        ({"document": placeholder}, "InvalidRequestException"),
        ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1001}}, "InvalidRequestException"),
        ({}, ""),
        ({}, "ResourceAlreadyExistsException"),
    ]
    for change, code in cases:
        if not code:
            iot.create_job(**{**good, **change})
            continue
        with pytest.raises(ClientError) as caught:
            iot.create_job(**{**good, **change})
        assert caught.value.response["Error"]["Code"] == code, change


def test_a_job_in_progress_times_out_and_a_cancelled_one_is_taken_back(iot: Any, device: Device) -> None:
    arn = group(iot, "g", ["pump"])
    iot.create_job(jobId="slow", targets=[arn], document="{}", timeoutConfig={"inProgressTimeoutInMinutes": 1})
    device.next()
    device.ask("start-next")
    assert device.next() == ""
    assert iot.describe_job_execution(jobId="slow", thingName="pump")["execution"]["status"] == "TIMED_OUT"
    assert counts(iot, "slow") == {"TIMED_OUT": 1}
    assert device.ask("slow/update", status="SUCCEEDED")[1]["code"] == "InvalidStateTransition"
    iot.create_job(jobId="mistake", targets=[arn], document="{}")
    assert device.next() == "mistake"
    iot.cancel_job(jobId="mistake")
    assert device.next() == ""
    assert iot.describe_job_execution(jobId="mistake", thingName="pump")["execution"]["status"] == "CANCELED"
    assert counts(iot, "mistake") == {"CANCELED": 1}


def test_the_counts_of_a_job_are_those_of_its_executions(cloud: LocalCloud, iot: Any) -> None:
    reports = ["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
    arn = group(iot, "g", ["idle", *reports])
    with ExitStack() as stack:
        devices = [Device(cloud, thing) for thing in reports]
        for device in devices:
            stack.callback(device.close)
        iot.create_job(jobId="j", targets=[arn], document="{}")
        for device, status in zip(devices, reports, strict=True):
            assert device.next() == "j"
            assert device.ask("j/update", status=status)[0] == "accepted"
        eventually(lambda: len(executions(iot, "j")) == 5, 5, "five executions")
        assert counts(iot, "j") == {"QUEUED": 1, **dict.fromkeys(reports, 1)}
        iot.cancel_job(jobId="j")
        assert counts(iot, "j") == {"CANCELED": 1, **dict.fromkeys(reports, 1)}
