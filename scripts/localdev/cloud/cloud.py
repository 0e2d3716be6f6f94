"""The whole cloud: AWS's APIs, IoT Core's broker, and a template's functions with the events that reach them."""

import json
import re
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from localdev.cloud import metrics
from localdev.cloud.api import ApiGateway
from localdev.cloud.aws import LocalAws, Request, Response
from localdev.cloud.broker import Broker
from localdev.cloud.builds import Builds
from localdev.cloud.greengrass import Greengrass
from localdev.cloud.iot import Publisher, Rules
from localdev.cloud.lambdas import Function, FunctionError, setting
from localdev.cloud.rekognition import Rekognition
from localdev.cloud.resources import create
from localdev.cloud.routes import Routes
from localdev.cloud.sagemaker import Endpoints
from localdev.cloud.template import ROOT, Stack

TEMPLATE = ROOT / "cloud" / "template.yaml"


class LocalCloud:
    """`with LocalCloud() as cloud:` starts AWS's APIs at `cloud.aws.url` and a broker at `cloud.mqtt_url`.

    With `template` its resources are made, its functions run on S3, SNS, IoT, EventBridge and API events, each in
    `concurrency` processes, and its CodeBuild projects build. `mqtt_url` names a broker that runs already, such as
    mosquitto. `deliveries` is how often each event is delivered, as AWS promises only "at least once".
    """

    def __init__(
        self,
        template: Path | None = None,
        parameters: dict[str, str] | None = None,
        *,
        mqtt_url: str = "",
        concurrency: int = 1,
        deliveries: int = 1,
        retry_delay_s: float = 0.1,
    ) -> None:
        self.aws = LocalAws()
        self.endpoints = Endpoints()
        self.greengrass = Greengrass(self.aws)
        self.mqtt_url = mqtt_url
        self.deliveries = deliveries
        self.broker: Broker | None = None
        self.stack = Stack(template, parameters) if template else None
        self.functions: dict[str, Function] = {}  # by ARN
        self.api: ApiGateway | None = None
        self.builds: Builds | None = None
        self._concurrency = concurrency
        self._retry_delay_s = retry_delay_s
        self._running = ExitStack()
        self._busy: list[Any] = []  # whatever has `pending` work

    def environment(self) -> dict[str, str]:
        """All that another process needs to reach this cloud's APIs."""
        return self.aws.environment()

    @property
    def mqtt_address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        parts = urlsplit(self.mqtt_url)
        return parts.hostname or "127.0.0.1", parts.port or 1883

    def function(self, logical_id: str) -> Function:
        """A function by its name in the template."""
        assert self.stack is not None, "this cloud has no template"  # noqa: S101
        return self.functions[self.stack.resources[logical_id].arn]

    def send(self, function_arn: str, event: dict[str, Any]) -> None:
        """Delivers an event to a function, as often as `deliveries` says."""
        for _ in range(self.deliveries):
            self.functions[function_arn].send(event)

    def _invoked(self, request: Request) -> Response | None:
        """Stands in for Lambda's Invoke of this template's functions."""
        path = re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations", request.path)
        name = path[1].rpartition(":")[2] if path else ""
        function = next((f for f in self.functions.values() if f.setting.name == name), None)
        if function is None:
            return None
        event = json.loads(request.body or b"null")
        if request.headers.get("x-amz-invocation-type") == "Event":
            self.send(function.setting.arn, event)
            return Response(b"", 202)
        try:
            return Response(json.dumps(function.invoke(event)).encode())
        except FunctionError as error:
            headers = {"Content-Type": "application/json", "X-Amz-Function-Error": "Unhandled"}
            return Response(json.dumps(error.payload).encode(), headers=headers)

    def drain(self, timeout: float = 30.0) -> None:
        """Returns when no event is on its way any more. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while any(part.pending for part in self._busy):
            if time.monotonic() > deadline:
                raise TimeoutError(f"events are still on their way after {timeout:g} s")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.aws)
            if not self.mqtt_url:
                self.broker = starting.enter_context(Broker())
                self.mqtt_url = self.broker.url
            publisher = Publisher(*self.mqtt_address)
            starting.callback(publisher.stop)
            starting.callback(self.endpoints.stop)
            self.aws.stand_ins += [publisher.iot_data, self.endpoints, self.greengrass, Rekognition(self.aws)]
            if self.stack is not None:
                self._start_stack(self.stack, publisher, starting)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _start_stack(self, stack: Stack, publisher: Publisher, starting: ExitStack) -> None:
        create(stack, self.aws)
        logs = Path(tempfile.mkdtemp(prefix="local-cloud-"))
        starting.callback(shutil.rmtree, logs)
        for resource in stack.of_type("AWS::Lambda::Function"):
            function = Function(
                setting(stack, resource),
                self.aws,
                logs / f"{resource.name}.log",
                self._concurrency,
                self._retry_delay_s,
            )
            function.on_metrics = metrics.embedded
            starting.callback(function.stop)
            self.functions[resource.arn] = function
        self.api = ApiGateway(stack, self.functions, metrics.api)
        starting.callback(self.api.stop)
        rules = Rules(stack, self.aws, self.send)
        starting.callback(rules.stop)
        if self.broker is not None:
            self.broker.on_publish.append(rules.received)
        else:  # another broker does not say who published
            publisher.hear(rules.topic_filters, lambda topic, payload: rules.received("N/A", topic, payload))
        self.aws.stand_ins.append(self._invoked)
        self.builds = Builds(stack, self.aws, logs)
        starting.callback(self.builds.stop)
        self.aws.observers += [self.builds.observe, Routes(stack, self.aws, self.send).observe]
        # In the order in which one makes work for the other, lest `drain` miss what is handed on while it looks.
        self._busy = [self.builds, rules, *self.functions.values()]
