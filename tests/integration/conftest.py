"""Built components on a local core, beside a local cloud. Everything is real but the clouds and the hardware."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from core_support import component_version, deploy
from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.core import LocalCore

Components = Mapping[str, Mapping[str, Any]]  # package -> configuration to merge
Start = Callable[..., AbstractContextManager[LocalCore]]


@pytest.fixture(scope="session")
def built() -> workspace.Workspace:
    return workspace.Workspace()


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    """S3 and the other AWS APIs at `cloud.aws.url`, an MQTT broker at `cloud.mqtt_url`; one for a test module."""
    with LocalCloud() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, built: workspace.Workspace, cloud: LocalCloud) -> Start:
    """`with start({package: configuration}, profile=..., **settings) as core:` deploys built components on a core."""

    @contextmanager
    def running(components: Components, **settings: Any) -> Iterator[LocalCore]:
        root = settings.pop("root", tmp_path / "gg")
        builds = built.build(components)
        built.lend_venvs(components, root)
        names = dict(zip(components, (component_version(build)[0] for build in builds), strict=True))
        settings.setdefault("mqtt_url", cloud.mqtt_url)
        settings.setdefault("env", cloud.environment())
        with LocalCore(root, **settings) as core:
            deploy(core, builds, configuration={names[package]: values for package, values in components.items()})
            yield core

    return running
