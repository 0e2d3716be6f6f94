"""Built components on a local core, beside a local cloud. Everything is real but the clouds and the hardware."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

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
        names = {package: component_name(build) for package, build in zip(components, builds, strict=True)}
        settings.setdefault("mqtt_url", cloud.mqtt_url)
        settings.setdefault("env", cloud.environment())
        with LocalCore(root, **settings) as core:
            core.deploy(
                recipe_dirs=workspace.recipes(builds),
                artifact_dirs=workspace.artifacts(builds),
                merge=dict(names.values()),
                update_config={
                    names[package][0]: {"MERGE": dict(configuration)}
                    for package, configuration in components.items()
                    if configuration
                },
                timeout=60,
            )
            yield core

    return running


def component_name(build: Path) -> tuple[str, str]:
    """Name and version of what a greengrass-build folder holds."""
    (folder,) = build.glob("artifacts/*/*")
    return folder.parent.name, folder.name
