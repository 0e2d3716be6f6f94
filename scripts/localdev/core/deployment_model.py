"""What a deployment is asked to do, how it is reported, and why it fails."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localdev.core.config_store import ConflictError
from localdev.core.recipe import RecipeError
from localdev.core.resolve import ResolutionError


class DeploymentError(Exception):
    """A deployment failed; the text says why, with the end of the failing component's log."""

    stack: tuple[str, ...] = ("DEPLOYMENT_FAILURE",)
    types: tuple[str, ...] = ("REQUEST_ERROR",)


class InvalidConfigurationError(DeploymentError):
    """A component, or the core, rejects a configuration."""

    stack = ("DEPLOYMENT_FAILURE", "COMPONENT_CONFIGURATION_NOT_VALID")
    types = ("REQUEST_ERROR",)


DEPLOYMENT_ERRORS = (DeploymentError, RecipeError, ResolutionError, ConflictError, OSError)


class BrokenError(DeploymentError):
    """A component of the deployment is BROKEN."""

    stack = ("DEPLOYMENT_FAILURE", "COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN")
    types = ("COMPONENT_ERROR", "USER_COMPONENT_ERROR")


@dataclass(frozen=True)
class Request:
    """What a deployment is asked to do.

    `update_config`: {component: {"MERGE": {...}, "RESET": [pointers]}}; `run_with`: {component: USER[:GROUP]};
    `rollback`: whether a failure brings back what was there.
    """

    recipe_dirs: list[Path] = field(default_factory=list)
    artifact_dirs: list[Path] = field(default_factory=list)
    merge: Mapping[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    update_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run_with: Mapping[str, str] = field(default_factory=dict)
    rollback: bool = False


@dataclass
class Deployment:
    """One deployment. `status`: QUEUED, IN_PROGRESS, SUCCEEDED, FAILED or CANCELED; `created` is epoch seconds."""

    request: Request
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    status: str = "QUEUED"
    detailed: str | None = None
    error: str | None = None
    error_stack: list[str] = field(default_factory=list)
    error_types: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("SUCCEEDED", "FAILED", "CANCELED")
