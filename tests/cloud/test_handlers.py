"""What holds for each handler: log lines and metrics that an operator can use, and an end before its timeout."""

import copy
import json
import time
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.config import Config

from cloud_support import Faults, error, sample
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Response
from localdev.cloud.iot_jobs import IotJobs
from localdev.cloud.lambdas import Function, FunctionError
from ota_support import load_handler
from support import eventually

Event = dict[str, Any]
MODELS = "edgeml-models-123456789012-us-east-1"


def rekognize_emotions(cloud: LocalCloud, faults: Faults) -> list[Event]:
    face = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "SAD", "Confidence": 90.0}]}
    answers = [Response(json.dumps({"FaceDetails": found}).encode()) for found in ([face], [face], [])]
    faults.answer("rekognition", "DetectFaces", *answers, error("InvalidImageFormatException"))
    once = sample("s3_face_created")
    return [once, copy.deepcopy(once), sample("s3_face_created"), sample("s3_face_created")]


def ingest_edge_logs(cloud: LocalCloud, faults: Faults) -> list[Event]:
    cloud.aws.client("logs").delete_log_group(logGroupName="/edgeml/turbine")
    inference = sample("iot_inference") | {"ts": time.time()}
    return [inference, inference | {"type": "weather"}, inference | {"anomalies": [True]}]


def collect_sample(cloud: LocalCloud, faults: Faults) -> list[Event]:
    refused = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "slow down"}
    answer = Response(json.dumps({"FailedPutCount": 1, "RequestResponses": [refused]}).encode())
    faults.answer("firehose", "PutRecordBatch", answer, answer, answer)
    event = sample("sns_sample")
    event["Records"][0]["Sns"] |= {"MessageId": str(uuid.uuid4()), "Message": '{"face": "c2VjcmV0"}'}
    return [event, event, event]


def live_inference(cloud: LocalCloud, faults: Faults) -> list[Event]:
    answer = Response(b"4.2", headers={"Content-Type": "text/csv"})
    faults.answer("sagemaker", "/endpoints/", answer, Response(b'{"Message": "no"}', 503))
    event = sample("api_liveinference")
    return [event, event, event | {"queryStringParameters": {"features": "c2VjcmV0"}}]


def create_iot_job(cloud: LocalCloud, faults: Faults) -> list[Event]:
    document = {
        "operation": "update_model",
        "version": "1.0.0",
        "model_name": "WindTurbine",
        "model_version": "1.2.0",
        "onnxruntime_version": "1.23.0",
        "deployment_artifact_path": f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{MODELS}/b/m.zip}}",
        "sha256": "0" * 64,
        "size": 6,
        "signature": b64encode(bytes(64)).decode(),
    }
    s3, events = cloud.aws.client("s3"), []
    s3.put_object(Bucket=MODELS, Key="b/m.zip", Body=b"bundle")
    for key, text in (("b/job", json.dumps(document)), ("b/other", "c2VjcmV0")):  # no .json: only the test sends them
        version = s3.put_object(Bucket=MODELS, Key=key, Body=text.encode())["VersionId"]
        event = sample("s3_job_created")
        event["Records"][0]["s3"]["object"] |= {"key": key, "versionId": version}
        events.append(event)
    return [events[0], *events]


def update_deployment(cloud: LocalCloud, faults: Faults) -> list[Event]:
    greengrass, name = cloud.aws.client("greengrassv2"), "edgeml.model.WindTurbine"
    target = cloud.stack.outputs["ThingGroupArn"] if cloud.stack else ""
    for version in ("1.0.0", "1.1.0"):
        recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": name, "ComponentVersion": version}
        greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
    greengrass.create_deployment(targetArn=target, components={name: {"componentVersion": "1.0.0"}})
    event = {"component_name": name, "component_version": "1.1.0"}
    return [event, event, event | {"component_version": "9.9.9"}]


@dataclass(frozen=True)
class Case:
    """A handler's events, of which the first takes its longest way, and what is to be seen of them."""

    folder: str
    events: Callable[[LocalCloud, Faults], list[Event]]
    metrics: dict[str, float]
    messages: dict[str, str]  # of log lines, and their level
    waits: Callable[[Any], float] = lambda app: 0.0  # between calls, seconds
    request: str | None = None  # id that lines can be found by


CASES = {
    "RekognizeEmotions": Case(
        "rekognize_emotions",
        rekognize_emotions,
        {"EdgeML/Faces Faces": 1, "EdgeML/Faces NoFace": 1, "EdgeML/Faces NotAnImage": 1},
        {"images": "INFO", "not an image that Rekognition takes": "WARNING"},
    ),
    "IngestEdgeLogs": Case(
        "ingest_edge_logs",
        ingest_edge_logs,
        {"EdgeML/Turbine Lines": 1, "EdgeML/Turbine Anomalies": 1, "EdgeML/Turbine Refused": 2},
        {"message refused": "ERROR"},
    ),
    "CollectSample": Case(
        "collect_sample",
        collect_sample,
        {"EdgeML/Samples Samples": 1, "EdgeML/Samples Retried": 3, "EdgeML/Samples Repeated": 1},
        {"records refused": "WARNING"},
        lambda app: sum(0.1 * 2**attempt for attempt in range(1, app.ATTEMPTS)),
    ),
    "LiveInference": Case(
        "live_inference",
        live_inference,
        {
            "EdgeML/LiveInference Inferences": 1,
            "EdgeML/LiveInference EndpointErrors": 1,
            "EdgeML/LiveInference BadRequests": 1,
        },
        {"endpoint failed": "ERROR"},
        request=sample("api_liveinference")["requestContext"]["requestId"],
    ),
    "CreateIotJob": Case(
        "create_iot_job",
        create_iot_job,
        {"EdgeML/Models JobsCreated": 1, "EdgeML/Models DocumentsRefused": 1},
        {"job": "INFO", "document refused": "ERROR"},
    ),
    "UpdateDeployment": Case(
        "update_deployment",
        update_deployment,
        {"EdgeML/Models DeploymentsCreated": 1, "EdgeML/Models RequestsRefused": 1},
        {"deployment": "INFO", "not deployed": "ERROR"},
        lambda app: float(app.COMPONENT_WAIT_S) + 1,
    ),
}


@dataclass(frozen=True)
class Run:
    """What the events of a case have left."""

    function: Function
    case: Case
    calls: Counter[str]  # of the first event, by service
    text: str  # of the log

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def cloud_with_jobs(running_cloud: LocalCloud) -> Iterator[LocalCloud]:
    with IotJobs(running_cloud.aws, *running_cloud.mqtt_address):
        yield running_cloud


@pytest.fixture(scope="module", params=list(CASES))
def run(cloud_with_jobs: LocalCloud, request: pytest.FixtureRequest) -> Run:
    function, case = cloud_with_jobs.function(request.param), CASES[request.param]
    faults = cloud_with_jobs.aws.stand_ins[0]
    assert isinstance(faults, Faults)
    events, calls = case.events(cloud_with_jobs, faults), Counter[str]()
    for event in events:
        faults.calls.clear()
        try:
            function.invoke(event)
        except FunctionError as failure:  # some are left to Lambda, to try again or to keep
            assert failure.payload["errorType"] == "SampleError"
        calls = calls or Counter(call.service for call in faults.calls)

    def text() -> str:
        written = function.log_file.read_text() if function.log_file.exists() else ""
        return written if written.count('{"_aws"') == len(events) else ""

    return Run(function, case, calls, eventually(text, what="a line of metrics for each event"))


def test_log_lines_are_structured_and_hold_nothing_secret(run: Run) -> None:
    lines = [line for line in run.lines if "_aws" not in line]
    assert {line["message"]: line["level"] for line in lines} == run.case.messages
    for line in lines:
        assert line["service"] == run.case.folder
        assert str(uuid.UUID(line["function_request_id"])) == line["function_request_id"]
        assert line.get("correlation_id") == run.case.request
    for secret in ("c2VjcmV0", "local-key", "Confidence", "AWS4-HMAC"):  # data, the API's key, verdicts, signatures
        assert secret not in run.text


def test_metrics_count_what_was_done_and_refused_and_repeated_events_once(run: Run) -> None:
    counted: Counter[str] = Counter()
    for line in run.lines:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Dimensions"] == [["service"]]
            assert line["service"] == run.case.folder
            for metric in directive["Metrics"]:
                assert metric["Unit"] == "Count"
                counted[f"{directive['Namespace']} {metric['Name']}"] += sum(line[metric["Name"]])
    assert {metric: count for metric, count in counted.items() if count} == run.case.metrics


def test_a_handler_ends_before_its_timeout_even_if_every_call_hangs_and_is_tried_again(
    cloud: LocalCloud, run: Run
) -> None:
    app = load_handler(run.case.folder, cloud.environment() | run.function.setting.environment)
    clients = [client.meta for client in vars(app).values() if isinstance(client, BaseClient)]
    longest = {client.service_model.signing_name: longest_call(client.config) for client in clients}
    calls = {service: count for service, count in run.calls.items() if service in longest}  # others are of stand-ins
    seconds = sum(longest[service] * count for service, count in calls.items()) + run.case.waits(app)
    assert calls
    assert seconds < run.function.setting.timeout_s, calls


def longest_call(config: Config) -> float:
    """Seconds until botocore gives up, with the pauses between attempts that it makes when it is throttled."""
    attempts = config.retries["total_max_attempts"]
    pauses = sum(min(2.0**retry, 20) for retry in range(attempts - 1))
    return float(attempts * (config.connect_timeout + config.read_timeout) + pauses)


def test_every_function_is_looked_at(cloud: LocalCloud) -> None:
    assert {function.setting.name for function in cloud.functions.values()} == set(CASES)
