"""AWS IoT Core beside its broker: topic rules with their actions, and iot-data's publish."""

import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import iam
from localdev.cloud.aws import ACCOUNT, REGION, LocalAws, Request, Response
from localdev.cloud.iot_broker import allowed
from localdev.cloud.iot_rules import Message, Query, SqlError
from localdev.cloud.routes import Invoke, may_invoke
from localdev.cloud.template import Stack
from localdev.mqtt_end import let_go

log = logging.getLogger(__name__)

INBOX = 100_000
CONNECT_TIMEOUT_S = 10.0


class Publisher:
    """An MQTT client of the broker for whatever the cloud itself publishes."""

    def __init__(self, host: str, port: int) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect(host, port)
        self.client.loop_start()
        if not connected.wait(CONNECT_TIMEOUT_S):
            raise TimeoutError(f"no MQTT broker answers at {host}:{port}")

    def iot_data(self, request: Request) -> Response | None:
        """Stands in for iot-data's Publish."""
        if request.service != "iotdata" or request.method != "POST" or not request.path.startswith("/topics/"):
            return None
        topic = unquote(request.path.removeprefix("/topics/"))
        if not allowed(topic, len(request.body)):  # the broker would end our connection
            return Response(b'{"message": "topic or size"}', 400, {"x-amzn-ErrorType": "InvalidRequestException"})
        retain = request.query.get("retain") == "true"
        self.client.publish(topic, request.body, int(request.query.get("qos", "0")), retain)
        return Response(b"")

    def hear(self, topic_filters: Sequence[str], handler: Callable[[str, bytes], None]) -> None:
        """Subscribe; once it returns nothing is missed. Raises TimeoutError."""
        subscribed = threading.Event()
        self.client.on_message = lambda _c, _d, message: handler(message.topic, bytes(message.payload))
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.subscribe([(topic_filter, 1) for topic_filter in topic_filters])
        if not subscribed.wait(CONNECT_TIMEOUT_S):
            raise TimeoutError("the MQTT broker does not answer to a subscription")

    def stop(self) -> None:
        let_go(self.client)


class Rules:
    """Runs the stack's topic rules, in order of arrival, on a thread of its own."""

    def __init__(self, stack: Stack, aws: LocalAws, invoke: Invoke) -> None:
        self._stack = stack
        self._aws = aws
        self._invoke = invoke
        payloads = [r.properties["TopicRulePayload"] for r in stack.of_type("AWS::IoT::TopicRule")]
        self._rules = [(Query(p["Sql"]), p) for p in payloads if not p.get("RuleDisabled")]
        self._inbox: queue.Queue[Message | None] = queue.Queue(INBOX)
        self._thread = threading.Thread(target=self._run, name="iot-rules", daemon=True)
        self._thread.start()

    @property
    def topic_filters(self) -> list[str]:
        return [query.topic_filter for query, _ in self._rules]

    @property
    def pending(self) -> int:
        return self._inbox.unfinished_tasks

    def received(self, client_id: str, topic: str, payload: bytes) -> None:
        """Called by the broker for every message."""
        self._inbox.put_nowait(Message(topic, payload, client_id))

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            for query, rule in self._rules:
                self._apply(query, rule, message)
            self._inbox.task_done()

    def _apply(self, query: Query, rule: dict[str, Any], message: Message) -> None:
        try:
            selected = query.run(message)
            if selected is None:
                return
            for action in rule["Actions"]:
                self._act(action, selected)
        except Exception as error:  # noqa: BLE001  (a failed rule must not end the others; its error action gets it)
            level = log.warning if isinstance(error, SqlError) else log.exception
            level("rule on %s failed: %s", message.topic, error)
            try:
                self._failed(rule, message, error)
            except Exception:
                log.exception("its error action failed too, the message is lost")

    def _act(self, action: dict[str, Any], selected: dict[str, Any]) -> None:
        ((kind, settings),) = action.items()
        match kind:
            case "Lambda":
                if not may_invoke(self._stack, settings["FunctionArn"], "iot.amazonaws.com"):
                    raise PermissionError(f"no AWS::Lambda::Permission for IoT on {settings['FunctionArn']}")
                self._invoke(settings["FunctionArn"], selected)
            case "Sns":
                self._check_role(settings, ("sns:Publish", settings["TargetArn"]))
                self._aws.client("sns").publish(TopicArn=settings["TargetArn"], Message=json.dumps(selected))
            case "CloudwatchMetric":
                namespace = {"cloudwatch:namespace": settings["MetricNamespace"]}
                self._check_role(settings, ("cloudwatch:PutMetricData", "*"), namespace)
                datum = {"MetricName": settings["MetricName"], "Value": float(settings["MetricValue"])}
                datum["Unit"] = settings["MetricUnit"]
                self._aws.client("cloudwatch").put_metric_data(
                    Namespace=settings["MetricNamespace"], MetricData=[datum]
                )
            case _:
                raise ValueError(f"rule action {kind} is not implemented here")

    def _failed(self, rule: dict[str, Any], message: Message, error: Exception) -> None:
        action = rule.get("ErrorAction", {}).get("Sqs")
        if action is None:
            return
        url = action["QueueUrl"]
        self._check_role(action, ("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{url.rpartition('/')[2]}"))
        body = {"topic": message.topic, "clientId": message.client_id, "failures": [{"errorMessage": str(error)}]}
        self._aws.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(body))

    def _check_role(self, action: dict[str, Any], need: iam.Need, context: dict[str, str] | None = None) -> None:
        if not iam.allowed(self._stack.statements(action["RoleArn"]), need, context or {}):
            raise PermissionError(f"the rule's role does not allow {need[0]} on {need[1]}")
