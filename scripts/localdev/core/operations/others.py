"""Operations that the nucleus refuses to user components, and their few exceptions.

Sources: ComponentMetricIPCEventStreamAgent and AuthorizationIPCAgent of aws-greengrass-nucleus.
"""

import re
from collections.abc import Callable

from localdev.core.operations.requests import Body
from localdev.core.policy import METRICS, Authorizer
from localdev.core.rpc import RpcError, invalid_arguments, unauthorized
from localdev.core.server import Handler, Stream

MAX_METRIC_NAME_BYTES = 32
_UNITS = frozenset({"bytes", "bytespersecond", "count", "countpersecond", "megabytes", "seconds"})
_TOKEN_READER = "aws.greengrass.StreamManager"  # noqa: S105  (a component's name)


class Others:
    """PutComponentMetric and ValidateAuthorizationToken. `known` tells whether a token is a component's."""

    def __init__(self, authorizer: Authorizer, known: Callable[[str], bool]) -> None:
        self._authorizer = authorizer
        self._known = known

    def handlers(self) -> dict[str, Handler]:
        """The two operations."""
        return {"PutComponentMetric": self._put_metric, "ValidateAuthorizationToken": self._validate_token}

    def _put_metric(self, stream: Stream, body: Body) -> Body:
        refusal = (
            f"Principal {stream.principal} is not authorized to perform {METRICS}:aws.greengrass#{stream.operation} "
        )
        if not stream.principal.startswith("aws."):
            raise unauthorized(refusal)
        metrics = body.get("metrics")
        if not metrics:
            raise invalid_arguments("Null or Empty list of metrics found in PutComponentMetricRequest")
        for metric in metrics:
            name, unit = str(metric.get("name") or ""), str(metric.get("unit") or "")
            if not 1 <= len(name.encode()) <= MAX_METRIC_NAME_BYTES or not unit or metric.get("value", 0) < 0:
                raise invalid_arguments("Invalid argument found in PutComponentMetricRequest")
            if re.sub(r"[^a-z0-9]", "", unit.lower()) not in _UNITS:
                raise invalid_arguments("Invalid telemetry unit: No matching TelemetryUnit type found")
            if not self._authorizer.allows(stream.principal, METRICS, stream.operation, name):
                raise unauthorized(f"{refusal}on resource {name}")
        return {}

    def _validate_token(self, stream: Stream, body: Body) -> Body:
        if stream.principal != _TOKEN_READER:
            raise unauthorized(f"{stream.principal} is not authorized to perform aws.greengrass#{stream.operation}")
        if not self._known(str(body.get("token"))):
            raise RpcError("InvalidTokenError", "Invalid token used by stream manager when trying to authorize")
        return {"isValid": True}
