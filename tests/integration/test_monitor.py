"""The built component on both kinds of core."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.demo.observer import Observer
from look import main as look
from support import eventually


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_it_tells_of_its_neighbours_here_and_from_afar(
    start: Start, cloud: LocalCloud, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"looked-at-{profile}"
    cloud.aws.client("s3").create_bucket(Bucket=bucket)
    rings = {"ring_directory": str(tmp_path)}
    monitor = {"port": 0, "auth": "off", "vitals": {"interval_s": 1}, "report_s": 2, **rings}
    monitor |= {"look": "pictures", "look_bucket": bucket}
    door = {"type": "test_pattern", "width": 640, "height": 360, "fps": 5}
    components = {"monitor": monitor, "camera_capture": {"cameras": {"door": door}, **rings}}
    with start(components, profile=profile, thing_name=profile) as core, closing(Observer(cloud.mqtt_address)) as iot:
        reports: list[Any] = []
        iot.hear(f"edgeml/device/{profile}/report", lambda topic, payload: reports.append(json.loads(payload)))
        address = page(core)

        def answered(path: str) -> str:
            with build_opener(ProxyHandler({})).open(f"{address}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        def names() -> list[str]:
            return [component["name"] for component in json.loads(answered("api/state"))["components"]]

        eventually(lambda: names() == ["edgeml.CameraCapture"], 20, "the neighbour's report")
        vital = eventually(
            lambda: json.loads(answered("api/state"))["vitals"].get("core_answer"), 20, "the core's answer"
        )
        assert (vital["label"], vital["unit"]) == ("Core", "seconds")
        assert 'edgeml_component_up{component="edgeml.CameraCapture"} 1.0' in answered("metrics").splitlines()
        assert core.state("edgeml.Monitor") == "RUNNING"
        eventually(
            lambda: reports and "edgeml.CameraCapture" in reports[-1]["components"], 20, "the report to the cloud"
        )
        assert reports[-1]["thing"] == profile
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        looked = tmp_path / "looked.html"
        assert look([profile, "--pictures", "--mqtt", cloud.mqtt_url, "--output", str(looked)]) == 0
        assert 'alt="door"' in looked.read_text()
        found = cloud.aws.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
        assert {key.split("/", 2)[1] for key in (item["Key"] for item in found)} == {profile}
        assert sorted(item["Key"].rpartition("/")[2] for item in found) == ["door.jpg", "state.json"]


def page(core: LocalCore) -> str:
    eventually(lambda: "address=http://" in core.log("edgeml.Monitor"), 20, "the page's address")
    found = re.search(r"address=(http://127\.0\.0\.1:\d+/)", core.log("edgeml.Monitor"))
    assert found is not None
    return found[1]
