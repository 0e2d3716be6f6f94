"""The IoT rules: which messages they take, what they make of them, and where those go that they cannot hand on."""

import json
from typing import Any

import pytest

from cloud_support import sample
from localdev.cloud import iam
from localdev.cloud.iot_rules import Message, Query
from localdev.cloud.template import Stack

LOGS = {"type": "rawdata", "data": {"ts": 1.5, "values": [0.5]}}
SAMPLE = {"features": [1.5], "duration_s": 4.2}
LOST = sample("iot_presence_disconnected")
# Rule, topic, message, what the rule's actions get; None: nothing.
MESSAGES: list[tuple[str, str, dict[str, Any], dict[str, Any] | None]] = [
    ("IngestEdgeLogsRule", "device/edgeml-1/logs", LOGS, {**LOGS, "client_id": "c", "topic": "device/edgeml-1/logs"}),
    ("IngestEdgeLogsRule", "device/edgeml-1/logs", {"component": "edgeml.A", "lines": []}, None),
    ("IngestEdgeLogsRule", "device/edgeml-1/samples", LOGS, None),
    ("IngestEdgeLogsRule", "device/plant-1/logs", LOGS, None),  # of another stack in the account
    ("SampleRule", "device/plant-1/samples", SAMPLE, None),
    ("DeviceLostRule", "$aws/events/presence/disconnected/plant-1", {**LOST, "clientId": "plant-1"}, None),
    ("IngestEdgeLogsRule", "device/edgeml-1/logs/x", LOGS, None),
    ("SampleRule", "device/edgeml-1/samples", SAMPLE, {**SAMPLE, "thing": "edgeml-1", "publisher": "c"}),
    ("SampleRule", "device/edgeml-1/logs", SAMPLE, None),
    ("SampleRule", "other/edgeml-1/samples", SAMPLE, None),
    ("DeviceLostRule", "$aws/events/presence/disconnected/edgeml-1", LOST, {"clientId": LOST["clientId"]}),
    ("DeviceLostRule", "$aws/events/presence/disconnected/edgeml-1", {**LOST, "clientInitiatedDisconnect": True}, None),
    ("DeviceLostRule", "$aws/events/presence/connected/edgeml-1", LOST, None),
]


def payload(stack: Stack, rule: str) -> dict[str, Any]:
    return dict(stack.resources[rule].properties["TopicRulePayload"])


@pytest.mark.parametrize(("rule", "topic", "message", "selected"), MESSAGES)
def test_a_rule_takes_its_messages_and_no_others(
    stack: Stack, rule: str, topic: str, message: dict[str, Any], selected: dict[str, Any] | None
) -> None:
    query = Query(payload(stack, rule)["Sql"])
    assert query.run(Message(topic, json.dumps(message).encode(), "c")) == selected


def test_each_rule_does_one_thing(stack: Stack) -> None:
    found = {rule.id: payload(stack, rule.id)["Actions"] for rule in stack.of_type("AWS::IoT::TopicRule")}
    assert found == {
        "IngestEdgeLogsRule": [{"Lambda": {"FunctionArn": stack.resources["IngestEdgeLogs"].arn}}],
        "SampleRule": [
            {
                "Sns": {
                    "TargetArn": stack.outputs["SampleTopicArn"],
                    "RoleArn": stack.resources["SampleRuleRole"].arn,
                    "MessageFormat": "RAW",
                }
            }
        ],
        "DeviceLostRule": [
            {
                "CloudwatchMetric": {
                    "MetricNamespace": "EdgeML/Devices",
                    "MetricName": "Lost",
                    "MetricUnit": "Count",
                    "MetricValue": "1",
                    "RoleArn": stack.resources["DeviceLostRuleRole"].arn,
                }
            }
        ],
    }


def test_what_a_rule_cannot_hand_on_is_kept(stack: Stack) -> None:
    role, queue = stack.resources["RuleErrorRole"], stack.resources["FailedEvents"]
    for rule in stack.of_type("AWS::IoT::TopicRule"):
        action = payload(stack, rule.id)["ErrorAction"]["Sqs"]
        assert action["QueueUrl"].endswith(f"/{queue.name}"), rule.id
        assert action["RoleArn"] == role.arn
    assert iam.allowed(stack.statements(role.arn), ("sqs:SendMessage", queue.arn), {})


def test_rules_are_of_the_version_whose_functions_they_use(stack: Stack) -> None:
    rules = stack.of_type("AWS::IoT::TopicRule")
    assert {payload(stack, rule.id)["AwsIotSqlVersion"] for rule in rules} == {"2016-03-23"}


def test_the_rule_may_invoke_its_function_and_no_other_rule_may(stack: Stack) -> None:
    (permission,) = (
        each.properties
        for each in stack.of_type("AWS::Lambda::Permission")
        if each.properties["Principal"] == "iot.amazonaws.com"
    )
    assert permission["FunctionName"] == stack.resources["IngestEdgeLogs"].name
    assert permission["Action"] == "lambda:InvokeFunction"
    assert permission["SourceArn"] == stack.resources["IngestEdgeLogsRule"].arn
