"""A device with version 1.0 of the components gets today's, without a reset: it keeps its access control.

`upgrade/` holds the recipes of 1.0 as they were published. Their configuration is deployed, with a script that does
nothing in the place of 1.0's code, and then what is built from this tree.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from core_support import deploy
from edgeml.problems import ADVICE
from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from support import eventually

OLD = Path(__file__).parent / "upgrade"
OLD_VERSION = "1.0.0"
USED: dict[str, dict[str, Any]] = {  # what a user of 1.0 had configured
    "camera_capture": {
        "cameras": {"t": {"type": "test_pattern", "fps": 5, "width": 64, "height": 48, "slots": 4}},
    },
    "edge_impulse_linux": {"jpeg_quality": 90},
    "edge_impulse_runner": {"Parameters": {"iotcore_backoff": 7, "metrics_sleeptime_ms": 20000}},
    "inferencer": {"result_spool_bytes": 33554432},
    "log_shipper": {"periodicUploadIntervalSec": 1, "retentionDays": 30, "components": ["edgeml.*"]},
    "model_updater": {"max_download_bytes": 1048576},
    "sample_requester": {"interval_s": 0.2},
    "serial_scraper": {"ports": {"p": {"device": "/dev/ttyNowhere*", "baud": 9600}}},
}
WORKED = {  # a local topic on which 1.0 was heard, beside its health
    "camera_capture": "edgeml/camera/t/frame",
    "sample_requester": "local/inference",
}
REFUSED = {"unauthorized", "configuration_refused", "unknown_key", "worker_failed", "refused"}


def component(package: str) -> str:
    return f"edgeml.{''.join(part.capitalize() for part in package.split('_'))}"


class Device:
    """A core, and what is heard on it by topic."""

    def __init__(self, core: LocalCore, builds: dict[str, Path], folder: Path) -> None:
        self.core = core
        self._builds, self._folder = builds, folder
        self._heard: dict[str, bytes] = {}
        self._lock = threading.Lock()
        for topic in ("edgeml/health/*", "edgeml/camera/#", "local/inference"):
            core.subscribe(topic.replace("*", "+"), self._hear)

    def _hear(self, topic: str, payload: bytes) -> None:
        with self._lock:
            self._heard[topic] = payload

    def heard(self, topic: str) -> bytes:
        """The last message on a topic, empty before the first."""
        with self._lock:
            return self._heard.get(topic, b"")

    def install_old(self, packages: list[str], change: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Deploys the recipes of 1.0, their configuration as a user had it, and no code."""
        (recipes := self._folder / "recipes").mkdir(parents=True, exist_ok=True)
        (self._folder / "artifacts").mkdir(exist_ok=True)
        for package in packages:
            text = (OLD / f"{component(package)}.yaml").read_text()
            recipe = yaml.load(text, yaml.CSafeLoader)
            if change:
                change(recipe["ComponentConfiguration"]["DefaultConfiguration"])
            manifest = recipe["Manifests"][0]
            manifest["Lifecycle"], manifest["Artifacts"] = {"run": "exec sleep 600"}, []
            (recipes / f"{component(package)}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        configuration = {component(package): dict(USED[package]) for package in packages}
        rings = self._folder.parent / "rings"  # its own: tests run beside each other
        rings.mkdir(exist_ok=True)
        configuration[component("camera_capture")]["ring_directory"] = str(rings)
        deploy(self.core, [self._folder], {component(package): OLD_VERSION for package in packages}, configuration)

    def upgrade(self, packages: list[str]) -> None:
        """Deploys today's versions, without a word about configuration."""
        deploy(self.core, [self._builds[package] for package in packages])

    def must_run(self, package: str) -> None:
        """It runs, and is heard where version 1.0 was."""
        name, topic = component(package), WORKED.get(package)
        try:
            eventually(lambda: "started component=" in self.core.log(name), 20, f"the start of {name}")
            if topic:
                eventually(lambda: self.heard(topic), 20, f"{topic} of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}, {self.core.state(name)}; log:\n{self.core.log(name)[-3000:]}") from error

    def must_report(self, package: str) -> None:
        """Its health is heard, as with version 1.0."""
        health = f"edgeml/health/{component(package).removeprefix('edgeml.')}"
        assert json.loads(eventually(lambda: self.heard(health), 20, health))["component"] == component(package)

    def must_be_well(self, package: str) -> None:
        """Nothing is refused to it, and it still runs."""
        log = self.core.log(component(package))
        assert not [line for line in log.splitlines() if any(f"code={code}" in line for code in REFUSED)]
        assert "Unauthorized" not in log
        assert self.core.state(component(package)) == "RUNNING"

    def must_be_kept(self, package: str, before: dict[str, Any]) -> None:
        """The user's configuration is what it was; access control has lost nothing, and gained new ids alone."""
        after = self.core.configuration(component(package))
        for service, policies in before["accessControl"].items():
            for policy, rules in policies.items():
                assert after["accessControl"][service][policy] == rules
        for key, value in before.items():
            if key != "accessControl":
                assert after[key] == value or isinstance(value, dict), key


@pytest.fixture(scope="module")
def builds(built: workspace.Workspace) -> dict[str, Path]:
    return dict(zip(USED, built.build(USED), strict=True))


@contextmanager
def device(
    root: Path,
    profile: str,
    builds: dict[str, Path],
    built: workspace.Workspace,
    cloud: LocalCloud,
    packages: Iterable[str] = tuple(USED),
) -> Iterator[Device]:
    built.lend_venvs(packages, root)
    with LocalCore(root, profile=profile, mqtt_url=cloud.mqtt_url, env=cloud.environment()) as core:
        yield Device(core, builds, root.parent / "old")


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_each_alone_and_then_all(
    profile: str, tmp_path: Path, builds: dict[str, Path], built: workspace.Workspace, cloud: LocalCloud
) -> None:
    with device(tmp_path / "gg", profile, builds, built, cloud) as upgraded:
        upgraded.install_old(list(USED))
        before = {package: upgraded.core.configuration(component(package)) for package in USED}
        for package in USED:  # the others are of 1.0, or upgraded already
            upgraded.upgrade([package])
            upgraded.must_run(package)
            upgraded.must_be_kept(package, before[package])
        for package in USED:
            upgraded.must_report(package)
            upgraded.must_be_well(package)


def test_all_at_once(tmp_path: Path, builds: dict[str, Path], built: workspace.Workspace, cloud: LocalCloud) -> None:
    """On Nucleus Lite, which bears few starts."""
    with device(tmp_path / "gg", "lite", builds, built, cloud) as upgraded:
        upgraded.install_old(list(USED))
        upgraded.upgrade(list(USED))
        for package in USED:
            upgraded.must_run(package)
        for package in USED:
            upgraded.must_be_well(package)


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_what_the_old_access_control_refuses_is_one_problem_that_names_the_reset(
    profile: str, tmp_path: Path, builds: dict[str, Path], built: workspace.Workspace, cloud: LocalCloud
) -> None:
    def narrow(configuration: dict[str, Any]) -> None:
        policies = configuration["accessControl"]["aws.greengrass.ipc.pubsub"]
        for rules in policies.values():
            rules["resources"] = [topic for topic in rules["resources"] if not topic.endswith("/command")] or ["none"]

    with device(tmp_path / "gg", profile, builds, built, cloud, ["camera_capture"]) as upgraded:
        upgraded.install_old(["camera_capture"], narrow)
        upgraded.upgrade(["camera_capture"])
        eventually(lambda: upgraded.heard("edgeml/camera/t/frame"), 20, "frames")
        eventually(lambda: "code=unauthorized" in upgraded.core.log("edgeml.CameraCapture"), 20, "the problem")
        lines = [line for line in upgraded.core.log("edgeml.CameraCapture").splitlines() if "code=unauthorized" in line]
        assert len(lines) == 1
        assert "subject=cameras.t.command" in lines[0]
        assert '"reset": ["/accessControl"]' in ADVICE["unauthorized"]
