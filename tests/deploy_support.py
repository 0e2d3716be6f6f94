"""What tests of scripts/deploy share: a thing group with devices, built components, and the command itself."""

import base64
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import deploy
from deployment import actions
from deployment.aws import Aws
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.cloud.greengrass import Deployment
from localdev.cloud.greengrass_components import ApiError
from localdev.core.config_store import ConfigStore

GROUP = "presses"
TARGET = f"arn:aws:iot:us-east-1:123456789012:thinggroup/{GROUP}"
BUCKET = "edgeml-components-us-east-1-123456789012"
COMPONENTS = "arn:aws:greengrass:us-east-1:123456789012:components"
DEVICES = ("press-1", "press-2")


class Field:
    """The cloud, built components below `builds`, and devices that answer each deployment with `verdicts`.

    A device that succeeds changes its configuration as the local core does it; `offline` ones do not hear of any.
    """

    def __init__(self, cloud: LocalCloud, builds: Path) -> None:
        self.cloud = cloud
        self.builds = builds
        self.verdicts: dict[str, str] = dict.fromkeys(DEVICES, "SUCCEEDED")
        self.offline: set[str] = set()
        self.stores = {device: ConfigStore() for device in DEVICES}
        self._installed: dict[str, set[str]] = {device: set() for device in DEVICES}
        self.greengrass = cloud.aws.client("greengrassv2")
        cloud.greengrass.on_deployment.append(self._arrived)

    def devices_say(self, status: str) -> None:
        self.verdicts = dict.fromkeys(self.verdicts, status)

    def _arrived(self, deployment: Deployment) -> None:
        for thing in deployment.executions.keys() - self.offline:
            status = self.verdicts.get(thing, "SUCCEEDED")
            self.cloud.greengrass.report(deployment.id, thing, status)
            if status == "SUCCEEDED" and thing in self.stores:
                self._apply(thing, deployment.request.get("components", {}))

    def _apply(self, thing: str, components: dict[str, Any]) -> None:
        store, installed = self.stores[thing], self._installed[thing]
        for name in installed - components.keys():
            store.remove(name)
        self._installed[thing] = set(components)
        for name, specification in components.items():
            update = specification.get("configurationUpdate", {})
            change = {"RESET": update.get("reset", []), "MERGE": json.loads(update.get("merge", "{}"))}
            defaults = self._defaults(name, specification["componentVersion"])
            store.replace(name, store.proposal(name, defaults, change, time.time()))

    def _defaults(self, name: str, version: str) -> dict[str, Any]:
        """Of a recipe that was published here; those of AWS' own components do not matter here."""
        try:
            answer = self.cloud.greengrass.components.get({"arn": f"{COMPONENTS}:{name}:versions:{version}"})
        except ApiError:
            return {}
        recipe = json.loads(base64.b64decode(answer["recipe"]))
        return dict(recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {}))

    def configuration(self, name: str = "edgeml.A", device: str = DEVICES[0]) -> Any:
        return self.stores[device].snapshot(name)

    def build(self, name: str, version: str, content: bytes = b"zip", **recipe: Any) -> None:
        folder = self.builds / name / "greengrass-build"
        artifacts = folder / "artifacts" / name / version
        artifacts.mkdir(parents=True, exist_ok=True)
        (artifacts / "code.zip").write_bytes(content)
        made = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "Manifests": [{"Artifacts": [{"Uri": "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/code.zip"}]}],
        }
        (folder / "recipes").mkdir(exist_ok=True)
        (folder / "recipes" / f"{name}.yaml").write_text(json.dumps(made | recipe))

    def config(self, **components: Any) -> str:
        """A file for --config, by the last part of components' names."""
        path = self.builds / "config.json"
        path.write_text(json.dumps({f"edgeml.{name}": value for name, value in components.items()}))
        return str(path)

    def arguments(self, *arguments: str) -> list[str]:
        action = arguments[0] if arguments and arguments[0] in ("status", "rollback") else "deploy"
        options = {
            "deploy": ["--builds", str(self.builds), "--interval", "0.02", "--timeout", "0.2"],
            "rollback": ["--interval", "0.02", "--timeout", "0.2"],
            "status": [],
        }
        return ["--thing-group", GROUP, *options[action], *arguments]

    def deploy(self, *arguments: str) -> int:
        """Exit code of the command, with small waiting times."""
        return deploy.main(self.arguments(*arguments))

    def command(self, *arguments: str) -> list[str]:
        """The same for a process."""
        return [sys.executable, deploy.__file__, *self.arguments(*arguments)]

    def create(self, components: dict[str, Any], **more: Any) -> str:
        """A deployment that someone else makes."""
        return str(self.greengrass.create_deployment(targetArn=TARGET, components=components, **more)["deploymentId"])

    def ids(self) -> list[str]:
        """All deployments, oldest first."""
        return [deployment.id for deployment in self.cloud.greengrass.deployments]

    def components(self) -> dict[str, Any]:
        (latest,) = self.greengrass.list_deployments(targetArn=TARGET)["deployments"]
        return dict(self.greengrass.get_deployment(deploymentId=latest["deploymentId"])["components"])

    def versions(self) -> dict[str, str]:
        return {name: specification["componentVersion"] for name, specification in self.components().items()}

    @contextmanager
    def answering(self, stand_in: Callable[[Request], Response | None]) -> Iterator[None]:
        """`stand_in` is asked first in the block."""
        self.cloud.aws.stand_ins.insert(0, stand_in)
        try:
            yield
        finally:
            self.cloud.aws.stand_ins.remove(stand_in)


@contextmanager
def prepared(cloud: LocalCloud, builds: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    """An empty cloud with the bucket, the group and edgeml.A 1.0.0 built; commands and processes reach it."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    # To make boto3's clients anew for each command takes as long as a command does.
    monkeypatch.setattr(actions, "Aws", functools.cache(Aws))
    cloud.aws.reset()
    cloud.greengrass.forget()
    cloud.aws.client("s3").create_bucket(Bucket=BUCKET)
    iot = cloud.aws.client("iot")
    iot.create_thing_group(thingGroupName=GROUP)
    for thing in DEVICES:
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupName=GROUP, thingName=thing)
    field = Field(cloud, builds)
    field.build("edgeml.A", "1.0.0")
    yield field
    cloud.greengrass.on_deployment.clear()
