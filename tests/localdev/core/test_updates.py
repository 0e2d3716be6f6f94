"""Component updates: local deployments never announce them."""

from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import Connect
from localdev.core import LocalCore
from localdev.core.policy import CLI_SERVICE


def test_a_deferral_needs_a_subscription_and_comes_too_late(connect: Connect) -> None:
    client = connect("test.C", {})
    with pytest.raises(model.InvalidArgumentsError):
        client.defer_component_update(deployment_id="x", recheck_after_ms=1000)
    client.subscribe_to_component_updates(on_stream_event=print)
    with pytest.raises(model.ServiceError) as late:
        client.defer_component_update(deployment_id="x", recheck_after_ms=1000)
    assert late.value.message == "Time limit to respond to PreComponentUpdateEvent exceeded"


def test_a_deployment_does_not_wait_for_subscribers(core: LocalCore, connect: Connect, packages: Any) -> None:
    events: list[Any] = []
    connect("test.C", {}).subscribe_to_component_updates(on_stream_event=events.append)
    packages.add("test.D")
    packages.deploy(core, "test.D", timeout=5.0)
    assert events == []


def test_components_need_a_policy_for_the_operations_of_the_cli(core: LocalCore, connect: Connect) -> None:
    nobody = connect("test.Nobody", {})
    for call in (nobody.list_components, nobody.list_local_deployments, nobody.create_local_deployment):
        with pytest.raises(model.UnauthorizedError):
            call()
    rule = {"operations": ["aws.greengrass#GetComponentDetails"], "resources": ["aws.greengrass.Nucleus"]}
    reader = connect("test.Reader", {CLI_SERVICE: {"p": rule}})
    details = reader.get_component_details(component_name="aws.greengrass.Nucleus").component_details
    assert (details.version, details.state) == ("2.18.0", "FINISHED")
    with pytest.raises(model.UnauthorizedError):
        reader.get_component_details(component_name="aws.greengrass.Cli")
