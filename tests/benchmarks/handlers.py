"""The Lambda handlers beside bare boto3: start-up (import) and CPU per event, each in a process of its own.

The limit of start-up is a process that imports boto3 and makes the same clients; the limit of an event is the same
calls of AWS without the handler. Both go to the local cloud, whose own CPU time is not counted.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.harness import Row, interleave
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.lambdas import WORKER
from ota_support import Signer, document

EVENTS = 100
FACE = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "HAPPY", "Confidence": 90.0}]}
START = "import time; t = time.process_time(); {body}; print((time.process_time() - t) * 1000)"
RUN = """
import json, sys, time, uuid
{prepare}
event = json.loads({event!r})
def once(i):
    {call}
once(-1)
t = time.process_time()
for i in range({events}):
    once(i)
sys.stderr.write("CPU %f" % ((time.process_time() - t) * 1e6 / {events}))
"""


AT = "us-east-1:123456789012"
BUCKET, DOCUMENT, ARTIFACT = "edgeml-models-123456789012-us-east-1", "3f0c9f8a/edgeml/job.json", "bench/Tiny-1.0.0.zip"
GROUP = f"arn:aws:iot:{AT}:thinggroup/edgeml-devices"
COMPONENT, VERSION = "edgeml.model.WindTurbine", "1.2.0"
COMPONENT_ARN = f"arn:aws:greengrass:{AT}:components:{COMPONENT}"


@dataclass(frozen=True)
class Case:
    """One handler: `vary` makes each event new, `bare` does its AWS calls without it."""

    function: str
    folder: str
    clients: str
    sample: str
    vary: str
    bare: str


CASES = [
    Case(
        "IngestEdgeLogs",
        "ingest_edge_logs",
        "logs",
        "iot_rawdata",
        "event['data']['ts'] = time.time()",
        "logs.put_log_events(logGroupName='/edgeml/turbine', logStreamName='rawdata',"
        " logEvents=[{'timestamp': int(time.time() * 1000), 'message': 'x' * 80}])",
    ),
    Case(
        "CollectSample",
        "collect_sample",
        "firehose dynamodb",
        "sns_sample",
        "event['Records'][0]['Sns']['MessageId'] = str(uuid.uuid4())",
        "key = {'id': {'S': str(uuid.uuid4())}};"
        " dynamodb.put_item(TableName='IdempotencyTable', Item=key, ConditionExpression='attribute_not_exists(id)');"
        " firehose.put_record_batch(DeliveryStreamName='SampleStream', Records=[{'Data': b'x'}]);"
        " dynamodb.update_item(TableName='IdempotencyTable', Key=key, UpdateExpression='SET a = :a',"
        " ExpressionAttributeValues={':a': {'S': 'x'}})",
    ),
    Case(
        "RekognizeEmotions",
        "rekognize_emotions",
        "rekognition dynamodb cloudwatch s3",
        "s3_face_created",
        "event['Records'][0]['s3']['object']['key'] = 'faces/t/%s.jpg' % uuid.uuid4()",
        "rekognition.detect_faces(Image={'S3Object': {'Bucket': 'bucket', 'Name': 'k'}}, Attributes=['ALL']);"
        " item = {'s3key': {'S': str(uuid.uuid4())}, 'HAPPY': {'S': '90'}};"
        " dynamodb.put_item(TableName='rekognize-faces', Item={**item, 'claimed_until': {'N': '1'}},"
        " ConditionExpression='attribute_not_exists(s3key) OR claimed_until < :now',"
        " ExpressionAttributeValues={':now': {'N': '1'}});"
        " point = {'MetricName': 'HAPPY', 'Value': 90.0, 'Unit': 'Percent', 'Timestamp': time.time()};"
        " thing = [{'Name': 'thing', 'Value': 't'}];"
        " cloudwatch.put_metric_data(Namespace='n', MetricData=[point, {**point, 'Dimensions': thing}]);"
        " dynamodb.put_item(TableName='rekognize-faces', Item=item)",
    ),
    Case(
        "LiveInference",
        "live_inference",
        "sagemaker-runtime",
        "api_liveinference",
        "pass",
        "runtime.invoke_endpoint(EndpointName='edgeml-duration', ContentType='text/csv', Body='1')['Body'].read()",
    ),
    Case(
        "CreateIotJob",
        "create_iot_job",
        "s3 iot",
        "s3_job_created",
        "told = event['Records'][0]['s3']['object']; told.pop('versionId', None); told['eTag'] = uuid.uuid4().hex",
        f"text = s3.get_object(Bucket='{BUCKET}', Key='{DOCUMENT}')['Body'].read().decode();"
        f" s3.head_object(Bucket='{BUCKET}', Key='{ARTIFACT}');"
        f" iot.create_job(jobId=str(uuid.uuid4()), targets=['{GROUP}'], document=text, description='Tiny 1.0.0',"
        " targetSelection='CONTINUOUS', timeoutConfig={'inProgressTimeoutInMinutes': 120},"
        " presignedUrlConfig={'roleArn': 'arn:aws:iam::123456789012:role/ModelUrlRole', 'expiresInSec': 3600});"
        " iot.list_jobs(status='IN_PROGRESS', targetSelection='CONTINUOUS', maxResults=250)",
    ),
    Case(  # a version that is deployed already, as after the first event of each approval
        "UpdateDeployment",
        "update_deployment",
        "greengrassv2",
        "update_deployment",
        "pass",
        f"greengrass.describe_component(arn='{COMPONENT_ARN}:versions:{VERSION}');"
        f" page = greengrass.list_deployments(targetArn='{GROUP}', historyFilter='ALL')['deployments'];"
        " greengrass.get_deployment(deploymentId=page[0]['deploymentId'])",
    ),
]


def run() -> list[Row]:
    rows: list[Row] = []
    with LocalCloud(TEMPLATE) as cloud:
        cloud.aws.stand_ins.insert(0, _instant)
        cloud.aws.client("logs").create_log_stream(logGroupName="/edgeml/turbine", logStreamName="rawdata")
        _models(cloud)
        for case in CASES:
            rows += _measure(cloud, case)
    return rows


def _models(cloud: LocalCloud) -> None:
    """A job document with its artifact, and a deployment of a model component."""
    content = b"a bundle, zipped"
    url = f"https://s3.us-east-1.amazonaws.com/{BUCKET}/{ARTIFACT}"
    body = Signer().signed(document(content, "1.0.0", f"${{aws:iot:s3-presigned-url:{url}}}"))
    s3, greengrass = cloud.aws.client("s3"), cloud.aws.client("greengrassv2")
    s3.put_object(Bucket=BUCKET, Key=ARTIFACT, Body=content)
    s3.put_object(Bucket=BUCKET, Key=DOCUMENT, Body=json.dumps(body).encode())
    recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": COMPONENT, "ComponentVersion": VERSION}
    greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
    greengrass.create_deployment(targetArn=GROUP, components={COMPONENT: {"componentVersion": VERSION}})
    cloud.drain()


def _measure(cloud: LocalCloud, case: Case) -> list[Row]:
    setting = cloud.function(case.function).setting
    path = f"import sys; sys.path.insert(0, {setting.folder!r})"
    variables = {"sagemaker-runtime": "runtime", "greengrassv2": "greengrass"}
    clients = [f"{variables.get(name, name)} = boto3.client({name!r})" for name in case.clients.split()]
    bare = "; ".join(["import boto3", *clients])
    environment = {**cloud.environment(), **setting.environment, "AWS_LAMBDA_FUNCTION_NAME": setting.name}
    context = f"{path}; import app, runpy; Context = runpy.run_path({str(WORKER)!r})['Context']"
    context += f"; context = Context({setting.name!r}, 'arn', 128, 60, 'id')"

    def start(body: str) -> float:
        return float(_python(START.format(body=body), environment).stdout)

    def events(prepare: str, body: str) -> float:
        event = (TEMPLATE.parent / "events" / f"{case.sample}.json").read_text(encoding="utf-8")
        program = RUN.format(prepare=prepare, event=event, call=body, events=EVENTS)
        return float(_python(program, environment).stderr.rpartition("CPU ")[2])

    contestants = {
        "start": lambda: start(f"{path}; import app"),
        "start_bare": lambda: start(bare),
        "event": lambda: events(context, f"{case.vary}; app.handler(event, context)"),
        "event_bare": lambda: events(bare, case.bare),
    }
    figures = interleave(contestants, rounds=3)
    return [
        _row(case, "import", "ms CPU", figures["start"], figures["start_bare"], 2.0),
        _row(case, "event", "us CPU", figures["event"], figures["event_bare"], 1.5),
    ]


def _row(case: Case, metric: str, unit: str, value: float, limit: float, most: float) -> Row:
    ratio = value / limit
    return Row(
        bench="handlers",
        metric=f"{case.folder} {metric}",
        unit=unit,
        value=value,
        limit=limit,
        ratio=ratio,
        bar=f"<= {most:g} x bare boto3",
        ok=ratio <= most,
    )


def _python(program: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)


def _instant(request: Request) -> Response | None:
    if request.service == "rekognition":
        return Response(json.dumps({"FaceDetails": [FACE]}).encode())
    if request.path.startswith("/endpoints/"):
        return Response(request.body, headers={"Content-Type": "text/csv"})
    return None
