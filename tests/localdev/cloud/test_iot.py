"""Topic rules whose roles grant what their actions need, or do not."""

import json
from pathlib import Path
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from support import eventually

TEMPLATE = """
Resources:
  Topic: {Type: AWS::SNS::Topic}
  Failed: {Type: AWS::SQS::Queue}
  Role:
    Type: AWS::IAM::Role
    Properties:
      Policies:
        - PolicyName: p
          PolicyDocument:
            Statement:
              - {Effect: Allow, Action: "sns:Publish", Resource: !Ref Topic}
              - {Effect: Allow, Action: "sqs:SendMessage", Resource: !GetAtt Failed.Arn}
              - Effect: Allow
                Action: cloudwatch:PutMetricData
                Resource: "*"
                Condition: {StringEquals: {"cloudwatch:namespace": Mine}}
  Count:
    Type: AWS::IoT::TopicRule
    Properties:
      TopicRulePayload:
        Sql: SELECT * FROM 'count/+'
        Actions:
          - CloudwatchMetric:
              MetricNamespace: Mine
              MetricName: Messages
              MetricUnit: Count
              MetricValue: "2"
              RoleArn: !GetAtt Role.Arn
        ErrorAction: {Sqs: {QueueUrl: !Ref Failed, RoleArn: !GetAtt Role.Arn, UseBase64: false}}
  Tell:
    Type: AWS::IoT::TopicRule
    Properties:
      TopicRulePayload:
        Sql: SELECT topic(2) AS who FROM 'tell/+'
        Actions: [{Sns: {TargetArn: !Ref Topic, RoleArn: !GetAtt Role.Arn, MessageFormat: RAW}}]
        ErrorAction: {Sqs: {QueueUrl: !Ref Failed, RoleArn: !GetAtt Role.Arn, UseBase64: false}}
"""


def run(template: Path, text: str) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Metrics, SNS messages and failures that come of one message to each rule."""
    template.write_text(text)
    with LocalCloud(template) as cloud:
        sns: list[str] = []
        cloud.aws.observers.append(
            lambda request, _: sns.append(request.body.decode()) if request.service == "sns" else None
        )
        data = cloud.aws.client("iot-data")
        for topic in ("count/a", "tell/a"):
            data.publish(topic=topic, qos=1, payload=b"{}")
        assert cloud.broker is not None
        done: list[str] = []
        cloud.broker.on_publish.append(lambda _c, topic, _p: done.append(topic))
        data.publish(topic="end", qos=1, payload=b"{}")
        eventually(lambda: "end" in done, what="all messages are with the rules")
        cloud.drain()
        metrics = cloud.aws.client("cloudwatch").list_metrics(Namespace="Mine")["Metrics"]
        queue = cloud.aws.client("sqs").get_queue_url(QueueName="Failed")["QueueUrl"]
        messages = cloud.aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [metric["MetricName"] for metric in metrics], sns, [json.loads(message["Body"]) for message in messages]


def test_actions_run_with_what_the_rules_role_grants(tmp_path: Path) -> None:
    metrics, (message,), failures = run(tmp_path / "template.yaml", TEMPLATE)
    assert metrics == ["Messages"]
    assert "Message=%7B%22who%22%3A+%22a%22%7D" in message
    assert failures == []


@pytest.mark.parametrize(
    ("right", "wrong", "topic", "denied"),
    [
        ("cloudwatch:PutMetricData", "cloudwatch:GetMetricData", "count/a", "cloudwatch:PutMetricData on *"),
        ('"cloudwatch:namespace": Mine', '"cloudwatch:namespace": Other', "count/a", "cloudwatch:PutMetricData on *"),
        ('"sns:Publish"', '"sns:Subscribe"', "tell/a", "sns:Publish on arn:aws:sns:us-east-1:123456789012:Topic"),
    ],
)
def test_an_action_that_is_not_granted_fails_and_the_others_run(
    tmp_path: Path, right: str, wrong: str, topic: str, denied: str
) -> None:
    metrics, sns, (failure,) = run(tmp_path / "template.yaml", TEMPLATE.replace(right, wrong))
    assert len(metrics) + len(sns) == 1
    assert failure["topic"] == topic
    assert failure["failures"] == [{"errorMessage": f"the rule's role does not allow {denied}"}]


def test_an_error_action_that_is_not_granted_loses_the_message_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = TEMPLATE.replace("cloudwatch:PutMetricData", "cloudwatch:GetMetricData")
    metrics, sns, failures = run(tmp_path / "template.yaml", text.replace("sqs:SendMessage", "sqs:ReceiveMessage"))
    assert (metrics, len(sns), failures) == ([], 1, [])
    assert "does not allow sqs:SendMessage on arn:aws:sqs:us-east-1:123456789012:Failed" in caplog.text


@pytest.mark.parametrize("topic", ["$aws/events/presence/disconnected/a", "a/b/c/d/e/f/g/h/i"])
def test_publish_refuses_topics_that_nobody_may_publish_to(topic: str) -> None:
    with LocalCloud() as cloud:
        data = cloud.aws.client("iot-data")
        with pytest.raises(data.exceptions.InvalidRequestException):
            data.publish(topic=topic, qos=1, payload=b"{}")
