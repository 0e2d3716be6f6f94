import json
from typing import Any

import pytest

from localdev.core import LocalCore
from localdev.core.policy import MQTT_PROXY, PUBSUB, Authorizer, parse
from localdev.core.profiles import CLI


def policy(*resources: str, operations: Any = ("aws.greengrass#PublishToTopic",), service: str = PUBSUB) -> Any:
    return {service: {"id": {"operations": list(operations), "resources": list(resources)}}}


def authorizer(access_control: Any) -> Authorizer:
    made = Authorizer(lambda principal, problem: None)
    made.load("c", access_control)
    return made


def test_principal_service_operation_and_resource_must_all_fit() -> None:
    rules = authorizer(policy("a/*"))
    assert rules.allows("c", PUBSUB, "PublishToTopic", "a/b")
    assert not rules.allows("other", PUBSUB, "PublishToTopic", "a/b")
    assert not rules.allows("c", MQTT_PROXY, "PublishToTopic", "a/b")
    assert not rules.allows("c", PUBSUB, "SubscribeToTopic", "a/b")
    assert not rules.allows("c", PUBSUB, "PublishToTopic", "b")


def test_every_policy_of_a_service_counts() -> None:
    both = {PUBSUB: {**policy("a")[PUBSUB], "second": {"operations": ["*"], "resources": ["b"]}}}
    rules = authorizer(both)
    assert rules.allows("c", PUBSUB, "PublishToTopic", "a")
    assert rules.allows("c", PUBSUB, "SubscribeToTopic", "b")
    assert not rules.allows("c", PUBSUB, "SubscribeToTopic", "a")


def test_access_control_may_be_json_text() -> None:
    assert authorizer(json.dumps(policy("a"))).allows("c", PUBSUB, "PublishToTopic", "a")


def test_a_new_configuration_replaces_the_policies_and_what_was_remembered() -> None:
    rules = authorizer(policy("a"))
    assert rules.allows("c", PUBSUB, "PublishToTopic", "a")
    rules.load("c", policy("b"))
    assert not rules.allows("c", PUBSUB, "PublishToTopic", "a")
    rules.load("c", policy("a"))
    rules.forget("c")
    assert not rules.allows("c", PUBSUB, "PublishToTopic", "a")


def test_the_cli_may_do_everything() -> None:
    assert authorizer(None).allows(CLI, PUBSUB, "PublishToTopic", "anything")


@pytest.mark.parametrize(
    ("access_control", "problem"),
    [
        ("{", "no JSON"),
        ([], "no object"),
        ({"aws.greengrass.pubsub": {}}, "'aws.greengrass.pubsub' is no service"),
        (policy("a", operations=()), "no operations"),
        (policy(), "no resources"),
        (policy("a?"), "a literal ? is written"),
        (policy("a", operations=["aws.greengrass#Publish"]), "has no operations ['Publish']"),
    ],
)
def test_what_the_nucleus_only_logs(access_control: Any, problem: str) -> None:
    assert problem in " ".join(parse(access_control)[1])


def test_one_invalid_resource_leaves_the_others() -> None:
    assert authorizer(policy("a?", "b")).allows("c", PUBSUB, "PublishToTopic", "b")


def test_the_core_logs_what_is_wrong_with_a_policy(core: LocalCore) -> None:
    core.add_principal("test.C", {"aws.greengrass.pubsub": {}})
    assert "[ERROR] (main) com.aws.greengrass.localdev: policy. accessControl" in core.log("greengrass")
