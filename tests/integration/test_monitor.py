"""The built component on both kinds of core."""

import json
import re
from contextlib import closing
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.demo.observer import Observer
from support import eventually


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_it_tells_of_its_neighbours_where_the_log_says(start: Start, cloud: LocalCloud, profile: str) -> None:
    monitor = {"port": 0, "auth": "off", "vitals": {"interval_s": 1}, "report_s": 2}
    components = {"monitor": monitor, "sample_requester": {"interval_s": 3600}}
    with start(components, profile=profile, thing_name=profile) as core, closing(Observer(cloud.mqtt_address)) as iot:
        reports: list[Any] = []
        iot.hear(f"edgeml/device/{profile}/report", lambda topic, payload: reports.append(json.loads(payload)))
        address = page(core)

        def answered(path: str) -> str:
            with build_opener(ProxyHandler({})).open(f"{address}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        def names() -> list[str]:
            return [component["name"] for component in json.loads(answered("api/state"))["components"]]

        eventually(lambda: names() == ["edgeml.SampleRequester"], 20, "the neighbour's report")
        vital = eventually(
            lambda: json.loads(answered("api/state"))["vitals"].get("core_answer"), 20, "the core's answer"
        )
        assert (vital["label"], vital["unit"]) == ("Core", "seconds")
        assert 'edgeml_component_up{component="edgeml.SampleRequester"} 1.0' in answered("metrics").splitlines()
        assert core.state("edgeml.Monitor") == "RUNNING"
        eventually(
            lambda: reports and "edgeml.SampleRequester" in reports[-1]["components"], 20, "the report to the cloud"
        )
        assert reports[-1]["thing"] == profile


def page(core: LocalCore) -> str:
    eventually(lambda: "address=http://" in core.log("edgeml.Monitor"), 20, "the page's address")
    found = re.search(r"address=(http://127\.0\.0\.1:\d+/)", core.log("edgeml.Monitor"))
    assert found is not None
    return found[1]
