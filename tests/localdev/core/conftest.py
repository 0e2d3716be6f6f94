"""A core, clients of it, and small components to deploy."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localdev.core import LocalCore

EVERYTHING = {
    "aws.greengrass.ipc.pubsub": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.ipc.mqttproxy": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.SecretManager": {"all": {"operations": ["*"], "resources": ["*"]}},
    "aws.greengrass.Cli": {"all": {"operations": ["*"], "resources": ["*"]}},
}


class Packages:
    """Folders of recipes and artifacts that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.recipes = folder / "recipes"
        self.artifacts = folder / "artifacts"
        self.recipes.mkdir()
        self.artifacts.mkdir()

    def add(
        self,
        name: str,
        lifecycle: dict[str, Any] | None = None,
        *,
        version: str = "1.0.0",
        config: dict[str, Any] | None = None,
        depends: dict[str, Any] | None = None,
        artifacts: list[dict[str, Any]] | None = None,
        **top: Any,
    ) -> Path:
        """Writes a recipe that both profiles take, unless its lifecycle says otherwise; the answer is its file."""
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "ComponentDescription": "a component of a test",
            "ComponentConfiguration": {"DefaultConfiguration": config or {}},
            "ComponentDependencies": depends or {},
            "Manifests": [
                {
                    "Platform": {"os": "linux", "runtime": "*"},
                    "Lifecycle": lifecycle or {"run": "exec sleep 60"},
                    "Artifacts": artifacts or [],
                }
            ],
            **top,
        }
        path = self.recipes / f"{name}-{version}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path

    def artifact(self, name: str, file: str, content: bytes, version: str = "1.0.0") -> Path:
        """Writes an artifact."""
        path = self.artifacts / name / version / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def deploy(self, core: LocalCore, *names: str, version: str = "1.0.0", **options: Any) -> None:
        """Deploys components of this folder as roots."""
        core.deploy([self.recipes], [self.artifacts], dict.fromkeys(names, version), **options)


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core") as running:
        yield running


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core", profile="lite") as running:
        yield running


@pytest.fixture
def connect_to() -> Iterator[Callable[..., Any]]:
    """Makes real IPC clients: `connect_to(core, component name, access control)`, by default with every right.

    A deployed component's client has the rights of its recipe. Their handlers run on the network thread, in order.
    """
    from awsiot import greengrasscoreipc
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

    clients = []

    def make(core: LocalCore, name: str = "test.Client", access_control: dict[str, Any] | None = None) -> Any:
        if name in core.names():
            token = core.token(name)
        else:
            token = core.add_principal(name, EVERYTHING if access_control is None else access_control)
        ipc = greengrasscoreipc.connect(ipc_socket=str(core.socket), authtoken=token, timeout=5.0)
        clients.append(GreengrassCoreIPCClientV2(client=ipc, executor=None))
        return clients[-1]

    yield make
    for client in clients:
        client.close().exception(5.0)


@pytest.fixture
def connect(core: LocalCore, connect_to: Callable[..., Any]) -> Callable[..., Any]:
    """`connect_to` for the fixture core."""
    return functools.partial(connect_to, core)


@pytest.fixture
def connect_lite(lite: LocalCore, connect_to: Callable[..., Any]) -> Callable[..., Any]:
    """`connect_to` for the fixture core of the lite profile."""
    return functools.partial(connect_to, lite)
