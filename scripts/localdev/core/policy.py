"""Authorization by the accessControl of a component's configuration.

    accessControl.<service>.<policy id> = {policyDescription, operations[], resources[]}

The component that owns the configuration is the principal. Source: AuthorizationPolicyParser and
AuthorizationHandler of aws-greengrass-nucleus.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from localdev.core.profiles import CLI
from localdev.core.rpc import NAMESPACE
from localdev.core.wildcard import PatternError, compile_mqtt, compile_standard

PUBSUB = "aws.greengrass.ipc.pubsub"
MQTT_PROXY = "aws.greengrass.ipc.mqttproxy"
SECRETS = "aws.greengrass.SecretManager"
CLI_SERVICE = "aws.greengrass.Cli"
LIFECYCLE = "aws.greengrass.ipc.lifecycle"
METRICS = "aws.greengrass.ipc.componentmetric"

_CLI_OPERATIONS = (
    "CreateLocalDeployment",
    "ListLocalDeployments",
    "GetLocalDeploymentStatus",
    "ListComponents",
    "GetComponentDetails",
    "RestartComponent",
    "StopComponent",
    "CancelLocalDeployment",
    "CreateDebugPassword",
)
OPERATIONS: dict[str, tuple[str, ...]] = {
    PUBSUB: ("PublishToTopic", "SubscribeToTopic"),
    MQTT_PROXY: ("PublishToIoTCore", "SubscribeToIoTCore"),
    SECRETS: ("GetSecretValue",),
    CLI_SERVICE: _CLI_OPERATIONS,
    LIFECYCLE: ("PauseComponent", "ResumeComponent"),
    "aws.greengrass.ShadowManager": (
        "GetThingShadow",
        "UpdateThingShadow",
        "DeleteThingShadow",
        "ListNamedShadowsForThing",
    ),
    METRICS: ("PutComponentMetric",),
    "aws.greengrass.clientdevices.Auth": (
        "SubscribeToCertificateUpdates",
        "VerifyClientDeviceIdentity",
        "GetClientDeviceAuthToken",
        "AuthorizeClientDeviceAction",
    ),
}
_CACHE_ENTRIES = 4096


class Rule(NamedTuple):
    """One resource of one policy."""

    operations: frozenset[str]
    resource: re.Pattern[str]


def parse(access_control: Any) -> tuple[dict[str, list[Rule]], list[str]]:
    """The rules by service, and what the nucleus would log about the rest (it skips what it cannot use)."""
    problems: list[str] = []
    rules: dict[str, list[Rule]] = {}
    if isinstance(access_control, str):
        try:
            access_control = json.loads(access_control)
        except ValueError as error:
            return {}, [f"accessControl is no JSON: {error}"]
    if not isinstance(access_control, dict):
        return {}, ["accessControl is no object"] if access_control is not None else []
    for service, policies in access_control.items():
        if not isinstance(policies, dict):  # the nucleus reads all of it at once, or nothing
            return {}, [f"accessControl: {service!r} is no object, so that all policies of this component are lost"]
    for service, policies in access_control.items():
        if service not in OPERATIONS:
            problems.append(f"accessControl: {service!r} is no service with policies")
            continue
        rules[service] = []
        for policy_id, policy in policies.items():
            found, complaints = _parse_policy(service, policy)
            rules[service] += found
            problems += [f"accessControl {policy_id}: {complaint}" for complaint in complaints]
    return rules, problems


def _parse_policy(service: str, policy: Any) -> tuple[list[Rule], list[str]]:
    if not isinstance(policy, dict) or not isinstance(policy.get("operations"), list) or not policy["operations"]:
        return [], ["no operations"]
    problems = []
    operations = frozenset(str(operation).removeprefix(NAMESPACE) for operation in policy["operations"])
    unknown = operations - {*OPERATIONS[service], "*"}
    if unknown:
        problems.append(f"{service} has no operations {sorted(unknown)}")
    resources = policy.get("resources")
    if not isinstance(resources, list) or not resources:
        return [], [*problems, "no resources"]
    compile_pattern = compile_mqtt if service == MQTT_PROXY else compile_standard
    rules = []
    for resource in resources:
        try:
            rules.append(Rule(operations, compile_pattern(str(resource))))
        except PatternError as error:
            problems.append(str(error))
    return rules, problems


class Authorizer:
    """Decides whether a principal may do an operation on a resource; remembers its answers."""

    def __init__(self, complain: Callable[[str, str], None]) -> None:
        """`complain(principal, problem)` is called for what a principal's accessControl holds in vain."""
        self._complain = complain
        self._rules: dict[str, dict[str, list[Rule]]] = {}
        self._answers: dict[tuple[str, str, str, str], bool] = {}

    def load(self, principal: str, access_control: Any) -> None:
        """Replaces the policies of a principal."""
        self._rules[principal], problems = parse(access_control)
        self._answers.clear()
        for problem in problems:
            self._complain(principal, problem)

    def forget(self, principal: str) -> None:
        """Drops the policies of a principal."""
        self._rules.pop(principal, None)
        self._answers.clear()

    def allows(self, principal: str, service: str, operation: str, resource: str) -> bool:
        """`operation` is the short name, as PublishToTopic."""
        key = (principal, service, operation, resource)
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) >= _CACHE_ENTRIES:
                self._answers.clear()
            answer = self._answers[key] = self._decide(*key)
        return answer

    def _decide(self, principal: str, service: str, operation: str, resource: str) -> bool:
        if principal == CLI:
            return True
        return any(
            (operation in rule.operations or "*" in rule.operations) and rule.resource.fullmatch(resource)
            for rule in self._rules.get(principal, {}).get(service, ())
        )
