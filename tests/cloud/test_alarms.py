"""Each alarm looks at a metric that somebody writes, as often and as long as the README says, and is heard."""

import re
from typing import Any

from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Resource, Stack
from source_support import after_name, calls, keyword, parsed, word

Metric = tuple[str, str, tuple[tuple[str, str], ...]]  # namespace, name, dimensions

DEFAULTS = {"EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0}
DEFAULTS |= {"TreatMissingData": "notBreaching"}
ALARMS: dict[str, dict[str, Any]] = {
    "DevicesSilentAlarm": {
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": 1,
        "EvaluationPeriods": 15,
        "TreatMissingData": "breaching",  # nothing is written when nothing comes
    },
    "DeviceLostAlarm": {},
    "AnomalyBurstAlarm": {"Threshold": 50},
    "FailedEventsAlarm": {},
    "ModelHeldUpAlarm": {},
    "LiveErrorRateAlarm": {"Threshold": 5, "EvaluationPeriods": 2},
}
LOOKS_AT: dict[str, set[tuple[str, str, int]]] = {  # metric, statistic, period in seconds
    "DevicesSilentAlarm": {("Lines", "Sum", 60)},
    "DeviceLostAlarm": {("Lost", "Sum", 300)},
    "AnomalyBurstAlarm": {("Anomalies", "Sum", 300)},
    "FailedEventsAlarm": {("ApproximateNumberOfMessagesVisible", "Maximum", 300)},
    "ModelHeldUpAlarm": {
        ("FailedBuilds", "Sum", 300),
        ("DocumentsRefused", "Sum", 300),
        ("RequestsRefused", "Sum", 300),
    },
    "LiveErrorRateAlarm": {("5XXError", "Sum", 300), ("Count", "Sum", 300)},
}


def written(stack: Stack) -> set[Metric]:
    """The metrics of handlers, of rules, and those of AWS's services that are documented with these dimensions."""
    found: set[Metric] = set()
    for function in stack.of_type("AWS::Lambda::Function"):
        code = parsed(stack.folder / function.properties["Code"]["S3Key"] / "app.py")
        given = function.properties["Environment"]["Variables"]
        (made,) = calls(code, "Metrics")
        (below,) = after_name(made, "METRICS_PREFIX")
        service = (("service", given["POWERTOOLS_SERVICE_NAME"]),)
        names = {word(keyword(call, "name")) for call in calls(code, "add_metric")}
        found |= {(f"{given['METRICS_PREFIX']}{below}", name, service) for name in names}
    for rule in stack.of_type("AWS::IoT::TopicRule"):
        for action in rule.properties["TopicRulePayload"]["Actions"]:
            if put := action.get("CloudwatchMetric"):
                found.add((put["MetricNamespace"], put["MetricName"], ()))
    queue, project = stack.resources["FailedEvents"], stack.resources["ExportModelProject"]
    api = (("ApiName", stack.resources["LiveApi"].properties["Name"]),)
    return found | {
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", (("QueueName", queue.name),)),
        ("AWS/CodeBuild", "FailedBuilds", (("ProjectName", project.name),)),
        ("AWS/ApiGateway", "5XXError", api),
        ("AWS/ApiGateway", "Count", api),
    }


def metrics(alarm: Resource) -> list[tuple[Metric, str, int]]:
    """Metric, statistic and period of all that an alarm looks at."""
    p = alarm.properties
    stats = [each["MetricStat"] for each in p.get("Metrics", []) if "MetricStat" in each]
    stats = stats or [{"Metric": p, "Stat": p["Statistic"], "Period": p["Period"]}]
    return [
        (
            (
                each["Metric"]["Namespace"],
                each["Metric"]["MetricName"],
                tuple((d["Name"], d["Value"]) for d in each["Metric"].get("Dimensions", [])),
            ),
            each["Stat"],
            int(each["Period"]),
        )
        for each in stats
    ]


def test_somebody_writes_what_alarms_look_at(stack: Stack) -> None:
    known = written(stack)
    for alarm in stack.of_type("AWS::CloudWatch::Alarm"):
        for metric, _, _ in metrics(alarm):
            assert metric in known, alarm.id


def test_alarms_look_as_often_as_they_say(stack: Stack) -> None:
    alarms = stack.of_type("AWS::CloudWatch::Alarm")
    found = {alarm.id: {(metric[1], stat, period) for metric, stat, period in metrics(alarm)} for alarm in alarms}
    assert found == LOOKS_AT
    limits = {alarm.id: {key: numbered(alarm.properties[key]) for key in DEFAULTS} for alarm in alarms}
    assert limits == {name: DEFAULTS | own for name, own in ALARMS.items()}


def test_rates_and_sums_are_of_what_is_looked_at(stack: Stack) -> None:
    expressions = {
        alarm.id: [(each["Expression"], each.get("ReturnData", True)) for each in given if "Expression" in each]
        for alarm in stack.of_type("AWS::CloudWatch::Alarm")
        if (given := alarm.properties.get("Metrics"))
    }
    assert expressions == {
        "LiveErrorRateAlarm": [("100 * errors / requests", True)],
        "ModelHeldUpAlarm": [("SUM(METRICS())", True)],
    }
    for name in expressions:
        parts = [each for each in stack.resources[name].properties["Metrics"] if "MetricStat" in each]
        assert not any(each["ReturnData"] for each in parts)
    rate = {e["Id"]: e for e in stack.resources["LiveErrorRateAlarm"].properties["Metrics"]}
    assert rate["errors"]["MetricStat"]["Metric"]["MetricName"] == "5XXError"
    assert rate["requests"]["MetricStat"]["Metric"]["MetricName"] == "Count"


def test_alarms_are_heard(stack: Stack) -> None:
    topic = f"arn:aws:sns:us-east-1:123456789012:{stack.resources['AlarmTopic'].name}"
    for alarm in stack.of_type("AWS::CloudWatch::Alarm"):
        assert alarm.properties["AlarmActions"] == [topic], alarm.id
        assert len(alarm.properties["AlarmDescription"]) > 20
    mailed = Stack(TEMPLATE, {"AlarmEmail": "a@example.org"}).resources["AlarmMail"].properties
    assert mailed == {"TopicArn": topic, "Protocol": "email", "Endpoint": "a@example.org"}
    assert "AlarmMail" not in stack.resources


def test_parameters_set_limits_and_turn_off_what_a_fleet_has_not() -> None:
    other = Stack(TEMPLATE, {"SilentMinutes": "7", "AnomaliesPerFiveMinutes": "3"})
    assert other.resources["DevicesSilentAlarm"].properties["EvaluationPeriods"] == "7"
    assert other.resources["AnomalyBurstAlarm"].properties["Threshold"] == "3"
    assert "DevicesSilentAlarm" not in Stack(TEMPLATE, {"SilentMinutes": "0"}).resources


def test_the_readme_lists_them_all(stack: Stack) -> None:
    readme = (TEMPLATE.parent / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| alarm | when |") :]
    listed = set(re.findall(r"^\| (\w+) \| ", table[: table.index("\n\n")], re.MULTILINE)) - {"alarm"}
    assert {f"{name}Alarm" for name in listed} == {a.id for a in stack.of_type("AWS::CloudWatch::Alarm")}


def numbered(value: Any) -> Any:
    return int(value) if str(value).isdigit() else value
