"""What tests on a local core share: deploying to it, and how a component is seen from outside."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from localdev import workspace
from localdev.core import LocalCore
from support import eventually

Connect = Callable[..., Any]
NAME, OTHER = "test.Component", "test.Other"


def states(core: LocalCore, name: str = NAME) -> list[str]:
    """The states that a component has gone through."""
    lines = [line for line in core.log("greengrass").splitlines() if f"serviceName={name}," in line]
    return [line.rpartition("newState=")[2].rstrip("}") for line in lines if "service-set-state" in line]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def printed(core: LocalCore, text: str, name: str = NAME) -> None:
    eventually(lambda: f"stdout. {text}." in core.log(name) or f"stdout. {text}. " in core.log(name), what=text)


def starts(core: LocalCore, name: str = NAME) -> int:
    return core.log("greengrass").count(f"serviceName={name}, currentState=INSTALLED, newState=STARTING")


def outcome(core: LocalCore, client: Any) -> Any:
    """The latest deployment, as a client sees it."""
    latest = client.list_local_deployments().local_deployments[-1]
    return client.get_local_deployment_status(deployment_id=latest.deployment_id).deployment


COMMAND = [sys.executable, "-m", "localdev.core"]


Run = Callable[..., str]


def component_version(build: Path) -> tuple[str, str]:
    """Name and version of what a greengrass-build folder holds."""
    (folder,) = build.glob("artifacts/*/*")
    return folder.parent.name, folder.name


def deploy(
    core: LocalCore,
    folders: Iterable[Path],
    versions: Mapping[str, str] | None = None,
    configuration: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> None:
    """Deploys from folders that hold recipes and artifacts, as greengrass-build does, and waits for it.

    `versions` are by component, by default what each folder holds; so is `configuration`, which is merged. `options`
    are those of LocalCore.deploy.
    """
    folders = list(folders)
    if configuration:
        options["update_config"] = {name: {"MERGE": dict(values)} for name, values in configuration.items() if values}
    core.deploy(
        workspace.recipes(folders),
        workspace.artifacts(folders),
        versions or dict(map(component_version, folders)),
        **options,
    )


class Packages:
    """Folders of recipes and artifacts that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        deploy(core, [self.folder], dict.fromkeys(names, version), **options)
