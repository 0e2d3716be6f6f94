"""create_iot_job against the local cloud's S3 and IoT Jobs, which refuse what AWS refuses."""

import json
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from cloud_support import sample
from localdev.cloud import LocalCloud, events
from localdev.cloud.iot_jobs import IotJobs
from ota_support import LambdaContext, Signer, document, load_handler
from support import eventually

BUCKET, ROLE = "edgeml-models", "arn:aws:iam::123456789012:role/urls"
ARTIFACT = b"a bundle, zipped"
URL = f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{BUCKET}/build/edgeml/model.zip}}"
GOOD = Signer().signed(document(ARTIFACT, "1.2.0", URL, name="WindTurbine"))

Deliver = Callable[..., dict[str, list[str]]]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCloud]:
    with LocalCloud() as running, IotJobs(running.aws, *running.mqtt_address):
        s3, iot = running.aws.client("s3"), running.aws.client("iot")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for key in ("build/edgeml/model.zip", "training/model.zip"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=ARTIFACT)
        iot.create_thing_group(thingGroupName="devices")
        yield running


def loaded(local: LocalCloud, **settings: str) -> ModuleType:
    arn = local.aws.client("iot").describe_thing_group(thingGroupName="devices")["thingGroupArn"]
    required = {"THING_GROUP_ARN": arn, "ARTIFACT_BUCKET": BUCKET, "URL_ROLE_ARN": ROLE}
    return load_handler("create_iot_job", {**local.environment(), **required, **settings})


@pytest.fixture(scope="module")
def app(local: LocalCloud) -> ModuleType:
    return loaded(local)


def put(local: LocalCloud, content: Any, key: str = "build/edgeml/job.json") -> dict[str, Any]:
    """Put an object; the event that S3 sends of it."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    made = local.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    return events.s3(BUCKET, key, "ObjectCreated:Put", len(body), made["ETag"].strip('"'), made["VersionId"])


def handled(app: ModuleType, event: dict[str, Any]) -> dict[str, list[str]]:
    return dict(app.handler(event, LambdaContext()))


def test_a_document_becomes_a_job_with_urls_rollout_and_thresholds(local: LocalCloud, app: ModuleType) -> None:
    answer = handled(app, put(local, GOOD))
    (job_id,) = answer["created"]
    assert re.fullmatch(r"WindTurbine-1_2_0-[0-9a-f]{16}", job_id)
    iot = local.aws.client("iot")
    assert json.loads(iot.get_job_document(jobId=job_id)["document"]) == GOOD
    job = iot.describe_job(jobId=job_id)["job"]
    assert job["targets"] == [iot.describe_thing_group(thingGroupName="devices")["thingGroupArn"]]
    assert job["presignedUrlConfig"] == {"roleArn": ROLE, "expiresInSec": 3600}
    assert job["jobExecutionsRolloutConfig"]["exponentialRate"]["baseRatePerMinute"] == 10
    assert job["abortConfig"]["criteriaList"][0]["thresholdPercentage"] == 10
    assert job["timeoutConfig"] == {"inProgressTimeoutInMinutes": 120}


def test_an_event_twice_makes_one_job_and_a_new_version_of_the_object_another(
    local: LocalCloud, app: ModuleType
) -> None:
    event = put(local, GOOD)
    first = handled(app, event)
    assert handled(app, event) == {"created": [], "repeated": first["created"], "refused": []}
    assert handled(app, put(local, GOOD))["created"] not in ([], first["created"])


def offer(local: LocalCloud, app: ModuleType, version: str, name: str = "Fan", **more: Any) -> str:
    job = Signer().signed_v2(document(ARTIFACT, version, URL, name=name, **more))
    (job_id,) = handled(app, put(local, job))["created"]
    return str(job_id)


def status(local: LocalCloud, job_id: str) -> str:
    return str(local.aws.client("iot").describe_job(jobId=job_id)["job"]["status"])


def test_a_job_takes_the_place_of_the_one_before_it_and_of_no_other(local: LocalCloud, app: ModuleType) -> None:
    neighbours = [offer(local, app, "1.0.0", name) for name in ("Fan-1", "Fan2", "Fa")]
    first = offer(local, app, "1.0.0")
    second = offer(local, app, "1.1.0")
    assert [status(local, job) for job in (first, second)] == ["CANCELED", "IN_PROGRESS"]
    late = offer(local, app, "1.0.9")  # its event was held up: what came after it stays
    assert status(local, second) == "IN_PROGRESS"
    rollback = offer(local, app, "1.0.0", allow_downgrade=True)
    assert [status(local, job) for job in (second, late, rollback)] == ["CANCELED", "CANCELED", "IN_PROGRESS"]
    assert [status(local, job) for job in neighbours] == ["IN_PROGRESS"] * 3


def test_an_event_that_comes_again_cancels_nothing_that_was_made_since(local: LocalCloud, app: ModuleType) -> None:
    rollback = Signer().signed_v2(document(ARTIFACT, "1.0.0", URL, name="Mill"), allow_downgrade=True)
    event = put(local, rollback)
    handled(app, event)
    newer = offer(local, app, "2.0.0", "Mill")
    handled(app, event)
    assert status(local, newer) == "IN_PROGRESS"


def test_a_thing_that_joins_later_gets_the_model_too(local: LocalCloud, app: ModuleType) -> None:
    iot = local.aws.client("iot")
    job_id = offer(local, app, "1.0.0", "Pump")
    iot.create_thing(thingName="late")
    iot.add_thing_to_thing_group(thingGroupName="devices", thingName="late")

    def queued() -> bool:
        found = iot.list_job_executions_for_thing(thingName="late")["executionSummaries"]
        return any(each["jobId"] == job_id for each in found)

    eventually(queued, 5, "an execution")
    iot.remove_thing_from_thing_group(thingGroupName="devices", thingName="late")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0.0", "1.0.1"),
        ("1.9.0", "1.10.0"),
        ("v1", "2"),
        ("1.0.0-rc.1", "1.0.0"),
        ("1.0.0-a", "1.0.0-b"),
        ("", "0.1"),
    ],
)
def test_versions_have_an_order(app: ModuleType, older: str, newer: str) -> None:
    assert app.version_key(older) < app.version_key(newer)
    assert app.version_key(newer) == app.version_key(f"{newer}+build")


def test_the_version_that_the_event_tells_of_is_read(local: LocalCloud, app: ModuleType) -> None:
    event = put(local, GOOD)
    put(local, {"operation": "something else"})
    assert len(handled(app, event)["created"]) == 1


def test_settings_come_from_the_environment(local: LocalCloud) -> None:
    settings = {
        "URL_EXPIRES_S": "600",
        "ROLLOUT_START_PER_MINUTE": "3",
        "ROLLOUT_MAX_PER_MINUTE": "30",
        "ROLLOUT_FACTOR": "1.5",
        "ABORT_PERCENT": "33.5",
        "ABORT_MIN_EXECUTED": "4",
        "TIMEOUT_MINUTES": "15",
        "REQUIRE_SIGNATURE": "false",
    }
    unsigned = {key: value for key, value in GOOD.items() if key != "signature"}
    (job_id,) = handled(loaded(local, **settings), put(local, unsigned))["created"]
    job = local.aws.client("iot").describe_job(jobId=job_id)["job"]
    rollout = job["jobExecutionsRolloutConfig"]
    assert (rollout["maximumPerMinute"], rollout["exponentialRate"]) == (
        30,
        {
            "baseRatePerMinute": 3,
            "incrementFactor": 1.5,
            "rateIncreaseCriteria": {"numberOfSucceededThings": 3},
        },
    )
    (abort,) = job["abortConfig"]["criteriaList"]
    assert (abort["thresholdPercentage"], abort["minNumberOfExecutedThings"]) == (33.5, 4)
    assert job["presignedUrlConfig"]["expiresInSec"] == 600
    assert job["timeoutConfig"]["inProgressTimeoutInMinutes"] == 15


TRAINED = URL.replace("build/edgeml", "training")


def at(place: str) -> str:
    return f"${{aws:iot:s3-presigned-url:https://{place}}}"


PLACES = [
    "s3.us-east-1.amazonaws.com/edgeml-models/KEY",
    "s3-eu-west-1.amazonaws.com/edgeml-models/KEY",
    "s3.amazonaws.com/edgeml-models/KEY",
    "edgeml-models.s3.amazonaws.com/KEY",
    "edgeml-models.s3.eu-west-1.amazonaws.com/KEY",
    "s3.cn-north-1.amazonaws.com.cn/edgeml-models/KEY",
    "edgeml-models.s3.cn-north-1.amazonaws.com.cn/KEY",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("coded", "key"), [("build/model.zip", "build/model.zip"), ("a%20b%2Fc%2B", "a b/c+"), ("a+b", "a+b")]
)
def test_every_form_of_an_s3_url_is_understood(app: ModuleType, place: str, coded: str, key: str) -> None:
    assert app.location(at(place.replace("KEY", coded))) == ("edgeml-models", key)


OTHER_BUCKET = URL.replace(BUCKET, "someone-elses")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no json", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
        (b"x" * 32_767, "not JSON"),
        (b"x" * 32_768, "not JSON"),
        (b"x" * 32_769, "32769 characters"),
        (b"x" * 131_072, "131072 characters"),
        (b"x" * 131_073, "131073 bytes"),
        ({**GOOD, "operation": "reboot"}, "operation is 'reboot'"),
        ({**GOOD, "version": "2.0"}, "version is '2.0'"),
        ({**GOOD, "model_name": "../x"}, "model_name"),
        ({**GOOD, "model_version": "latest"}, "model_version"),
        ({**GOOD, "sha256": "short"}, "sha256"),
        ({**GOOD, "size": "16"}, "size is '16'"),
        ({**GOOD, "size": len(ARTIFACT) + 1}, "the artifact has 16 bytes"),
        ({k: v for k, v in GOOD.items() if k != "signature"}, "not signed"),
        ({**GOOD, "signature": "AAAA"}, "signature is no Ed25519 signature"),
        ({**GOOD, "signature": 7}, "signature is no Ed25519 signature"),
        ({**GOOD, "signature_v2": "AAAA"}, "signature_v2 is no Ed25519 signature"),
        ({**GOOD, "thing_group": "others"}, "thing_group is 'others', jobs go to"),
        ({**GOOD, "thing_group": ["x"]}, "thing_group is"),
        ({**GOOD, "allow_downgrade": "yes"}, "allow_downgrade is 'yes'"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "not JSON"),
        ({**GOOD, "deployment_artifact_path": "https://evil.example/x"}, "is no ${aws:iot:s3-presigned-url:"),
        ({**GOOD, "deployment_artifact_path": at("evil.example/edgeml-models/x")}, "has host 'evil.example'"),
        ({**GOOD, "deployment_artifact_path": at("s3.amazonaws.com.evil.example/x/y")}, "expected one of Amazon S3"),
        ({**GOOD, "deployment_artifact_path": at("user@s3.amazonaws.com/edgeml-models/x")}, "has host"),
        ({**GOOD, "deployment_artifact_path": at("s3.amazonaws.com/edgeml-models")}, "has no key"),
        ({**GOOD, "deployment_artifact_path": at("s3.amazonaws.com/edgeml-models/k?versionId=1")}, "has a query"),
        ({**GOOD, "deployment_artifact_path": OTHER_BUCKET}, "is in bucket 'someone-elses', expected edgeml-models"),
        ({**GOOD, "deployment_artifact_path": URL.replace("model.zip", "none.zip")}, "there is no artifact"),
        ({**GOOD, "deployment_artifact_path": TRAINED}, "training/ holds no artifacts that were approved"),
    ],
)
def test_what_is_not_ours_or_not_whole_is_refused_and_logged(
    local: LocalCloud, app: ModuleType, content: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = local.aws.client("iot").list_jobs()["jobs"]
    assert handled(app, put(local, content)) == {"created": [], "repeated": [], "refused": ["build/edgeml/job.json"]}
    (refusal,) = [record for record in caplog.records if record.message == "document refused"]
    assert refusal.levelname == "ERROR"
    assert reason in vars(refusal)["reason"]
    assert local.aws.client("iot").list_jobs()["jobs"] == before


def test_what_data_scientists_may_write_is_no_job_document(
    local: LocalCloud, app: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    before = local.aws.client("iot").list_jobs()["jobs"]
    assert handled(app, put(local, GOOD, "training/job.json"))["refused"] == ["training/job.json"]
    (refusal,) = [record for record in caplog.records if record.message == "document refused"]
    assert vars(refusal)["reason"] == "training/ holds no job documents"
    assert local.aws.client("iot").list_jobs()["jobs"] == before


def test_a_deleted_object_and_the_test_event_are_no_errors(local: LocalCloud, app: ModuleType) -> None:
    event = put(local, GOOD, "gone.json")
    version = event["Records"][0]["s3"]["object"]["versionId"]
    local.aws.client("s3").delete_object(Bucket=BUCKET, Key="gone.json", VersionId=version)
    assert handled(app, event)["refused"] == ["gone.json"]
    assert handled(app, sample("s3_test_event")) == {"created": [], "repeated": [], "refused": []}


def test_an_error_of_aws_is_left_to_lambdas_retries(local: LocalCloud) -> None:
    app = loaded(local, THING_GROUP_ARN="arn:aws:iot:us-east-1:123456789012:thinggroup/nobody")
    with pytest.raises(app.iot.exceptions.ResourceNotFoundException):
        handled(app, put(local, GOOD))
