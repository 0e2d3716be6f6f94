"""From an event in AWS to the function that the template names, through the local cloud."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import requests
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import LocalCloud
from localdev.cloud.broker import Broker
from localdev.cloud.lambdas import FunctionError
from localdev.mqtt_end import let_go
from support import eventually

# A handler that puts what it got into the table; SILENT is a message that it fails on.
HANDLER = """
import json, os, boto3
table = boto3.client("dynamodb")
def handler(event, context):
    text = json.dumps(event)
    if "fail" in text:
        raise ValueError("told to fail")
    print("took", len(text))
    key = context.function_name + "/" + os.environ["MARK"] + "/" + context.aws_request_id
    table.put_item(TableName=os.environ["TABLE"], Item={"id": {"S": key}, "event": {"S": text}})
    return {"statusCode": 200, "headers": {"x-mark": os.environ["MARK"]}, "body": text}
"""
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Mark: {Type: String, Default: plain}
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
  Failed: {Type: AWS::SQS::Queue}
  Topic: {Type: AWS::SNS::Topic}
  Role:
    Type: AWS::IAM::Role
    Properties:
      Policies:
        - PolicyName: p
          PolicyDocument:
            Statement:
              - {Effect: Allow, Action: "dynamodb:PutItem", Resource: !GetAtt Table.Arn}
              - {Effect: Allow, Action: "sqs:SendMessage", Resource: !GetAtt Failed.Arn}
  Bucket:
    Type: AWS::S3::Bucket
    Properties: {BucketName: !Sub "in-${AWS::AccountId}"}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.13
      Handler: app.handler
      CodeUri: f/
      Timeout: 5
      Role: !GetAtt Role.Arn
      Environment: {Variables: {TABLE: !Ref Table, MARK: !Ref Mark}}
      EventInvokeConfig:
        MaximumRetryAttempts: 1
        DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Failed.Arn}}
      Events:
        Put:
          Type: S3
          Properties:
            Bucket: !Ref Bucket
            Events: s3:ObjectCreated:*
            Filter: {S3Key: {Rules: [{Name: prefix, Value: in/}, {Name: suffix, Value: .jpg}]}}
        Said: {Type: SNS, Properties: {Topic: !Ref Topic}}
        Device:
          Type: IoTRule
          Properties: {Sql: "SELECT *, clientid() AS client, topic(2) AS thing FROM 'device/+/logs' WHERE kind <> 'x'"}
        Approved:
          Type: EventBridgeRule
          Properties: {Pattern: {source: [my.app], detail: {state: [ok, {prefix: fine}]}}}
        Get: {Type: Api, Properties: {Path: /ask, Method: GET}}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "app.py").write_text(HANDLER)
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE)
    return path


@pytest.fixture
def cloud(template: Path) -> Iterator[LocalCloud]:
    with LocalCloud(template, {"Mark": "resolved"}, retry_delay_s=0.01) as running:
        yield running


def taken(cloud: LocalCloud, count: int = 0) -> list[dict[str, Any]]:
    """What the handler was given, at least `count` events of it."""
    eventually(lambda: len(in_table(cloud)) >= count, what=f"{count} events")
    cloud.drain()
    return in_table(cloud)


def in_table(cloud: LocalCloud) -> list[dict[str, Any]]:
    items = cloud.aws.client("dynamodb").scan(TableName="Table")["Items"]
    return [json.loads(item["event"]["S"]) for item in items]


def publish(cloud: LocalCloud, *messages: tuple[str, str], client_id: str = "") -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    client.connect(*cloud.mqtt_address)
    client.loop_start()
    for topic, payload in messages:
        sent = client.publish(topic, payload, 1)
    sent.wait_for_publish(10)
    let_go(client)


def put(cloud: LocalCloud, key: str, body: bytes = b"12345") -> None:
    cloud.aws.client("s3").put_object(Bucket="in-123456789012", Key=key, Body=body)


def test_an_object_under_prefix_and_suffix_is_told(cloud: LocalCloud) -> None:
    for key in ("in/a b+ü.jpg", "out/b.jpg", "in/c.png", "in/"):
        put(cloud, key)
    ((record,),) = [event["Records"] for event in taken(cloud)]
    assert record["eventName"] == "ObjectCreated:Put"
    assert record["s3"]["bucket"]["name"] == "in-123456789012"
    assert record["s3"]["object"]["key"] == "in/a+b%2B%C3%BC.jpg"
    assert (record["s3"]["object"]["size"], len(record["s3"]["object"]["eTag"])) == (5, 32)


def test_multipart_uploads_and_copies_are_told_once(cloud: LocalCloud) -> None:
    s3, where = cloud.aws.client("s3"), {"Bucket": "in-123456789012", "Key": "in/big.jpg"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": [{"ETag": part, "PartNumber": 1}]})
    s3.copy_object(Bucket="in-123456789012", Key="in/copy.jpg", CopySource=where)
    s3.delete_object(**where)
    names = sorted(event["Records"][0]["eventName"] for event in taken(cloud))
    assert names == ["ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"]


def test_sns_messages_are_told_one_by_one(cloud: LocalCloud) -> None:
    sns, topic = cloud.aws.client("sns"), "arn:aws:sns:us-east-1:123456789012:Topic"
    sns.publish(TopicArn=topic, Message="a & b", Subject="s")
    sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=[{"Id": i, "Message": f"m{i}"} for i in "12"])
    messages = sorted(event["Records"][0]["Sns"]["Message"] for event in taken(cloud))
    assert messages == ["a & b", "m1", "m2"]


def test_a_topic_rule_selects_and_filters(cloud: LocalCloud) -> None:
    publish(
        cloud,
        ("device/t7/logs", '{"kind": "y", "n": 1}'),
        ("device/t7/logs", '{"kind": "x", "n": 2}'),
        ("device/t7/other", '{"kind": "y", "n": 3}'),
        ("device/t7/logs", "not json"),
        ("device/last/logs", '{"kind": "z"}'),
        client_id="turbine-7",
    )
    assert [event for event in taken(cloud, 2) if event["kind"] != "z"] == [
        {"kind": "y", "n": 1, "client": "turbine-7", "thing": "t7"}
    ]


def test_iot_data_publishes_reach_rules(cloud: LocalCloud) -> None:
    cloud.aws.client("iot-data").publish(topic="device/t8/logs", qos=1, payload=b'{"kind": "y"}')
    assert taken(cloud, 1)[0]["thing"] == "t8"


def test_eventbridge_patterns_decide(cloud: LocalCloud) -> None:
    def entry(source: str, state: str) -> dict[str, str]:
        return {"Source": source, "DetailType": "t", "Detail": json.dumps({"state": state})}

    entries = [entry("my.app", "ok"), entry("my.app", "finest"), entry("my.app", "bad"), entry("other", "ok")]
    cloud.aws.client("events").put_events(Entries=entries)
    assert sorted(event["detail"]["state"] for event in taken(cloud)) == ["finest", "ok"]


def test_the_api_calls_the_function_with_the_templates_environment(cloud: LocalCloud) -> None:
    assert cloud.api is not None
    answer = requests.get(f"{cloud.api.url}/Prod/ask?q=1&q=2", timeout=10)
    assert (answer.status_code, answer.headers["x-mark"]) == (200, "resolved")
    assert answer.json()["multiValueQueryStringParameters"] == {"q": ["1", "2"]}
    assert requests.get(f"{cloud.api.url}/Prod/unknown", timeout=10).status_code == 403


def test_functions_can_be_invoked_by_name(cloud: LocalCloud) -> None:
    client = cloud.aws.client("lambda")
    answer = client.invoke(FunctionName="F", Payload=b'{"a": 1}')
    assert json.loads(answer["Payload"].read())["body"] == '{"a": 1}'
    answer = client.invoke(FunctionName="F", Payload=b'"fail"')
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "ValueError"
    arn = "arn:aws:lambda:us-east-1:123456789012:function:F"
    assert client.invoke(FunctionName=arn, InvocationType="Event", Payload=b'{"b": 1}')["StatusCode"] == 202
    assert {"b": 1} in taken(cloud, 2)


def test_a_failing_event_is_tried_again_and_then_kept(cloud: LocalCloud) -> None:
    cloud.aws.client("sns").publish(TopicArn="arn:aws:sns:us-east-1:123456789012:Topic", Message="fail")
    assert taken(cloud) == []
    sqs = cloud.aws.client("sqs")
    (message,) = sqs.receive_message(QueueUrl=sqs.get_queue_url(QueueName="Failed")["QueueUrl"])["Messages"]
    record = json.loads(message["Body"])
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["responsePayload"]["errorMessage"] == "told to fail"
    assert record["requestPayload"]["Records"][0]["Sns"]["Message"] == "fail"


def test_every_event_may_come_twice(template: Path) -> None:
    with LocalCloud(template, deliveries=2) as cloud:
        put(cloud, "in/a.jpg")
        first, second = taken(cloud)
        assert first == second


def test_another_broker_serves_as_well(template: Path) -> None:
    with Broker() as broker, LocalCloud(template, mqtt_url=broker.url) as cloud:
        assert cloud.broker is None
        publish(cloud, ("device/t9/logs", '{"kind": "y"}'))
        assert taken(cloud, 1) == [{"kind": "y", "client": "N/A", "thing": "t9"}]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Value: in/", "Value: inn/"),
        ("device/+/logs", "devices/+/logs"),
        ("source: [my.app]", "source: [your.app]"),
    ],
    ids=["prefix", "topic filter", "event pattern"],
)
def test_a_wrong_line_in_the_template_breaks_its_route_and_no_other(template: Path, right: str, wrong: str) -> None:
    assert right in TEMPLATE
    template.write_text(TEMPLATE.replace(right, wrong))
    with LocalCloud(template) as cloud:
        put(cloud, "in/a.jpg")
        publish(cloud, ("device/t7/logs", '{"kind": "y"}'))
        detail = {"Source": "my.app", "DetailType": "t", "Detail": '{"state": "ok"}'}
        cloud.aws.client("events").put_events(Entries=[detail])
        assert len(taken(cloud, 2)) == 2


def test_a_permission_missing_in_the_template_fails_the_handler(template: Path) -> None:
    template.write_text(TEMPLATE.replace("dynamodb:PutItem", "dynamodb:GetItem"))
    with LocalCloud(template) as cloud, pytest.raises(FunctionError) as caught:
        cloud.function("F").invoke({})
    denied = "does not allow dynamodb:PutItem on arn:aws:dynamodb:us-east-1:123456789012:table/Table"
    assert denied in str(caught.value)


def test_nothing_is_left_running(template: Path) -> None:
    with LocalCloud(template) as cloud:
        put(cloud, "in/a.jpg")
        assert len(taken(cloud)) == 1
        (function,) = cloud.functions.values()
        log = function.log_file
        assert "took" in log.read_text()
    assert not log.exists()
