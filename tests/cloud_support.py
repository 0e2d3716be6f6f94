"""What tests of the cloud half share: sample events, faults, what is left of failed events."""

import json
from collections.abc import Callable
from typing import Any

from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.cloud.cloud import TEMPLATE

ANY_THING = {"ThingPrefix": ""}  # parameters of a stack that listens to things of any name
EVENTS = TEMPLATE.parent / "events"


class Faults:
    """Calls of AWS that are answered by the test instead."""

    def __init__(self) -> None:
        self._answers: list[tuple[Callable[[Request], bool], list[Response]]] = []
        self.calls: list[Request] = []

    def answer(self, service: str, operation: str, *responses: Response) -> None:
        """The next calls of an operation get these answers; calls after them are real again.

        `operation` is the name in X-Amz-Target, or for other protocols a part of the path or body.
        """

        def mine(request: Request) -> bool:
            if request.service != service:
                return False
            return request.operation == operation or (
                not request.operation and (operation in request.path or operation.encode() in request.body)
            )

        self._answers.append((mine, list(responses)))

    def clear(self) -> None:
        self._answers.clear()
        self.calls.clear()

    def __call__(self, request: Request) -> Response | None:
        self.calls.append(request)
        for mine, responses in self._answers:
            if responses and mine(request):
                return responses.pop(0)
        return None


def error(code: str, status: int = 400, message: str = "as the test wants it") -> Response:
    """An error as AWS's JSON protocols tell it."""
    return Response(json.dumps({"__type": code, "message": message}).encode(), status)


def sample(name: str) -> dict[str, Any]:
    """A sample event of cloud/events."""
    return dict(json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8")))


def failed_events(cloud: LocalCloud) -> list[dict[str, Any]]:
    """Takes what lies in the queue of failed events."""
    sqs = cloud.aws.client("sqs")
    url = sqs.get_queue_url(QueueName="FailedEvents")["QueueUrl"]
    bodies = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            bodies.append(json.loads(message["Body"]))
    return bodies
